"""The source of kind "swh": repositories of a Software Heritage export.

The export is listed once, for the frozen plan. The walk to files and contents is made of jobs of the plan (`stage.py`); a unit is a
range of root directories, and what is read of it is the places of their files, joined with all repositories that have the
root: forks that did not diverge are one walk, and as many occurrences.

Identity: `repo_name` from the URL, `revision_id` the commit that the branch leads to, else what the branch names (a release whose
directory is no commit's, or a directory). Rules beside those of `walk.py` and `resolve.py`: `too_many_files`, from the file on that
passes the cap of a repository; of the fetch `missing`, `forbidden`, `zeroed`, `not_gzip`, `truncated`, `trailing_data`,
`hash_mismatch`; and for a repository without a root the reason that `heads.py` or `visits.py` give.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild.schema import ID, ORIGIN_FIELDS
from stackbuild.shards import digest
from stackbuild.sources.gharchive.facts import TOLD
from stackbuild.sources.gharchive.hours import HourFile, list_hours
from stackbuild.sources.swh import heads, tables
from stackbuild.sources.swh.convert import times
from stackbuild.sources.swh.export import ExportFile, open_export
from stackbuild.sources.swh.placed import PLACED
from stackbuild.sources.swh.session import rows_of, session, stream
from stackbuild.sources.swh.source_options import SwhOptions, read_names
from stackbuild.sources.swh.stage import CONVERTED, PLACES, SwhWalk, repo_name
from stackbuild.sources.swh.walk import DIRECTORY_MODE, FOUND, LEFT
from stackbuild.sources.timestamps import as_timestamps
from stackbuild.sources.unit import Entry, Limits, Origin, ResolveContext, Skipped, Unit

ORIGIN = pa.schema(ORIGIN_FIELDS)
_PLACE = (pa.field("path_bytes", pa.binary(), nullable=False), pa.field("mode", pa.int32(), nullable=False))
FILES = pa.schema(
    [
        *ORIGIN,
        *_PLACE,
        pa.field("content_id", ID, nullable=False),
        pa.field("blob_id", ID, nullable=False),
        pa.field("length", pa.int64(), nullable=False),
    ]
)
GONE = pa.schema(
    [
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        *_PLACE,
        pa.field("content_id", ID),
        pa.field("length", pa.int64()),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("detail", pa.string()),
    ]
)
LINKS = pa.schema(
    [
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        *_PLACE,
        pa.field("target", ID, nullable=False),
    ]
)

# By what the size of a unit is guessed: bytes of an export's file for each content (four hashes), the mean length of a file (The Stack v2),
# and the share of them that a list or a pattern selects.
CONTENT_ROW, CONTENT_BYTES, FEW = 110, 20_000, 0.01

Read = Callable[[str, pa.Schema], Iterator[pa.RecordBatch]]  # the rows of a table of the walk in a unit's range
Told = Iterator[tuple[str, pa.RecordBatch]]


class SwhSource:
    """The source of kind "swh"; see the module."""

    kind = "swh"
    options_model = SwhOptions

    def units(self, options: SwhOptions, context: ResolveContext) -> tuple[list[Unit], list[Skipped]]:
        """List the export, and make a unit of each range of roots. InputError if it lacks a table or has no visits."""
        context.progress("listing the export", 0, 1)
        export = open_export(options.export, options.format, options.signed)
        files = {spec.source: export.table(spec.source) for spec in (tables.VISITS, *CONVERTED)}
        names = read_names(options.list) if options.list else None
        hours = list_hours(options.gharchive, options.signed) if options.gharchive else ()
        listed = [[file.name, file.size, file.etag] for table in sorted(files) for file in files[table]]
        selected = options.model_dump(mode="json", exclude=set(PLACES))
        key = {
            "export": digest(listed),
            "gharchive": digest([[hour.name, hour.size, hour.etag] for hour in hours]),
            "selected": digest([selected, sorted(names) if names is not None else None]),
            "of": context.partitions,
        }
        where: dict[str, Any] = {"path": options.export, "cache": os.path.join(context.cache, "swh")}
        first = {
            "files": {table: [asdict(file) for file in found] for table, found in files.items()},
            "names": sorted(names) if names is not None else None,
            "hours": [asdict(hour) for hour in hours],
        }
        known = sum(file.size for file in files[tables.CONTENTS.source]) // CONTENT_ROW
        share = FEW if names is not None or options.pattern else 1.0
        size = int(known * share * CONTENT_BYTES) // context.partitions
        return [
            Unit("swh", {**key, "part": part}, {**where, **(first if not part else {})}, size, None)
            for part in range(context.partitions)
        ], []

    def walk(self, options: SwhOptions, first: Unit, limits: Limits, sample: tuple[int, float] | None) -> SwhWalk:
        """The walk of the export that the first unit was planned of."""
        files = {table: [ExportFile(**file) for file in found] for table, found in first.where["files"].items()}
        names = frozenset(first.where["names"]) if first.where["names"] is not None else None
        hours = [HourFile(**hour) for hour in first.where["hours"]]
        return SwhWalk(options, files, names, limits, Path(first.where["cache"]), sample, hours)

    def told(self, first: Unit) -> dict[str, Any]:
        """The export's files, [name, bytes, etag], and the hours of GH Archive, [name, bytes]."""
        files = [
            [file["name"], file["size"], file["etag"]] for table in first.where["files"].values() for file in table
        ]
        hours = [[hour["name"], hour["size"]] for hour in first.where["hours"]]
        return {"files": sorted(files, key=str), **({"hours": hours} if hours else {})}

    def read(self, unit: Unit, options: SwhOptions, limits: Limits) -> Iterator[Origin | Entry]:
        raise TypeError("what is read of an export is what its walk wrote: read_walk")

    def read_walk(self, read: Read, options: SwhOptions, limits: Limits, scratch: Path) -> Told:
        """("origins", ORIGIN), ("files", FILES), ("left", GONE) and ("links", LINKS) of a range of roots, in total orders."""
        roots = pa.Table.from_batches(read("roots", heads.ROOTS), heads.ROOTS)
        origins = origins_of(roots)
        for batch in origins.select(ORIGIN.names).to_batches():
            yield "origins", batch
        with session(scratch, options.join_memory) as connection:
            connection.register("origins", origins)
            for name, schema in (("placed", PLACED), ("links", FOUND), ("left", LEFT)):
                connection.register("arriving", stream(read(name, schema), schema))
                connection.execute(f"CREATE OR REPLACE TEMP TABLE {name}_there AS SELECT * FROM arriving")
                connection.unregister("arriving")
            connection.execute(_CROWDED.format(most=limits.unit_files))
            for name, (query, schema) in _QUERIES.items():
                for batch in rows_of(connection, query.format(most=limits.unit_files), schema):
                    yield name, batch
        for batch in read("lost", heads.LOST):
            yield "left", gone_whole(batch)


