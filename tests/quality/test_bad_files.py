"""Files that nobody expects, from the disk to the release: none ends a build, and each that leaves has its reason."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from stackbuild import build as building
from stackbuild.ledger import check_ledger
from tests.worlds import source_text

CODE = b"# Adds up what it is given.\ndef total(values):\n    return sum(values)\n\n\nprint(total([1, 2, 3]))\n" * 3
MANY = 50_000_000

FILES: dict[bytes, bytes] = {
    b"empty.py": b"",
    b"blank.py": b"\n \n\t\n" * 9,
    b"one_line.json": b"[" + b'{"key": [1, 2]}, ' * 650_000 + b"0]",  # 11 MB
    b"x.m": b"[" + b"a b: c; " * (MANY // 8) + b"]",
    b"caf\xe9/\xff.py": CODE,
    b"\xed\xa0\x80.py": CODE + b"# a surrogate in the name\n",
    b"wide.py": ("# Größe, naïve\n" + CODE.decode()).encode("utf-16"),
    b"half.py": CODE + bytes(range(256)) * 40,
    b"words.qqq": b"nobody knows what this is\n" * 9,
    b"deep.js": b"f(" * 40_000 + b")" * 40_000,
}

# stage and rule by which each leaves; None: it stays
LEAVES: dict[bytes, tuple[str, str] | None] = {
    b"empty.py": ("decode", "empty"),
    b"blank.py": ("filters", "Q6-alphabetic"),
    b"one_line.json": ("filters", "Q3-longest-line"),
    b"x.m": ("filters", "Q2-mean-line"),
    b"caf\xe9/\xff.py": None,
    b"\xed\xa0\x80.py": None,
    b"wide.py": None,
    b"half.py": ("decode", "binary"),
    b"words.qqq": ("languages", "no_language"),
    b"deep.js": ("filters", "Q2-mean-line"),
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> building.Build:
    repo = tmp_path_factory.mktemp("bad") / "repo"
    for name, data in FILES.items():
        path = os.path.join(os.fsencode(repo), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)
    (repo / "plain.py").write_text("# Some functions.\n" + source_text(random.Random(1)))
    body: dict[str, Any] = {
        "name": "bad",
        "seed": 7,
        "partitions": 2,
        "source": [{"kind": "directory", "paths": [str(repo)]}],
        "stages": ["exact_dedup", "decode", "languages", "syntax", "signals", "filters", "filters:comments", "pii"],
        "exact_dedup": {"winner": ["-revision_date"]},
        "limits": {"file_bytes": 64 << 20},
        "decode": {"max_bytes": 64 << 20},
        "syntax": {"languages": ["Python", "JavaScript"], "max_bytes": 16 << 20},
        "stage": {"filters:comments": {"rules": "santacoder-comments"}},
        "outputs": ["dataset"],
    }
    return building.run(building.Request(body, Path("/"), repo.parent / "out", 2)).build


def test_each_bad_file_stays_or_leaves_by_the_rule_that_is_meant(built: building.Build) -> None:
    gone = {
        row["path_bytes"]: (row["stage"], row["rule"])
        for path in (built.out / "decisions").glob("*.parquet")
        for row in pq.read_table(path).to_pylist()
    }
    stayed = {
        row["path_bytes"]
        for path in (built.out / "dataset").rglob("*.parquet")
        for row in pq.read_table(path, columns=["path_bytes"]).to_pylist()
    }
    told = {name: gone.get(name) for name in FILES}
    assert told == LEAVES
    assert stayed == {b"plain.py", *(name for name, reason in LEAVES.items() if reason is None)}
    check_ledger(built)


def test_what_was_utf16_is_text_and_says_what_it_was(built: building.Build) -> None:
    rows = [
        row
        for path in (built.out / "dataset").rglob("*.parquet")
        for row in pq.read_table(path).to_pylist()
        if row["path_bytes"] == b"wide.py"
    ]
    (row,) = rows
    assert row["src_encoding"].lower().startswith("utf-16") and row["language"] == "Python"
    assert row["content"].startswith("# Größe, naïve\n")
