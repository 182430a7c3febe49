"""Three counts of languages are always told apart: those that could be named, that had a file, and that are released."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.test_build import run
from tests.worlds import light

FILES = {
    "a.py": "value = another\n" * 3,
    "b.R": "f <- function(x) x\n",
    "c.json": "{}\n" * 600,  # leaves by Q8
    "d.m": "function y = f(x)\n% doubles\ny = 2 * x;\nend\n",
    "no_idea": "words\n",
}


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ({}, {"mapped": 801, "with_files": 4, "after_filters": 3}),
        ({"compat": "the-stack-v1"}, {"mapped": 370, "with_files": 2, "after_filters": 1}),
    ],
)
def test_the_report_and_the_card_tell_three_counts(
    tmp_path: Path, options: dict[str, Any], counts: dict[str, int]
) -> None:
    repo = tmp_path / "world" / "repo"
    repo.mkdir(parents=True)
    for name, text in FILES.items():
        (repo / name).write_text(text)
    out = tmp_path / "out"
    run(light(repo.parent, languages=options), out)
    assert json.loads((out / "report" / "report.json").read_text())["language_counts"] == counts
    mapped, had, here = counts.values()
    told = f"{mapped} languages could have been named; {had} had a file; {here} have one here."
    assert told in (out / "dataset" / "README.md").read_text()
    page = " ".join((out / "report" / "index.html").read_text().split())
    assert f"{mapped} could have been named; {had} had a file; {here} have one here." in page