_ORIGIN = ", ".join(f"o.{name}" for name in ORIGIN.names)
# The cap holds here and not in the walk, where the tasks of a level have each a range of directories, of all roots: how many files a
# root has none of them knows, and to sum them up would be another job for each level. `walk.COPIES` keeps a root from exploding.
_CROWDED = """
    CREATE OR REPLACE TEMP TABLE crowded AS SELECT root, path, content_id FROM placed_there
    SEMI JOIN (SELECT root FROM placed_there GROUP BY root HAVING count(*) > {most}) USING (root)
    QUALIFY row_number() OVER (PARTITION BY root ORDER BY path, content_id) > {most}
"""
_QUERIES: Mapping[str, tuple[str, pa.Schema]] = {
    "files": (
        f"SELECT {_ORIGIN}, p.path AS path_bytes, p.mode, p.content_id, p.blob_id, p.length "
        "FROM placed_there p JOIN origins o ON o.root = p.root ANTI JOIN crowded c "
        "ON c.root = p.root AND c.path = p.path AND c.content_id = p.content_id WHERE p.rule IS NULL "
        "ORDER BY o.repo_name, o.revision_id, o.repo_url, p.path, p.content_id, p.mode",
        FILES,
    ),
    "left": (
        "SELECT o.repo_name, o.revision_id, l.path AS path_bytes, l.mode, l.content_id, l.length, l.rule, l.value, l.threshold, "
        "l.detail FROM ("
        "SELECT root, path, mode, content_id, length, rule, value, threshold, detail FROM placed_there WHERE rule IS NOT NULL "
        "UNION ALL SELECT p.root, p.path, p.mode, p.content_id, p.length, 'too_many_files', NULL, {most}::DOUBLE, NULL "
        "FROM placed_there p SEMI JOIN crowded c ON c.root = p.root AND c.path = p.path AND c.content_id = p.content_id "
        "WHERE p.rule IS NULL "
        "UNION ALL SELECT root, path, mode, target, NULL, rule, value, threshold, NULL FROM left_there) l "
        "JOIN origins o ON o.root = l.root ORDER BY ALL",
        GONE,
    ),
    "links": (
        "SELECT o.repo_name, o.revision_id, l.path AS path_bytes, l.mode, l.target FROM links_there l "
        "JOIN origins o ON o.root = l.root ORDER BY ALL",
        LINKS,
    ),
}


