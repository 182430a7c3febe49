"""What a day's events tell of repositories, each once: the names they bore, their stars and forks, and what they were like.

Three shapes of events are read:

  since 2015              `repo` {id, name}; pull requests hold the whole object of their base and head, a fork that of the new one
  2011-02 to 2014-12      `repository` {id, owner, name, master_branch ...} of the "Timeline" API, in each event
  since 2025-10           as since 2015, but pull requests say no more than id and name: what is like that tells names only

Rules: a `WatchEvent` is a star, a `ForkEvent` a fork (Lozhkov et al. 2024, section 2.1; nobody tells when a star is taken back); an event
that a day's files hold twice counts once, by its id. The default branch is also told by every `CreateEvent`. Parsing is DuckDB's, whole
batches of lines at a time; a number, time or name that is none is null, a line that is no JSON is counted. A time without a zone is in UTC.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

# A name that a repository bore. `events`: its own; `first`, `last`: also of events that name it in passing (a fork, a pull request).
SEEN = pa.schema(
    [
        pa.field("github_id", pa.int64(), nullable=False),
        pa.field("name", pa.string(), nullable=False),  # owner/name, as it is written
        pa.field("first", pa.timestamp("us"), nullable=False),
        pa.field("last", pa.timestamp("us"), nullable=False),
        pa.field("events", pa.int64(), nullable=False),
        pa.field("stars", pa.int64(), nullable=False),
        pa.field("forks", pa.int64(), nullable=False),
    ]
)
# The newest of what was told of a repository, for each use.
PUBLISHED, WHOLE, BRANCH = range(
    3
)  # base or new fork, be it empty, as The Stack v2 took it; any whole object; any default branch
ABOUT = pa.schema(
    [
        pa.field("github_id", pa.int64(), nullable=False),
        pa.field("use", pa.int8(), nullable=False),
        pa.field("moment", pa.timestamp("us"), nullable=False),
        pa.field("full_name", pa.string()),
        pa.field("default_branch", pa.string()),
        pa.field("license_id", pa.string()),
        pa.field("language", pa.string()),
        pa.field("created_at", pa.timestamp("us")),
    ]
)
# Who was forked from whom: the first that was told.
FORKED = pa.schema(
    [
        pa.field("github_id", pa.int64(), nullable=False),  # of the fork
        pa.field("moment", pa.timestamp("us"), nullable=False),
        pa.field("parent_id", pa.int64(), nullable=False),
        pa.field("parent", pa.string(), nullable=False),  # as it was called then
    ]
)

_OBJECT = (
    '{"id":"VARCHAR","full_name":"VARCHAR","default_branch":"VARCHAR","master_branch":"VARCHAR","created_at":"VARCHAR",'
    '"language":"VARCHAR","license":{"spdx_id":"VARCHAR"}}'
)
_EVENT = (
    '{"id":"VARCHAR","type":"VARCHAR","created_at":"VARCHAR","repo":{"id":"VARCHAR","name":"VARCHAR"},'
    '"repository":{"id":"VARCHAR","owner":"VARCHAR","organization":"VARCHAR","name":"VARCHAR","url":"VARCHAR",'
    '"master_branch":"VARCHAR","language":"VARCHAR","created_at":"VARCHAR"},'
    f'"payload":{{"master_branch":"VARCHAR","forkee":{_OBJECT},'
    f'"pull_request":{{"base":{{"repo":{_OBJECT}}},"head":{{"repo":{_OBJECT}}}}}}}}}'
)
NAME = "[A-Za-z0-9_-]{1,100}/[A-Za-z0-9._-]{1,200}"


def _time(text: str) -> str:
    """A time as events have written them: 2015-01-01T15:00:00Z, 2012-03-10T22:55:05-08:00, 2011/02/12 00:00:00 -0800.

    Null before 1970 and beyond the nanoseconds that tables have.
    """
    slashes = r"'^(\d{4})/(\d\d)/(\d\d) (\d\d:\d\d:\d\d) ([+-]\d\d):?(\d\d)$', '\1-\2-\3 \4\5:\6'"
    plain = f"CASE WHEN contains({text}, '/') THEN regexp_replace({text}, {slashes}) ELSE {text} END"
    zoned = f"try_cast({plain} AS TIMESTAMPTZ)"
    return f"CASE WHEN {zoned} >= '1970-01-01T00:00:00Z' AND {zoned} < '2262-01-01T00:00:00Z' THEN make_timestamp(epoch_us({zoned})) END"


def _name(text: str) -> str:
    return f"CASE WHEN regexp_full_match({text}, '{NAME}') THEN {text} END"


def _id(text: str) -> str:
    # A cast alone takes "7.6" for 8 and "0x7" for 7.
    return f"CASE WHEN regexp_full_match({text}, '[1-9][0-9]{{0,18}}') THEN try_cast({text} AS BIGINT) END"


def _object(place: str, compat: bool) -> str:
    """The columns of one of the objects of an event, as a struct. The Stack v2 knew no `master_branch`, as of before 2013."""
    branch = f"{place}.default_branch"
    branch = branch if compat else f"nullif(coalesce({branch}, {place}.master_branch), '')"
    return (
        f"{{'github_id': {_id(place + '.id')}, 'full_name': {_name(place + '.full_name')}, "
        f"'default_branch': {branch}, "
        f"'license_id': {place}.license.spdx_id, 'language': {place}.language, 'created_at': {_time(place + '.created_at')}}}"
    )


def _old_name(old: str) -> str:
    """Of the Timeline API's repository: by its address; an organisation's may have a person for its owner."""
    by_address = _name(f"regexp_extract({old}.url, '^https?://github[.]com/([^/]+/[^/]+)$', 1)")
    by_owner = _name(f"coalesce({old}.organization, {old}.owner) || '/' || {old}.name")
    return f"coalesce({by_address}, {by_owner})"


def _parsed(compat: bool, readable: str) -> str:
    """The query that parses lines. The event's own repository is, with `compat`, only what events since 2015 tell."""
    own_id = _id("e.repo.id") if compat else f"coalesce({_id('e.repo.id')}, {_id('e.repository.id')})"
    own_name = _name("e.repo.name") if compat else f"coalesce({_name('e.repo.name')}, {_old_name('e.repository')})"
    return f"""
        CREATE OR REPLACE TEMP TABLE parsed AS
        SELECT number, CASE WHEN e.type IN ('PullRequestEvent', 'ForkEvent') THEN e.payload END AS payload,
            CASE WHEN e.repository.id IS NOT NULL THEN e.repository END AS old,
            e.type AS type, e.id AS event, {_time("e.created_at")} AS moment, {own_id} AS github_id, {own_name} AS name,
            CASE WHEN e.type = 'ForkEvent' THEN coalesce({_id("e.payload.forkee.id")},
                {_id("json_extract_string(line, '$.payload.forkee')")}) END AS fork,
            CASE WHEN e.type = 'CreateEvent' THEN nullif(e.payload.master_branch, '') END AS told_branch
        FROM (SELECT number, line, json_transform(line, '{_EVENT}') AS e FROM arriving WHERE {readable})"""


