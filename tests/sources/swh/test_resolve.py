"""A file of the walk is fetched by the plain SHA-1 that the export gives it, or leaves by the rule that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.sources.swh.resolve import resolve
from stackbuild.sources.swh.session import session
from stackbuild.sources.swh.tables import ABSENT, CONTENTS, HIDDEN, SKIPPED, VISIBLE
from stackbuild.sources.unit import Limits


def identifier(text: str) -> bytes:
    return text.encode().ljust(20, b".")


def content(name: str, blob: str, length: int = 5, status: int = VISIBLE) -> dict[str, Any]:
    return {"content_id": identifier(name), "blob_id": identifier(blob), "length": length, "status": status}


def resolved(
    tmp_path: Path, asked: list[str], known: list[dict[str, Any]], skipped: list[dict[str, Any]]
) -> tuple[Any, Any]:
    found = pa.table({"target": pa.array([identifier(name) for name in asked], pa.binary(20))})
    tables = (pa.Table.from_pylist(known, CONTENTS.schema), pa.Table.from_pylist(skipped, SKIPPED.schema))
    with session(tmp_path) as connection:
        wanted, refused = resolve(
            connection, iter(found.to_batches(2)), lambda ids: iter(tables[0].to_batches(2)),
            lambda ids: iter(tables[1].to_batches(2)), Limits(file_bytes=100),
        )  # fmt: skip
        return (
            [row for batch in wanted for row in batch.to_pylist()],
            {row["content_id"].decode().rstrip("."): row for batch in refused for row in batch.to_pylist()},
        )


def test_each_content_is_wanted_once_or_refused_by_its_rule(tmp_path: Path) -> None:
    wanted, refused = resolved(
        tmp_path,
        ["a", "b", "a", "large", "edge", "hidden", "absent", "skipped", "gone"],
        [
            content("b", "B"),
            content("a", "A", 7),
            content("large", "L", 101),
            content("edge", "E", 100),
            content("hidden", "H", status=HIDDEN),
            content("absent", "X", status=ABSENT),
            content("not asked", "N"),
        ],
        [
            {"content_id": identifier("skipped"), "length": 10**9, "status": ABSENT, "reason": "Content too large"},
            {"content_id": None, "length": None, "status": ABSENT, "reason": "unknown"},
        ],
    )
    assert [(row["content_id"], row["blob_id"], row["length"]) for row in wanted] == [
        (identifier("a"), identifier("A"), 7),
        (identifier("b"), identifier("B"), 5),
        (identifier("edge"), identifier("E"), 100),
    ]
    assert {name: row["rule"] for name, row in refused.items()} == {
        "absent": "not_visible",
        "gone": "unknown_content",
        "hidden": "not_visible",
        "large": "too_large",
        "skipped": "skipped_content",
    }
    assert (refused["large"]["value"], refused["large"]["threshold"]) == (101.0, 100.0)
    assert (refused["skipped"]["detail"], refused["skipped"]["length"]) == ("Content too large", 10**9)


def test_a_content_that_stands_twice_is_one_and_the_visible_one(tmp_path: Path) -> None:
    twice = [content("a", "Z", status=HIDDEN), content("a", "B"), content("a", "A", status=ABSENT), content("a", "C")]
    for rows in (twice, twice[::-1]):
        wanted, refused = resolved(tmp_path, ["a"], rows, [])
        assert [row["blob_id"] for row in wanted] == [identifier("B")] and not refused
