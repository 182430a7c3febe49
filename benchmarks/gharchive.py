"""Reading GH Archive: events per CPU-second, from gzip lines to stars, forks, names and whole objects by repository.

The hour is generated: six kinds of events in the shares and about the sizes of real ones, repositories with a long tail. Peers do the same
sums: Python's `json` line by line, and DuckDB's reader of JSON with a schema, as The Stack v2's Spark job had it.

    python -m benchmarks.gharchive --events 100
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.measure import Comparison, options

KINDS = {
    "PushEvent": 55,
    "CreateEvent": 14,
    "IssueCommentEvent": 12,
    "PullRequestEvent": 10,
    "WatchEvent": 7,
    "ForkEvent": 2,
}
LINKS = ("forks", "keys", "collaborators", "teams", "hooks", "issue_events", "events", "assignees", "branches", "tags", "blobs",
         "git_tags", "git_refs", "trees", "statuses", "languages", "stargazers", "contributors", "subscribers", "subscription",
         "commits", "git_commits", "comments", "contents", "compare", "merges", "archive", "downloads", "issues", "pulls")  # fmt: skip


def main() -> None:
    """Generate, run in turns, print."""
    parser = options(__doc__ or "")
    parser.add_argument("--events", type=float, default=100, help="thousands of events")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        count = int(arguments.events * 1_000)
        path = Path(folder, "2022-01-02-3.json.gz")
        size = generate(path, count)
        bench = Comparison(
            "events of GH Archive", "events per CPU-second", 20_000, count,
            {"events": count, "json_bytes": size, "gz_bytes": path.stat().st_size}, ("duckdb", "pyarrow"),
            absolute=True, shown=("stars", "names", "objects"), parts=("inflating alone",),
        )  # fmt: skip
        given = {"path": str(path)}
        ways = {"ours": "ours", "json": "by_json", "duckdb": "by_duckdb", "inflating alone": "inflating"}
        bench.take_turns({way: (f"benchmarks.gharchive:{name}", given) for way, name in ways.items()}, arguments.rounds)
        bench.show(arguments.json)


def generate(path: Path, count: int) -> int:
    """Write the hour; the bytes of its lines."""
    draw = random.Random(7)
    size = 0
    with gzip.open(path, "wb", compresslevel=6) as file:
        for number in range(count):
            line = json.dumps(_event(draw, number), separators=(",", ":")).encode() + b"\n"
            size += file.write(line)
    return size


def _words(draw: random.Random, count: int) -> str:
    return " ".join(
        draw.choices(("fix", "the", "parser", "of", "when", "list", "is", "empty", "and", "add", "a", "test"), k=count)
    )


def _repository(number: int) -> dict[str, Any]:
    name = f"owner{number % 50_000}/repository-{number}"
    links = {f"{link}_url": f"https://api.github.com/repos/{name}/{link}" for link in LINKS}
    return {
        "id": number, "name": name.split("/")[1], "full_name": name, "owner": {"login": "owner", "id": number}, **links,
        "fork": False, "created_at": "2020-01-02T03:04:05Z", "pushed_at": "2022-01-02T03:00:00Z", "language": "Python",
        "license": {"key": "mit", "spdx_id": "MIT"}, "default_branch": "main",
    }  # fmt: skip


def _event(draw: random.Random, number: int) -> dict[str, Any]:
    kind = draw.choices(list(KINDS), list(KINDS.values()))[0]
    repository = int(draw.paretovariate(0.6)) % 50_000_000 + 1
    sha = draw.randbytes(20).hex()
    payload: dict[str, Any] = {
        "PushEvent": lambda: {
            "ref": "refs/heads/main",
            "head": sha,
            "commits": [{"sha": sha, "message": _words(draw, 12)}] * 2,
        },
        "CreateEvent": lambda: {
            "ref": "x",
            "ref_type": "branch",
            "master_branch": "main",
            "description": _words(draw, 9),
        },
        "WatchEvent": lambda: {"action": "started"},
        "ForkEvent": lambda: {"forkee": _repository(repository + 50_000_000)},
        "IssueCommentEvent": lambda: {"issue": {"body": _words(draw, 300)}, "comment": {"body": _words(draw, 100)}},
        "PullRequestEvent": lambda: {
            "pull_request": {
                "body": _words(draw, 100),
                "head": {"repo": _repository(repository + 60_000_000)},
                "base": {"repo": _repository(repository)},
            }
        },
    }[kind]()
    name = f"owner{repository % 50_000}/repository-{repository}"
    return {
        "id": str(20_000_000_000 + number), "type": kind, "actor": {"id": number, "login": "somebody"},
        "repo": {"id": repository, "name": name, "url": f"https://api.github.com/repos/{name}"}, "payload": payload, "public": True,
        "created_at": f"2022-01-02T03:{number * 60 // 10_000_000 % 60:02d}:{number % 60:02d}Z",
    }  # fmt: skip


def ours(path: str) -> Callable[[], dict[str, Any]]:
    """What the phase `events` does, without its files."""
    import duckdb  # noqa: F401

    from stackbuild.sources.gharchive.events import GATHERED, gather
    from stackbuild.sources.gharchive.hours import HourFile, lines
    from stackbuild.sources.swh.session import rows_of, session

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as scratch, session(Path(scratch)) as connection:
            gather(connection, lines(HourFile("x", path, Path(path).stat().st_size), Counter()), Counter())
            tables = {name: list(rows_of(connection, query, schema)) for name, (query, schema) in GATHERED.items()}
        stars = sum(sum(batch["stars"].to_pylist()) for batch in tables["seen"])
        objects = sum(batch["use"].to_pylist().count(1) for batch in tables["about"])
        return {"stars": stars, "names": sum(batch.num_rows for batch in tables["seen"]), "objects": objects}

    return work


def _told(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    payload = event["payload"]
    if event["type"] == "ForkEvent":
        yield payload["forkee"]
    if event["type"] == "PullRequestEvent":
        yield payload["pull_request"]["base"]["repo"]
        yield payload["pull_request"]["head"]["repo"]


def by_json(path: str) -> Callable[[], dict[str, Any]]:
    """Python's `json`, line by line, into dictionaries."""

    def work() -> dict[str, Any]:
        names: dict[tuple[int, str], list[str]] = {}
        stars: set[tuple[str, int]] = set()
        newest: dict[int, tuple[str, dict[str, Any]]] = {}
        with gzip.open(path, "rb") as file:
            for line in file:
                event = json.loads(line)
                at, objects = event["created_at"], list(_told(event))
                for number, name in (
                    (event["repo"]["id"], event["repo"]["name"]),
                    *((o["id"], o["full_name"]) for o in objects),
                ):
                    seen = names.setdefault((number, name), [at, at])
                    seen[0], seen[1] = min(seen[0], at), max(seen[1], at)
                if event["type"] == "WatchEvent":
                    stars.add((event["id"], event["repo"]["id"]))
                for told in objects:
                    if told["id"] not in newest or newest[told["id"]][0] < at:
                        newest[told["id"]] = (
                            at,
                            {key: told[key] for key in ("full_name", "default_branch", "language", "license")},
                        )
        return {"stars": len(stars), "names": len(names), "objects": len(newest)}

    return work