# As a condition of the query above it would have each line parsed twice.
_NO_EVENTS = "DELETE FROM parsed WHERE moment IS NULL OR type IS NULL"


def _objects(compat: bool) -> str:
    """The query for what events hold of repositories. `place`: 0 the base of a pull request and a new fork, 1 the head, 2 the
    Timeline API's.
    """
    base, head = (_object(f"payload.pull_request.{side}.repo", compat) for side in ("base", "head"))
    return f"""
    CREATE OR REPLACE TEMP TABLE objects AS
    SELECT moment, 0 AS place, unnest({base}) FROM parsed WHERE type = 'PullRequestEvent'
    UNION ALL SELECT moment, 0, unnest({_object("payload.forkee", compat)}) FROM parsed WHERE type = 'ForkEvent'
    UNION ALL SELECT moment, 1, unnest({head}) FROM parsed WHERE type = 'PullRequestEvent'
    UNION ALL SELECT moment, 2, {_id("old.id")}, {_old_name("old")}, nullif(old.master_branch, ''), NULL, old.language,
        {_time("old.created_at")} FROM parsed WHERE old.id IS NOT NULL"""


_TABLES = """
    CREATE OR REPLACE TEMP TABLE seen (github_id BIGINT, name VARCHAR, "first" TIMESTAMP, "last" TIMESTAMP, events BIGINT);
    CREATE OR REPLACE TEMP TABLE marks (event VARCHAR, github_id BIGINT, name VARCHAR, star BOOLEAN);
    CREATE OR REPLACE TEMP TABLE about (github_id BIGINT, use TINYINT, moment TIMESTAMP, full_name VARCHAR, default_branch VARCHAR,
        license_id VARCHAR, language VARCHAR, created_at TIMESTAMP);
    CREATE OR REPLACE TEMP TABLE forked (github_id BIGINT, moment TIMESTAMP, parent_id BIGINT, parent VARCHAR);
"""
_GATHER = (
    """
    INSERT INTO seen SELECT github_id, name, min(moment), max(moment), sum(own) FROM (
        SELECT github_id, name, moment, 1 AS own FROM parsed
        UNION ALL SELECT github_id, full_name, moment, 0 FROM objects WHERE place < 2)
    WHERE github_id IS NOT NULL AND name IS NOT NULL GROUP BY ALL""",
    """
    INSERT INTO marks SELECT DISTINCT {event}, github_id, name, type = 'WatchEvent' FROM parsed
    WHERE type IN ('WatchEvent', 'ForkEvent') AND github_id IS NOT NULL AND name IS NOT NULL""",
    f"""
    INSERT INTO about SELECT github_id, use, moment, full_name, default_branch, license_id, language, created_at FROM (
        SELECT *, {PUBLISHED} AS use FROM objects WHERE place = 0
        -- a whole object has a name and a default branch; the Timeline API did not always tell that
        UNION ALL SELECT *, {WHOLE} FROM objects
            WHERE full_name IS NOT NULL AND (default_branch IS NOT NULL OR place = 2)
        UNION ALL SELECT moment, 3, github_id, name, told_branch, NULL, NULL, NULL, {BRANCH} FROM parsed WHERE told_branch IS NOT NULL
        UNION ALL SELECT *, {BRANCH} FROM objects WHERE default_branch IS NOT NULL)
    WHERE github_id IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY github_id, use ORDER BY moment DESC, {{order}}) = 1""",
    """
    INSERT INTO forked SELECT fork, moment, github_id, name FROM parsed
    WHERE fork IS NOT NULL AND github_id IS NOT NULL AND name IS NOT NULL AND fork <> github_id
    QUALIFY row_number() OVER (PARTITION BY fork ORDER BY moment, github_id, name) = 1""",
)
# Of what was told at one time the same is taken, whatever the order in which it came.
NEWEST = "full_name, default_branch, license_id, language, created_at"


