"""The tasks of a level of the walk, and of what it found: each joins one range of ids and reads the row groups that hold any."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pyarrow as pa

from stackbuild.errors import TemporaryError
from stackbuild.sources.swh.by_id import Looked, rows_by_id
from stackbuild.sources.swh.fetch import FetchOptions, open_store
from stackbuild.sources.swh.packed import PackedCache, fetch_cached
from stackbuild.sources.swh.partitions import BUCKET, has_any, mine, write_by
from stackbuild.sources.swh.placed import FETCHED, PLACED, contents_of, gathered, states_of, wanted_of
from stackbuild.sources.swh.resolve import REFUSED, WANTED, resolve
from stackbuild.sources.swh.session import rows_of, session, stream
from stackbuild.sources.swh.source_options import SwhOptions
from stackbuild.sources.swh.tables import CONTENTS, ENTRIES, SKIPPED
from stackbuild.sources.swh.walk import FOUND, FRONTIER, LEFT, level
from stackbuild.sources.unit import Limits
from stackbuild.task import Task
from stackbuild.wanted import PASSING, STATES


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


def fetch_files(task: Task, source: SwhOptions, limits: Limits, cache: Path) -> None:
    """Fetch the wanted contents of this task's range, and write what lies at each place.

    What the store said of an object in an earlier build is not believed: it may have it by now. TemporaryError if some may come another
    time: what came is in the cache.
    """
    store = open_store(source.objects, source.signed, source.endpoint_url)
    asked = chain.from_iterable(wanted_of(batch) for batch in mine(task, "wanted", WANTED))
    options = FetchOptions(max_bytes=limits.file_bytes)
    told: Counter[str] = Counter()
    with session(task.scratch, source.join_memory) as connection:
        connection.register("refused", stream(mine(task, "refused", REFUSED), REFUSED))
        connection.execute(
            "CREATE TEMP TABLE states AS "
            "SELECT content_id, NULL::BLOB AS blob_id, length, rule, value, threshold, detail FROM refused"
        )
        with task.writer("fetched", FETCHED, group_by=BUCKET) as writer:
            for some in gathered(fetch_cached(store, asked, PackedCache(cache), options=options, again=STATES)):
                told.update(one.state for one in some)
                writer.write(contents_of(task.rank, some))
                connection.register("arriving", states_of(some))
                connection.execute("INSERT INTO states SELECT * FROM arriving")
        if passing := {state: count for state, count in sorted(told.items()) if state in PASSING}:
            raise TemporaryError(
                f"{sum(passing.values()):,} of {sum(told.values()):,} contents did not come from {store.shown} "
                f"({', '.join(f'{state}: {count:,}' for state, count in passing.items())}). Run the build again; what came is "
                "kept."
            )
        connection.register("files", stream(files_of(task, limits, FOUND), FOUND))
        placed = rows_of(
            connection,
            "SELECT f.root, f.path, f.mode, s.content_id, s.blob_id, s.length, s.rule, s.value, s.threshold, s.detail "
            "FROM files f JOIN states s ON s.content_id = f.target ORDER BY f.root, f.path, f.mode, s.content_id",
            PLACED,
        )
        write_by(task, "placed", PLACED, placed, "root")
    task.stats["states"] = dict(sorted(told.items()))
