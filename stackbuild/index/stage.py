"""Look-ups: which repositories are in, and which contents, each as sorted Parquet that needs no server.

`names` holds one row for each repository and revision that was read, by hash of its folded owner, with what was kept and by
which rule the rest left; repositories that asked to be left out are not in it. `contents` holds
one row for each released content, by the leading bits of its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.hashing import owner_of
from stackbuild.schema import CONTENT_INDEX
from stackbuild.stage import Options, Phase, Stage
from stackbuild.task import Task

RULES = pa.list_(
    pa.struct([pa.field("stage", pa.string()), pa.field("rule", pa.string()), pa.field("files", pa.int64())])
)
NAMES = pa.schema(
    [
        pa.field("owner", pa.string(), nullable=False),  # folded
        pa.field("name", pa.string(), nullable=False),  # folded repo_name
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("repo_url", pa.string()),
        pa.field("snapshot_id", pa.string()),
        pa.field("directory_id", pa.string()),
        pa.field("visit_date", pa.timestamp("ns")),
        pa.field("other_names", pa.string()),
        pa.field("files", pa.int64(), nullable=False),  # read from it
        pa.field("kept", pa.int64(), nullable=False),  # released under its name
        pa.field("left", RULES),
    ]
)
ORIGIN = ("repo_url", "snapshot_id", "directory_id", "visit_date", "other_names")


class Index(Stage[Options]):
    """Write the look-up tables of a build."""

    name = "index"

    def phases(self) -> Sequence[Phase]:
        reads = ("layout.pointers", "layout.decisions", "layout.origins", "layout.contents")
        return (Phase("names", self.names, "buckets", reads=reads),)

    def names(self, task: Task) -> None:
        """The repositories of an owner bucket, and the contents of a partition."""
        columns = ["repo_name", "revision_id", *ORIGIN]
        kept = read(task, "layout.pointers", columns[:2])
        origins = read(task, "layout.origins", columns)
        left = pq.read_table(
            task.table("layout.decisions")[task.rank], columns=["repo_name", "revision_id", "stage", "rule"]
        )
        with task.writer("names", NAMES, release=True, compression_level=3) as writer:
            writer.write(repositories(origins, kept, left))
        with task.writer("contents", CONTENT_INDEX, release=True, compression_level=3) as writer:
            for batch in task.read("layout.contents", CONTENT_INDEX.names, task.rank, "partition"):
                writer.write(batch)


def read(task: Task, table: str, columns: list[str]) -> pa.Table:
    """A table's rows of the task's owner bucket."""
    batches = list(task.read(table, columns, task.rank, "owner_bucket"))
    if batches:
        return pa.Table.from_batches(batches)
    types = {field.name: field.type for field in NAMES}
    return pa.table({name: pa.array([], types.get(name, pa.string())) for name in columns})


def repositories(origins: pa.Table, kept: pa.Table, left: pa.Table) -> pa.Table:
    """One row of NAMES for each (repo_name, revision_id) of any of the tables, sorted by folded name and revision.

    `origins`: what may be named of what was read, with the columns of ORIGIN. `kept`: a row for each released file.
    `left`: a row for each file that left, with `stage` and `rule`.
    """
    key = ["repo_name", "revision_id"]
    kept_counts = kept.group_by(key, use_threads=False).aggregate([("repo_name", "count")])
    by_rule = left.group_by([*key, "stage", "rule"], use_threads=False).aggregate([("stage", "count")])
    by_rule = by_rule.sort_by([(name, "ascending") for name in (*key, "stage", "rule")])
    rows: dict[tuple[str, str], dict[str, Any]] = {}

    def of(row: dict[str, Any]) -> dict[str, Any]:
        return rows.setdefault((row["repo_name"], row["revision_id"]), {"kept": 0, "files": 0, "left": []})

    for row in origins.sort_by([(name, "ascending") for name in origins.column_names]).to_pylist():
        for name in ORIGIN:  # two sources may have read one revision; what either knew is told, the first by value
            of(row).setdefault(name, row[name])
    for row in kept_counts.to_pylist():
        of(row)["kept"] = of(row)["files"] = row["repo_name_count"]
    for row in by_rule.to_pylist():
        of(row)["left"].append({"stage": row["stage"], "rule": row["rule"], "files": row["stage_count"]})
        of(row)["files"] += row["stage_count"]
    found = [
        {"owner": owner_of(name), "name": name.casefold(), "repo_name": name, "revision_id": revision, **entry}
        for (name, revision), entry in rows.items()
    ]
    table = pa.Table.from_pylist(found, NAMES)
    return table.take(pc.sort_indices(table, [(name, "ascending") for name in ("name", "repo_name", "revision_id")]))