def origins_of(roots: pa.Table) -> pa.Table:
    """The columns of ORIGIN, and `root`, for rows of ROOTS."""
    columns: dict[str, pa.Array] = {name: pa.nulls(len(roots), ORIGIN.field(name).type) for name in ORIGIN.names}
    rows = roots.to_pylist()
    columns["repo_name"] = pa.array([repo_name(row["origin"], row["repository"]) for row in rows], pa.string())
    columns["repo_url"] = pa.array([row["origin"] for row in rows], pa.string())
    columns["revision_id"] = pa.array(
        [(row["revision"] or row["anchor"] or row["root"]).hex() for row in rows], pa.string()
    )
    columns["snapshot_id"] = pa.array([row["snapshot_id"].hex() for row in rows], pa.string())
    columns["directory_id"] = pa.array([row["root"].hex() for row in rows], pa.string())
    columns["branch_name"] = pa.array([row["branch"].decode("utf-8", "replace") for row in rows], pa.string())
    columns["visit_date"] = roots["date"].combine_chunks()
    for name, seconds in (("revision_date", "date_seconds"), ("committer_date", "committer_date_seconds")):
        columns[name], _ = times(roots[seconds].combine_chunks())
    for field in TOLD:
        if field.name in columns:
            told = roots[field.name].combine_chunks()
            columns[field.name] = as_timestamps(told) if pa.types.is_timestamp(field.type) else told
    names = zip(columns["repo_name"].to_pylist(), roots["names"].to_pylist(), strict=True)
    columns["other_names"] = pa.array([_others(name, told) for name, told in names], pa.string())
    table = pa.table([columns[name].cast(ORIGIN.field(name).type) for name in ORIGIN.names], schema=ORIGIN)
    return table.append_column("root", roots["root"].combine_chunks())


def _others(repo_name: str, names: str | None) -> str | None:
    """The names without this one; null if there is no other."""
    others = [name for name in (names or "").split() if name.casefold() != repo_name.casefold()]
    return " ".join(others) or None


def gone_whole(lost: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of GONE for repositories that have no root: one each, which stands for all that is in it. No revision is known."""
    rows = lost.select(["origin", "repository", "reason"]).to_pylist()
    columns: dict[str, pa.Array] = {name: pa.nulls(len(rows), GONE.field(name).type) for name in GONE.names}
    columns["repo_name"] = pa.array([repo_name(row["origin"], row["repository"]) for row in rows], pa.string())
    columns["revision_id"] = pa.array([""] * len(rows), pa.string())
    columns["path_bytes"] = pa.array([b""] * len(rows), pa.binary())
    columns["mode"] = pa.array([DIRECTORY_MODE] * len(rows), pa.int32())
    columns["rule"] = lost.column("reason")
    return pa.RecordBatch.from_arrays([columns[name] for name in GONE.names], schema=GONE)


SOURCE = SwhSource()
