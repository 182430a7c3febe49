"""From a visit to the directory that is walked: the branch that stands for a repository, and what it points to.

The branch is, of those that the snapshot has, the first of

  0  HEAD, which is an alias in nearly all snapshots: followed by name, at most `HOPS` times
  1  the one that GH Archive calls the default, where it is given
  2  refs/heads/main, 3 refs/heads/master, 4 refs/heads/trunk, 5 refs/heads/develop
  6  the only branch below refs/heads/
  7  of several the one whose commit is the newest, of at most `HEADS` in the order of their names

A branch points to a revision, a release (which points further, at most `CHAIN` times) or a directory; one that points to a
content or a snapshot has no directory. What is not found is a row in LOST with its reason, never a gap.

With `compat` the choice is The Stack v2's (bigcode-project/the-stack-v2, merge_gha_swh.py): only branches that point to a
revision, so that HEAD is hardly ever there; the default one where it is known, else HEAD, master and main, all of them; of all
repositories with one commit a single one, before anything is known of them; and of all with one root directory the one with the
first licence by its name, the most stars, the most forks, the earliest commit, the lowest number, the earliest visit. Where that left
it to chance, the first by name is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from stackbuild.schema import ID
from stackbuild.sources.gharchive.facts import TOLD
from stackbuild.sources.swh.session import stream, table_of
from stackbuild.sources.swh.tables import (
    ALIAS,
    BRANCHES,
    DIRECTORY,
    RELEASE,
    RELEASES,
    REVISION,
    REVISIONS,
)

HOPS, CHAIN, HEADS = 5, 3, 1_000
NAMED = ("refs/heads/main", "refs/heads/master", "refs/heads/trunk", "refs/heads/develop")
HEAD, DEFAULT, ONLY, NEWEST = 0, 1, 6, 7
COMPAT = ("HEAD", "refs/heads/master", "refs/heads/main")

VISITED = (
    pa.field("repository", pa.string(), nullable=False),
    pa.field("origin", pa.string(), nullable=False),
    pa.field("visit", pa.int64(), nullable=False),
    pa.field("date", pa.timestamp("ns")),
    pa.field("snapshot_id", ID),
)
CHOSEN = pa.schema([*VISITED, pa.field("default_branch", pa.string())])
# What a branch points to. `anchor`: the revision or release that the branch names, null for a directory.
CANDIDATES = pa.schema(
    [
        *VISITED,
        pa.field("branch", pa.binary(), nullable=False),
        pa.field("rank", pa.int8(), nullable=False),
        pa.field("anchor", ID),
        pa.field("target", ID, nullable=False),
        pa.field("target_type", pa.int8(), nullable=False),
    ]
)
FOUND_ROOTS = pa.schema(
    [
        *VISITED,
        pa.field("branch", pa.binary(), nullable=False),
        pa.field("rank", pa.int8(), nullable=False),
        pa.field("anchor", ID),
        pa.field("revision", ID),  # whose directory the root is; null where a release or a branch names the directory
        pa.field("root", ID, nullable=False),
        pa.field("date_seconds", pa.int64()),  # of the revision, since 1970: its author's and its committer's
        pa.field("committer_date_seconds", pa.int64()),
    ]
)
ROOTS = pa.schema([*FOUND_ROOTS, *TOLD])  # with what GH Archive tells of the repository
CHOSEN_TOLD = pa.schema([VISITED[0], VISITED[1], *TOLD])  # the same by itself
LOST = pa.schema([*VISITED, pa.field("reason", pa.string(), nullable=False)])

_VISITED = ", ".join(f"c.{field.name}" for field in VISITED)


def heads(
    connection: Any, chosen: pa.Table, branches: Callable[[], Iterator[pa.RecordBatch]], compat: bool = False
) -> tuple[pa.Table, pa.Table]:
    """The branches that may stand for visits: (CANDIDATES, LOST).

    `chosen`: CHOSEN. `branches`: BRANCHES of the range that the snapshots' ids are in; read once. LOST has `no_branch` for a
    snapshot without one that could stand for it, and `alias` where HEAD leads nowhere and nothing else is there.
    """
    connection.register("chosen", chosen)
    connection.register("all_branches", stream(branches(), BRANCHES.schema))
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE known AS SELECT DISTINCT snapshot_id, name, target, target_type FROM all_branches "
        "SEMI JOIN chosen USING (snapshot_id)"
    )
    connection.unregister("all_branches")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE candidate AS {_COMPAT_RANKS if compat else _RANKS}")
    best = "" if compat else "QUALIFY rank = min(rank) OVER (PARTITION BY c.repository, c.origin)"
    found = table_of(
        connection,
        f"""
        SELECT DISTINCT {_VISITED}, b.name AS branch, b.rank::TINYINT AS rank,
            CASE WHEN b.target_type IN ({REVISION}, {RELEASE}) THEN b.target END AS anchor, b.target, b.target_type
        FROM chosen c JOIN candidate b ON b.snapshot_id = c.snapshot_id
            AND (b.only_if IS NULL OR b.only_if = encode('refs/heads/' || c.default_branch)
                 OR (b.only_if = ''::BLOB AND c.default_branch IS NULL))
        {best} ORDER BY ALL
        """,
        CANDIDATES,
    )
    connection.register("found", found)
    lost = table_of(
        connection,
        f"""
        SELECT DISTINCT {_VISITED}, CASE WHEN h.snapshot_id IS NULL THEN 'no_branch' ELSE 'alias' END AS reason
        FROM chosen c ANTI JOIN found f ON f.repository = c.repository AND f.origin = c.origin
        LEFT JOIN (SELECT DISTINCT snapshot_id FROM known WHERE name = 'HEAD'::BLOB AND target_type = {ALIAS}) h
            ON h.snapshot_id = c.snapshot_id
        ORDER BY ALL
        """,
        LOST,
    )
    return found, lost


# `only_if`: null for all visits; a branch's name for those whose default branch it is; empty for those without a known one.
_RANKS = f"""
    WITH RECURSIVE head AS (
        SELECT snapshot_id, name, target, target_type, 0 AS hops FROM known WHERE name = 'HEAD'::BLOB
        UNION ALL
        SELECT k.snapshot_id, k.name, k.target, k.target_type, h.hops + 1 FROM head h
        JOIN known k ON k.snapshot_id = h.snapshot_id AND k.name = h.target
        WHERE h.target_type = {ALIAS} AND h.hops < {HOPS}
    ), plain AS (SELECT snapshot_id, name, target, target_type FROM known WHERE target_type <> {ALIAS}),
    several AS (
        SELECT *, row_number() OVER (PARTITION BY snapshot_id ORDER BY name) AS place, count(*) OVER (PARTITION BY snapshot_id) AS n
        FROM plain WHERE starts_with(hex(name), hex('refs/heads/'::BLOB)))
    SELECT snapshot_id, name, target, target_type, {
    HEAD
} AS rank, NULL::BLOB AS only_if FROM head WHERE target_type <> {ALIAS}
    UNION ALL SELECT snapshot_id, name, target, target_type, {DEFAULT}, name FROM plain
    {
    "".join(
        f" UNION ALL SELECT snapshot_id, name, target, target_type, {rank}, NULL FROM plain WHERE name = '{name}'::BLOB"
        for rank, name in enumerate(NAMED, DEFAULT + 1)
    )
}
    UNION ALL SELECT snapshot_id, name, target, target_type, {ONLY}, NULL FROM several WHERE n = 1
    UNION ALL SELECT snapshot_id, name, target, target_type, {NEWEST}, NULL FROM several WHERE n > 1 AND place <= {
    HEADS
}
"""
_COMPAT_RANKS = f"""
    SELECT snapshot_id, name, target, target_type, {DEFAULT} AS rank, name AS only_if FROM known WHERE target_type = {
    REVISION
}
    {
    "".join(
        f" UNION ALL SELECT snapshot_id, name, target, target_type, {rank}, ''::BLOB FROM known "
        f"WHERE target_type = {REVISION} AND name = '{name}'::BLOB"
        for rank, name in enumerate(COMPAT, DEFAULT + 1)
    )
}
"""


def follow(
    connection: Any,
    candidates: pa.Table,
    revisions: Callable[[], Iterator[pa.RecordBatch]],
    releases: Callable[[], Iterator[pa.RecordBatch]],
    last: bool,
    compat: bool = False,
) -> tuple[pa.Table, pa.Table, pa.Table]:
    """One step from what branches point to: (FOUND_ROOTS, CANDIDATES that lead on, LOST).

    `candidates`: CANDIDATES, with revisions and releases of the range of ids at hand; `last`: nothing may lead on.
    """
    connection.register("candidate_rows", candidates)
    for name, schema, batches in (("revisions", REVISIONS.schema, revisions), ("releases", RELEASES.schema, releases)):
        connection.register("arriving", stream(batches(), schema))
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT DISTINCT ON (id) * FROM arriving "
            "SEMI JOIN candidate_rows c ON c.target = arriving.id ORDER BY ALL"
        )
        connection.unregister("arriving")
    # All have the commit's date, so that the branch's name and then chance decided.
    single = (
        "QUALIFY row_number() OVER (PARTITION BY c.target ORDER BY branch DESC, origin, visit) = 1" if compat else ""
    )
    roots = table_of(
        connection,
        f"""
        SELECT {_VISITED}, branch, rank, anchor, r.id AS revision, coalesce(r.directory_id, c.target) AS root,
            r.date_seconds, r.committer_date_seconds
        FROM candidate_rows c LEFT JOIN revisions r ON c.target_type = {REVISION} AND r.id = c.target
        WHERE c.target_type = {DIRECTORY} OR r.id IS NOT NULL {single} ORDER BY ALL
        """,
        FOUND_ROOTS,
    )
    connection.register("found_roots", roots)
    further = table_of(
        connection,
        f"""
        SELECT {_VISITED}, branch, rank, anchor, l.target, l.target_type
        FROM candidate_rows c JOIN releases l ON c.target_type = {RELEASE} AND l.id = c.target
        WHERE l.target IS NOT NULL AND l.target_type IS NOT NULL AND NOT {last} ORDER BY ALL
        """,
        CANDIDATES,
    )
    lost = table_of(
        connection,
        f"""
        SELECT {_VISITED}, CASE
            WHEN c.target_type = {REVISION} THEN 'missing_revision'
            WHEN c.target_type <> {RELEASE} THEN 'not_a_directory'
            WHEN l.id IS NULL THEN 'missing_release'
            WHEN l.target IS NULL OR l.target_type IS NULL THEN 'empty_release' ELSE 'release_chain' END AS reason
        FROM candidate_rows c LEFT JOIN revisions r ON c.target_type = {REVISION} AND r.id = c.target
        LEFT JOIN releases l ON c.target_type = {RELEASE} AND l.id = c.target
        WHERE c.target_type <> {DIRECTORY} AND r.id IS NULL
            AND (l.id IS NULL OR l.target IS NULL OR l.target_type IS NULL OR {last})
        UNION ALL SELECT {_VISITED}, 'same_revision' FROM candidate_rows c
        JOIN revisions r ON c.target_type = {REVISION} AND r.id = c.target
        ANTI JOIN found_roots f ON f.origin = c.origin AND f.branch = c.branch AND f.revision = c.target
        ORDER BY ALL
        """,
        LOST,
    )
    return roots, further, lost


def one_each(
    connection: Any, roots: pa.Table, lost: pa.Table, told: pa.Table, compat: bool = False
) -> tuple[pa.Table, pa.Table]:
    """Of all that was found for a visit the one that stands for it, the newest commit of several; and what is lost for good.

    `roots`: FOUND_ROOTS, `lost`: LOST of all steps, `told`: CHOSEN_TOLD, of the range of repositories at hand. Returns (ROOTS in order
    of root, LOST). A visit is lost if nothing of it was found. With `compat` all that was found stays, as often as something is told of it.
    """
    connection.register("roots", roots)
    connection.register("lost", lost)
    connection.register("told", told)
    first = (
        "QUALIFY row_number() OVER (PARTITION BY repository, origin "
        "ORDER BY rank, committer_date_seconds DESC NULLS LAST, branch, root) = 1"
    )
    facts = ", ".join(f"t.{field.name}" for field in TOLD)
    kept = table_of(
        connection,
        f"""
        SELECT r.*, {facts} FROM (SELECT * FROM roots {"" if compat else first}) r
        LEFT JOIN told t ON t.repository = r.repository AND t.origin = r.origin
        ORDER BY r.root, r.repository, r.origin, r.branch, r.anchor, {facts}
        """,
        ROOTS,
    )
    gone = table_of(
        connection,
        f"SELECT {_VISITED}, min(reason) AS reason FROM lost c "
        "ANTI JOIN roots r ON r.repository = c.repository AND r.origin = c.origin GROUP BY ALL ORDER BY ALL",
        LOST,
    )
    return kept, gone


def one_of_each_root(connection: Any, roots: pa.Table) -> tuple[pa.Table, pa.Table]:
    """With `compat`, of all repositories with one root directory the one that The Stack v2 kept: (ROOTS, LOST).

    `roots`: ROOTS of the range of roots at hand. Each root that a repository does not keep is lost as `same_directory`, be it that it
    keeps another.
    """
    connection.register("roots", roots)
    kept = table_of(
        connection,
        """
        SELECT * FROM roots
        QUALIFY row_number() OVER (
            PARTITION BY root ORDER BY gha_license_id ASC NULLS LAST, star_events_count DESC NULLS LAST,
            fork_events_count DESC NULLS LAST, date_seconds ASC NULLS FIRST, github_id ASC NULLS FIRST, date ASC NULLS FIRST,
            origin, branch) = 1
        ORDER BY root
        """,
        ROOTS,
    )
    connection.register("kept", kept)
    lost = table_of(
        connection,
        f"SELECT DISTINCT {_VISITED}, 'same_directory' AS reason FROM roots c "
        "ANTI JOIN kept k ON k.origin = c.origin AND k.root = c.root AND k.branch = c.branch ORDER BY ALL",
        LOST,
    )
    return kept, lost