def by_duckdb(path: str) -> Callable[[], dict[str, Any]]:
    """DuckDB's own reader with a schema."""
    import duckdb

    told = "STRUCT(id BIGINT, full_name VARCHAR, default_branch VARCHAR, language VARCHAR, license STRUCT(spdx_id VARCHAR))"
    columns = (
        "{id: 'VARCHAR', type: 'VARCHAR', created_at: 'TIMESTAMP', repo: 'STRUCT(id BIGINT, name VARCHAR)', "
        f"payload: 'STRUCT(forkee {told}, pull_request STRUCT(base STRUCT(repo {told}), head STRUCT(repo {told})))'}}"
    )

    def work() -> dict[str, Any]:
        with duckdb.connect() as connection:
            connection.execute("SET threads = 1")
            connection.execute(
                f"CREATE TABLE e AS FROM read_json('{path}', format = 'newline_delimited', columns = {columns}, ignore_errors = true)"
            )
            connection.execute(
                "CREATE TABLE o AS SELECT created_at, unnest(payload.forkee) FROM e WHERE type = 'ForkEvent' UNION ALL "
                "SELECT created_at, unnest(payload.pull_request.base.repo) FROM e WHERE type = 'PullRequestEvent' UNION ALL "
                "SELECT created_at, unnest(payload.pull_request.head.repo) FROM e WHERE type = 'PullRequestEvent'"
            )
            queries = {
                "stars": "SELECT count(*) FROM (SELECT DISTINCT id, repo.id FROM e WHERE type = 'WatchEvent')",
                "names": "SELECT count(*) FROM (SELECT i, n, min(t), max(t) FROM (SELECT repo.id AS i, repo.name AS n, created_at AS t "
                "FROM e UNION ALL SELECT id, full_name, created_at FROM o) GROUP BY i, n)",
                "objects": "SELECT count(*) FROM (FROM o QUALIFY row_number() OVER (PARTITION BY id ORDER BY created_at DESC) = 1)",
            }
            return {name: connection.execute(query).fetchall()[0][0] for name, query in queries.items()}

    return work


def inflating(path: str) -> Callable[[], dict[str, Any]]:
    """What inflating takes by itself."""

    def work() -> dict[str, Any]:
        with gzip.open(path, "rb") as file:
            while file.read(1 << 20):
                pass
        return {}

    return work


if __name__ == "__main__":
    main()
