"""What all days together tell of a repository, by its number at GitHub; and which repository a visit was of, by name and time.

A repository keeps its number when it is renamed, and a name may come to another repository later. FACTS has a row for each name that a
number bore. Of several numbers that bore a visit's name the one is meant that had it by then, the last of them.

With `compat` it is as The Stack v2 did it (bigcode-project/the-stack-v2, merge_gha_swh.py): stars and forks for each name by itself,
what the newest event says, be it empty, only under the name that it says, and every number that ever bore the name. All names and
the parent are told too, as who asked to be left out is heard by any of them; nothing is chosen by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from stackbuild.origins import GITHUB
from stackbuild.sources.gharchive.events import ABOUT, BRANCH, FORKED, NEWEST, PUBLISHED, SEEN, WHOLE
from stackbuild.sources.swh.session import rows_of, stream, table_of

TIME = pa.timestamp("us")
# What is told of one repository; as schema.ORIGIN_FIELDS has it.
TOLD = (
    pa.field("github_id", pa.int64()),
    pa.field("star_events_count", pa.int64()),
    pa.field("fork_events_count", pa.int64()),
    pa.field("gha_license_id", pa.string()),
    pa.field("gha_event_created_at", TIME),
    pa.field("gha_created_at", TIME),
    pa.field("gha_language", pa.string()),
    pa.field("names", pa.string()),  # all that it bore, the oldest first, with a space between two
    pa.field("forked_from", pa.string()),
)
FACTS = pa.schema(
    [
        pa.field("repository", pa.string(), nullable=False),  # the name, as visits of it are known by
        pa.field("since", TIME, nullable=False),
        pa.field("until", TIME, nullable=False),
        pa.field("default_branch", pa.string()),
        *TOLD,
    ]
)
BUCKETED = pa.schema([pa.field("bucket", pa.uint16(), nullable=False), *FACTS])


def facts(
    connection: Any, tables: Mapping[str, Iterator[pa.RecordBatch]], partitions: int, compat: bool = False
) -> Iterator[pa.RecordBatch]:
    """What is told of a partition of numbers, from rows of SEEN, ABOUT and FORKED of all days: `bucket`, the partition of the name
    (as `visits.buckets` has it), and FACTS, in order.

    `repository` is `github.com/owner/name` in lower case, with `compat` as it is written.
    """
    for name, schema in (("seen", SEEN), ("about", ABOUT), ("forked", FORKED)):
        connection.register("arriving", stream(tables[name], schema))
        connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM arriving")
        connection.unregister("arriving")
    bucket = f"(('0x' || sha1(repository)[:4])::UINTEGER * {partitions} >> 16)::USMALLINT AS bucket"
    query = f"SELECT {bucket}, * FROM ({_COMPAT if compat else _FACTS}) ORDER BY ALL"
    return rows_of(connection, query, BUCKETED)


_NAMES = """
    SELECT github_id, lower(name) AS folded, max_by(name, ("last", "first", name)) AS name, min("first") AS "first", max("last") AS "last"
    FROM seen GROUP BY ALL"""
_EVERY = f"""
    names AS ({_NAMES}),
    every AS (SELECT github_id, string_agg(name, ' ' ORDER BY "last", "first", name) AS names, count(*) AS n FROM names GROUP BY ALL),
    parents AS (SELECT * FROM forked QUALIFY row_number() OVER (PARTITION BY github_id ORDER BY moment, parent_id, parent) = 1)"""
_FACTS = f"""
    WITH {_EVERY},
    counted AS (SELECT github_id, sum(stars) AS stars, sum(forks) AS forks FROM seen GROUP BY ALL),
    newest AS (
        SELECT * FROM about WHERE use <> {PUBLISHED}
        QUALIFY row_number() OVER (PARTITION BY github_id, use ORDER BY moment DESC, {NEWEST}) = 1)
    SELECT '{GITHUB}/' || n.folded AS repository,
        CASE WHEN e.n = 1 THEN least(n."first", w.created_at) ELSE n."first" END AS since, n."last" AS until,
        b.default_branch, n.github_id, c.stars::BIGINT AS star_events_count, c.forks::BIGINT AS fork_events_count,
        w.license_id AS gha_license_id, w.moment AS gha_event_created_at, w.created_at AS gha_created_at, w.language AS gha_language,
        e.names, p.parent AS forked_from
    FROM names n JOIN counted c USING (github_id) JOIN every e USING (github_id)
    LEFT JOIN newest w ON w.github_id = n.github_id AND w.use = {WHOLE}
    LEFT JOIN newest b ON b.github_id = n.github_id AND b.use = {BRANCH}
    LEFT JOIN parents p ON p.github_id = n.github_id"""
_COMPAT = f"""
    WITH {_EVERY},
    written AS (
        SELECT github_id, name, min("first") AS "first", max("last") AS "last", sum(stars) AS stars, sum(forks) AS forks
        FROM seen GROUP BY ALL HAVING sum(events) > 0),
    newest AS (
        SELECT * FROM about WHERE use = {PUBLISHED} QUALIFY row_number() OVER (PARTITION BY github_id ORDER BY moment DESC, {NEWEST}) = 1)
    SELECT '{GITHUB}/' || n.name AS repository, n."first" AS since, n."last" AS until, w.default_branch, n.github_id,
        n.stars::BIGINT AS star_events_count, n.forks::BIGINT AS fork_events_count, w.license_id AS gha_license_id,
        w.moment AS gha_event_created_at, w.created_at AS gha_created_at, w.language AS gha_language,
        e.names, p.parent AS forked_from
    FROM written n JOIN every e USING (github_id)
    LEFT JOIN newest w ON w.github_id = n.github_id AND w.full_name = n.name
    LEFT JOIN parents p ON p.github_id = n.github_id"""


def told_of_visits(
    connection: Any, visits: pa.Table, known: Iterator[pa.RecordBatch], compat: bool = False
) -> pa.Table:
    """The visits, each with what is told of its repository: columns of `visits`, `default_branch` and TOLD.

    `visits`: rows with `repository`, `origin`, `date`, of one partition of names, each repository once. `known`: FACTS of that
    partition. A repository of several names is known by its number: `repository` is `github.com#<number>`. With `compat` the
    names stay, and a visit has as many rows as numbers bore the name.
    """
    connection.register("visits", visits)
    connection.register("arriving", stream(known, FACTS))
    key = _COMPAT_KEY if compat else "repository"
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE facts AS SELECT * FROM arriving SEMI JOIN (SELECT DISTINCT {key} AS repository FROM visits) "
        "USING (repository)"
    )
    connection.unregister("arriving")
    there = "f.since <= v.date"
    one = (
        f"QUALIFY row_number() OVER (PARTITION BY v.repository ORDER BY {there} DESC NULLS LAST, "
        f"CASE WHEN {there} THEN f.until END DESC NULLS LAST, f.since, f.github_id) = 1"
    )
    repository = "v.repository" if compat else f"coalesce('{GITHUB}#' || f.github_id, v.repository)"
    schema = pa.schema([*visits.schema, FACTS.field("default_branch"), *TOLD])
    plain = ", ".join(f'v."{name}"' for name in visits.schema.names if name != "repository")
    told = ", ".join(f"f.{field.name}" for field in TOLD if not field.name.endswith("_events_count"))
    return table_of(
        connection,
        f"""
        SELECT {repository} AS repository, {plain}, f.default_branch, {told},
            {_counted("star_events_count")}, {_counted("fork_events_count")}
        FROM visits v LEFT JOIN facts f ON f.repository = {key.replace("origin", "v.origin").replace("repository", "v.repository")}
        {"" if compat else one} ORDER BY ALL
        """,
        schema,
    )


_COMPAT_KEY = f"'{GITHUB}/' || regexp_extract(origin, 'https://github[.]com/([^/]+/[^/]+)', 1)"


def _counted(name: str) -> str:
    """No event was recorded of a repository of GitHub: none."""
    return f"coalesce(f.{name}, CASE WHEN regexp_matches(v.origin, '^[a-z]+://(www[.])?github[.]com/') THEN 0 END) AS {name}"
