"""The report's part on near-duplicates: twins that left later, and sources that lost most of their files."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.report.duplicates import alarms_of, twins_gone
from stackbuild.schema import DECISIONS

ORDER = {"filters": 0, "near_dedup": 1, "pii": 2, "opt_out": 3}


def decision(stage: str, rule: str, content: int, twin: int | None = None) -> dict[str, Any]:
    return {
        "stage": stage, "rule": rule, "outcome": "dropped", "repo_name": f"owner/{content}", "revision_id": "r", "path": "/a",
        "path_bytes": b"/a", "content_id": bytes([content]) * 20, "kept_content_id": None if twin is None else bytes([twin]) * 20,
    }  # fmt: skip


def written(path: Path, rows: list[dict[str, Any]]) -> list[Path]:
    pq.write_table(pa.Table.from_pylist(rows, DECISIONS), path)
    return [path]


def test_removed_files_whose_twin_left_later_are_counted_by_why(tmp_path: Path) -> None:
    public = written(
        tmp_path / "public.parquet",
        [
            decision("near_dedup", "near_duplicate", 1, 10),
            decision("near_dedup", "near_duplicate", 2, 10),
            decision("near_dedup", "near_duplicate", 3, 11),
            decision("near_dedup", "near_duplicate", 4, 12),
            decision("pii", "secrets", 10),
            decision("filters", "long_lines", 12),  # an earlier stage: another file of that content
            decision("pii", "secrets", 13),  # nobody's twin
        ],
    )
    private = written(tmp_path / "private.parquet", [decision("opt_out", "owner", 11)])
    assert twins_gone(public, private, "near_dedup", ORDER) == {"opt_out: owner": 1, "pii: secrets": 2}
    assert twins_gone(public, [], "near_dedup", ORDER) == {"pii: secrets": 2}
    assert twins_gone([], [], "near_dedup", ORDER) == {}


def test_a_source_is_named_that_loses_the_share_and_has_the_files() -> None:
    came = Counter({"all": 60, "most": 100, "half": 100, "few": 10, "none": 500})
    lost = Counter({"all": 60, "most": 90, "half": 50, "few": 10})
    found = alarms_of(lost, came, share=0.9, files=50)
    assert [(row["name"], row["removed"], row["files"]) for row in found["shown"]] == [
        ("most", 90, 100),
        ("all", 60, 60),
    ]
    assert found["alarms"] == 2
