"""Defects of the originals that are not repeated here: of The Stack v1's filters (D9, D10), of The Stack v2's languages and files.

D27, languages that the list of extensions loses, is in `tests/languages/test_names.py`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stackbuild.languages.languages import Languages
from stackbuild.quality.filters import FilterOptions, Filters
from stackbuild.quality.signals import Signals
from stackbuild.stage import judge, with_columns
from tests.test_build import run
from tests.worlds import light

WORDS = (
    "Some words that whoever opens this page can read, of which there are more than a hundred characters in all of it. "
)
BROKEN = {
    "tags that nobody closes": f"<html><body><p>{WORDS}<div><b>{WORDS}",
    "tags closed in another order": f"<b><i>{WORDS}</b></i></p></td>{WORDS}",
    "a comment that nobody closes": f"<p>{WORDS}</p>{WORDS}<!-- no end",
    "an entity of no character": f"<p>&#xFFFFFFFF;&bogus;{WORDS}</p>",
    "half a tag": f"<p>{WORDS}</p><a href='",
    "signs that are no tags": f"<p>1 < 2 > 1 <> {WORDS}</p>",
    "a declaration in the middle": f"<p>{WORDS}<!DOCTYPE <!ELEMENT a (b)>{WORDS}",
}


@pytest.mark.parametrize("page", BROKEN.values(), ids=BROKEN)
def test_d10_a_page_that_no_parser_likes_is_measured_all_the_same(page: str) -> None:
    """The original dropped each file whose parser raised, and did not import the parser."""
    batch = pa.record_batch({"text": pa.array([page], pa.large_string()), "language": ["HTML"], "path": ["/a.html"]})
    files = with_columns(batch, {**Signals().tags(batch), "is_generated": pa.array([False])})
    visible = files["visible_text_chars"][0].as_py()
    assert visible is not None and visible >= 0.6 * len(WORDS)
    assert judge(Filters().verdicts(files), 1)[0].to_pylist() == [True]


def test_d9_five_stars_are_at_least_five() -> None:
    files = pa.record_batch({"star_events_count": pa.array([4, 5, 6], pa.int64())})
    stage = Filters(FilterOptions(rules="santacoder-stars"))
    assert judge(stage.verdicts(files), 3)[0].to_pylist() == [False, True, True]


def test_folders_of_other_peoples_code_are_told_by_the_whole_path() -> None:
    """The Stack v2 gave go-enry base names alone, by which node_modules/ or vendor/ cannot be seen."""
    paths = [b"node_modules/a/b.js", b"vendor/b.go", b"third_party/x/y.c", b"src/b.go", b"b.js"]
    files = pa.record_batch({"path_bytes": pa.array(paths), "text": pa.array(["x\n"] * 5, pa.large_string())})
    assert Languages().tags(files)["is_vendor"].to_pylist() == [True, True, True, False, False]


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_language_of_a_content_is_that_of_the_path_it_is_released_under(tmp_path: Path, shuffled: bool) -> None:
    """The Stack v2 took the first of an unordered set of names."""
    random_ = random.Random(3)
    texts = [f"value_{n} = other_{n}\n" * 3 for n in range(12)]
    names = ["a.py", "a.rb", "a.jl", "a.lua", "a.pl"]
    repos = [f"repo{n}" for n in range(5)]
    for repo, name in zip(repos, names, strict=True):
        (tmp_path / "in" / repo).mkdir(parents=True)
        for number, text in enumerate(texts):
            (tmp_path / "in" / repo / f"{number}{name}").write_text(text)
    body: dict[str, Any] = light(tmp_path / "in", stages=["exact_dedup", "decode", "languages"])
    if shuffled:
        random_.shuffle(body["source"][0]["paths"])
    run(body, tmp_path / "out")
    tables = [pq.read_table(path) for path in (tmp_path / "out" / "dataset").rglob("*.parquet")]
    rows = [row for table in tables for row in table.select(["path", "language", "repo_name"]).to_pylist()]
    of_extension = {"py": "Python", "rb": "Ruby", "jl": "Julia", "lua": "Lua", "pl": "Perl"}
    assert len(rows) == len(texts)
    assert all(row["language"] == of_extension[row["path"].rsplit(".", 1)[1]] for row in rows)
    assert {row["repo_name"] for row in rows} == {"local/repo0"}  # the same copy wins whatever the order
