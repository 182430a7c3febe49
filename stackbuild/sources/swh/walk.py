"""One level of the walk from root directories to files: a join of where the walk stands with the entries of directories.

The walk is level-synchronous, as The Stack v2's was (Lozhkov et al. 2024, section 2.1; reference: a breadth-first self-join of
`directory_entry`), and cut by the directory's id, so that a task sees the entries of its own range of ids alone. Where the walk
stands is the *frontier*: a row for each place of a directory below a root that is walked. What a level finds is files, the next
frontier, and what it leaves, with the rule by which it does:

  too_deep         a directory below `Limits.depth` levels
  long_path        a path longer than `Limits.path_bytes`
  unsafe_path      a name that no tree may have: empty, ".", "..", or with "/" or NUL in it
  too_many_copies  one directory at more than `COPIES` places of a root on one level: trees that name themselves twice on each
                   level have 2 ** depth files, and take a kilobyte
  missing_object   a directory that the export has no entries of, and that is not the empty one

Names are bytes, and all of them are kept: submodules and symlinks prove the tree, though nobody trains on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from stackbuild.schema import ID
from stackbuild.sources.swh.session import MEMORY, Ids, ids_of, rows_of, stream
from stackbuild.sources.swh.tables import DIR, ENTRIES, FILE
from stackbuild.sources.unit import Limits
from stackbuild.swhid import object_id, serialize_tree

COPIES = 10_000
DIRECTORY_MODE, LINK_MODE, COMMIT_MODE, TYPE_MASK = 0o40000, 0o120000, 0o160000, 0o170000
EMPTY_TREE = object_id("tree", serialize_tree([]))
UNSAFE = "^(|2E|2E2E|(..)*(2F|00).*)$"  # of a name in hexadecimal

# `path`: where the directory `node` lies below its root, without "/" at either end; empty for the root itself.
FRONTIER = pa.schema(
    [
        pa.field("node", ID, nullable=False),
        pa.field("root", ID, nullable=False),
        pa.field("path", pa.binary(), nullable=False),
    ]
)
# A file, a symlink or a submodule below a root. `target`: the content's id, or the submodule's commit.
FOUND = pa.schema(
    [
        pa.field("target", ID, nullable=False),
        pa.field("root", ID, nullable=False),
        pa.field("path", pa.binary(), nullable=False),
        pa.field("mode", pa.int32(), nullable=False),
    ]
)
LEFT = pa.schema(
    [
        *FOUND,
        pa.field("rule", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
    ]
)


@dataclass(frozen=True)
class Level:
    """What one level found, to be read once and in this order."""

    files: Iterator[pa.RecordBatch]  # FOUND: regular files, by target
    frontier: Iterator[pa.RecordBatch]  # FRONTIER of the next level, by node
    links: Iterator[pa.RecordBatch]  # FOUND: symlinks and submodules, by root
    left: Iterator[pa.RecordBatch]  # LEFT, by root


def level(
    connection: Any,
    frontier: Iterator[pa.RecordBatch],
    entries: Callable[[Ids | None], Iterator[pa.RecordBatch]],
    depth: int,
    limits: Limits,
    copies: int = COPIES,
    memory: int = MEMORY,
) -> Level:
    """Walk one level down.

    `frontier`: FRONTIER, the places at which the walk stands, `depth` levels below their roots. `entries`: rows of ENTRIES of the
    directories that it is given, sorted and each once, or of more, of all for None; whatever their order, a directory perhaps twice, as
    exports are written at least once; it is called once. `memory`: of the connection; both tables may be larger.
    """
    connection.register("arriving", stream(frontier, FRONTIER))
    connection.execute("CREATE OR REPLACE TEMP TABLE standing AS SELECT DISTINCT node, root, path FROM arriving")
    connection.unregister("arriving")
    _drop_copies(connection, copies)
    connection.register("entries", stream(entries(ids_of(connection, "standing", "node", memory)), ENTRIES.schema))
    # Made one, and judged, before the join: a directory may stand in thousands of places.
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE held AS
        SELECT *, regexp_matches(hex(name), '{UNSAFE}') AS unsafe
        FROM (SELECT DISTINCT directory_id AS node, name, kind, target, perms FROM entries)
        SEMI JOIN standing USING (node)
        """
    )
    connection.unregister("entries")
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE reached AS
        SELECT *, CASE WHEN unsafe THEN 'unsafe_path'
                       WHEN octet_length(path) > {limits.path_bytes} THEN 'long_path'
                       WHEN kind = {DIR} AND {depth + 1} >= {limits.depth} THEN 'too_deep' END AS rule
        FROM (SELECT s.root, CASE WHEN s.path = ''::BLOB THEN h.name ELSE s.path || '/'::BLOB || h.name END AS path,
                  h.kind, h.target, h.perms AS mode, h.unsafe
              FROM held h JOIN standing s USING (node))
        """
    )
    thresholds = f"CASE rule WHEN 'long_path' THEN {limits.path_bytes} WHEN 'too_deep' THEN {limits.depth} END"
    values = f"CASE rule WHEN 'long_path' THEN octet_length(path) WHEN 'too_deep' THEN {depth + 1} END"
    is_file = f"(kind = {FILE} AND mode & {TYPE_MASK} <> {LINK_MODE})"
    return Level(
        rows_of(
            connection,
            f"SELECT target, root, path, mode FROM reached WHERE rule IS NULL AND {is_file} ORDER BY ALL",
            FOUND,
        ),
        rows_of(
            connection,
            f"SELECT target AS node, root, path FROM reached WHERE rule IS NULL AND kind = {DIR} ORDER BY ALL",
            FRONTIER,
        ),
        rows_of(
            connection,
            f"SELECT target, root, path, mode FROM reached WHERE rule IS NULL AND kind <> {DIR} AND NOT {is_file} "
            "ORDER BY root, path, target, mode",
            FOUND,
        ),
        rows_of(
            connection,
            f"SELECT target, root, path, mode, rule, {values}::DOUBLE AS value, {thresholds}::DOUBLE AS threshold "
            "FROM reached WHERE rule IS NOT NULL "
            "UNION ALL SELECT target, root, path, mode, rule, value, threshold FROM crowded "
            f"UNION ALL SELECT node, root, path, {DIRECTORY_MODE}, 'missing_object', NULL, NULL FROM standing "
            f"ANTI JOIN held USING (node) WHERE node <> unhex('{EMPTY_TREE.hex()}') ORDER BY root, path, target, mode, rule",
            LEFT,
        ),
    )


def _drop_copies(connection: Any, copies: int) -> None:
    """Of the places of one directory below one root keep the first, by path; the rest go to `crowded`."""
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE crowded AS
        SELECT node AS target, root, path, {DIRECTORY_MODE} AS mode, 'too_many_copies' AS rule,
            place::DOUBLE AS value, {copies}::DOUBLE AS threshold
        FROM (SELECT node, root, path, row_number() OVER (PARTITION BY node, root ORDER BY path) AS place
              FROM standing SEMI JOIN (SELECT node, root FROM standing GROUP BY ALL HAVING count(*) > {copies}) USING (node, root))
        WHERE place > {copies}
        """
    )
    connection.execute(
        "DELETE FROM standing USING crowded WHERE standing.node = crowded.target AND standing.root = crowded.root "
        "AND standing.path = crowded.path"
    )