def gather(connection: Any, batches: Iterator[pa.StringArray], left_out: Counter[str], compat: bool = False) -> int:
    """Read lines into the connection's tables `seen`, `marks`, `about`, `forked`; returns the number of lines.

    `compat`: as The Stack v2 read them: only events since 2015, and each line counts.

    Counts in `left_out` lines that are no JSON (`not_json`) and events without a time or type (`not_an_event`), without a
    repository's number or name (`no_repository`).
    """
    connection.execute("SET TimeZone = 'UTC'")  # else the machine's is taken where a time has none
    connection.execute(_TABLES)
    event = "number::VARCHAR" if compat else "coalesce(event, '-' || number)"
    read = 0
    for texts in batches:
        numbers = pa.array(np.arange(read, read + len(texts)))
        read += len(texts)
        connection.register("arriving", pa.table({"number": numbers, "line": texts}))
        _parse(connection, left_out, compat)
        connection.unregister("arriving")
        (without,) = connection.execute(_NO_EVENTS).fetchall()
        left_out["not_an_event"] += int(without[0])
        connection.execute(_objects(compat))
        for query in _GATHER:
            connection.execute(query.format(order=NEWEST, event=event))
        ((nameless,),) = connection.execute(
            "SELECT count(*) FROM parsed WHERE github_id IS NULL OR name IS NULL"
        ).fetchall()
        left_out["no_repository"] += nameless
    return read


def _parse(connection: Any, left_out: Counter[str], compat: bool) -> None:
    """Parse the lines at hand; lines that are no JSON are looked for only where there are some."""
    import duckdb

    try:
        connection.execute(_parsed(compat, "true"))
    except duckdb.InvalidInputException:
        ((broken,),) = connection.execute("SELECT count(*) FROM arriving WHERE NOT json_valid(line)").fetchall()
        left_out["not_json"] += broken
        connection.execute(_parsed(compat, "json_valid(line)"))


# The rows of a day, of SEEN, ABOUT and FORKED, by their partition: `github_id` modulo `partitions`, a power of two.
_SEEN = """
    SELECT s.github_id, s.name, s."first", s."last", s.events, coalesce(m.stars, 0) AS stars, coalesce(m.forks, 0) AS forks
    FROM (SELECT github_id, name, min("first") AS "first", max("last") AS "last", sum(events) AS events FROM seen GROUP BY ALL) s
    LEFT JOIN (SELECT github_id, name, count(*) FILTER (star) AS stars, count(*) FILTER (NOT star) AS forks
        FROM (SELECT DISTINCT * FROM marks) GROUP BY ALL) m USING (github_id, name)"""
_ABOUT = f"""
    SELECT * FROM about QUALIFY row_number() OVER (PARTITION BY github_id, use ORDER BY moment DESC, {NEWEST}) = 1"""
_FORKED = """
    SELECT * FROM forked QUALIFY row_number() OVER (PARTITION BY github_id ORDER BY moment, parent_id, parent) = 1"""
GATHERED = {"seen": (_SEEN, SEEN), "about": (_ABOUT, ABOUT), "forked": (_FORKED, FORKED)}
