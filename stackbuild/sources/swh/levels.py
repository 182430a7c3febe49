"""The tasks of a level of the walk, and of what it found: each joins one range of ids and reads the row groups that hold any."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pyarrow as pa

from stackbuild.sources.swh.by_id import Looked, rows_by_id
from stackbuild.sources.swh.partitions import has_any, mine, write_by
from stackbuild.sources.swh.resolve import REFUSED, WANTED, resolve
from stackbuild.sources.swh.session import session
from stackbuild.sources.swh.tables import CONTENTS, ENTRIES, SKIPPED
from stackbuild.sources.swh.walk import FOUND, FRONTIER, LEFT, level
from stackbuild.sources.unit import Limits
from stackbuild.task import Task


def walk_level(task: Task, depth: int, limits: Limits, memory: int) -> None:
    """Write what a level finds below the directories of this task's range; nothing if the walk stands in none of them."""
    if not has_any(task, f"frontier-{depth:02d}"):
        return
    looked = Looked()
    with session(task.scratch, memory) as connection:
        found = level(
            connection,
            mine(task, f"frontier-{depth:02d}", FRONTIER),
            lambda nodes: rows_by_id(task, ENTRIES, nodes, looked),
            depth,
            limits,
            memory=memory,
        )
        write_by(task, f"files-{depth:02d}", FOUND, found.files, "target")
        write_by(task, f"frontier-{depth + 1:02d}", FRONTIER, found.frontier, "node")
        write_by(task, f"links-{depth:02d}", FOUND, found.links, "root")
        write_by(task, f"left-{depth:02d}", LEFT, found.left, "root")
    task.stats.update(entries_read=looked.rows_read, entries_skipped=looked.rows_skipped)


def files_of(task: Task, limits: Limits, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The files that all levels found, of this task's range of contents."""
    return chain.from_iterable(mine(task, f"files-{depth:02d}", schema) for depth in range(limits.depth))


def resolve_files(task: Task, limits: Limits, memory: int) -> None:
    """Write which contents of this task's range are wanted, and which are refused."""
    looked = Looked()
    with session(task.scratch, memory) as connection:
        wanted, refused = resolve(
            connection,
            files_of(task, limits, pa.schema([FOUND.field("target")])),
            lambda ids: rows_by_id(task, CONTENTS, ids, looked),
            lambda ids: rows_by_id(task, SKIPPED, ids, looked),
            limits,
            memory,
        )
        write_by(task, "wanted", WANTED, wanted, "content_id")
        write_by(task, "refused", REFUSED, refused, "content_id")
    task.stats.update(contents_read=looked.rows_read, contents_skipped=looked.rows_skipped)
