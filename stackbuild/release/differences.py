"""Two manifests compared: rows gained, lost, of another content at the same place, of another text, and moved.

The place of a row is its repository and path; its revision may be another. A row that stands twice counts twice. Rows that
fit in no other way are paired by their content: these moved. DuckDB joins and spills, so that memory stays flat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from stackbuild.release.manifest import PLACE, Manifest, read_manifest
from stackbuild.release.passes import WIDE_ROWS, ordered, passes, streams
from stackbuild.tables import TableWriter, conform

if TYPE_CHECKING:
    import duckdb

STATES = ("gained", "lost", "changed", "rewritten", "moved", "same")
COMPARED = pa.schema(
    [
        ("repo_name", pa.string()),
        ("revision_id", pa.string()),
        ("path_bytes", pa.binary()),
        ("swhid", pa.string()),
        ("language", pa.string()),
        ("text_sha256", pa.string()),
        *PLACE,
    ]
)
SIDES = ("a", "b")
ROWS = pa.schema(
    [
        ("state", pa.string()),
        *(
            (f"{name}_{side}", COMPARED.field(name).type)
            for side in SIDES
            for name in ("repo_name", "revision_id", "path_bytes", "swhid", "language")
        ),
    ]
)


@dataclass
class Differences:
    """Rows by state; by language and state; and of the repositories with the most differences, by state. `repositories`: of
    how many anything differs."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATES, 0))
    languages: dict[str, dict[str, int]] = field(default_factory=dict)
    most: dict[str, dict[str, int]] = field(default_factory=dict)
    repositories: int = 0


def differences(first: Path, second: Path, rows: Path | None = None, most: int = 20) -> Differences:
    """Compare the manifests in two folders. `rows`: where to write a row for each difference. `most`: repositories named."""
    found = Differences()
    with passes() as connection:
        for side, folder in zip(SIDES, (first, second), strict=True):
            load(connection, side, read_manifest(folder))
        pair(connection, found)
        for kind, column in (("languages", "language"), ("most", "repo_name")):
            for name, state, count in counted(connection, column, most if kind == "most" else None):
                getattr(found, kind).setdefault(name, {})[state] = count
        found.repositories = one(connection, "SELECT count(DISTINCT coalesce(repo_name_b, repo_name_a)) FROM pairs")
        if rows is not None:
            write(connection, rows)
    return found


def load(connection: duckdb.DuckDBPyConnection, side: str, manifest: Manifest) -> None:
    """Make a table of a manifest's rows; a connection spills what does not fit."""
    names = ", ".join(name for name in COMPARED.names if name not in PLACE.names)
    with streams(connection, {"stream": (COMPARED, lambda: manifest.rows(COMPARED))}):
        place = f"file::BIGINT * {WIDE_ROWS} + row"
        connection.execute(f"CREATE TABLE {side} AS SELECT {names}, {place} AS id FROM stream")


def pair(connection: duckdb.DuckDBPyConnection, found: Differences) -> None:
    """Make the table `pairs`: what differs, a row of each side or of one."""
    sides = ", ".join(f"{side}.{name} AS {name}_{side}" for side in SIDES for name in COMPARED.names[:6])
    connection.execute(f"CREATE TABLE pairs AS SELECT '' AS state, {sides} FROM a, b WHERE false")
    for keys, state in (
        ("repo_name, path_bytes, swhid", "CASE WHEN a.text_sha256 = b.text_sha256 THEN 'same' ELSE 'rewritten' END"),
        ("repo_name, path_bytes", "'changed'"),
        ("swhid", "'moved'"),
    ):
        # The k-th of a side with the k-th of the other, so that what stands twice is not lost in a join.
        for side in SIDES:
            connection.execute(
                f"CREATE OR REPLACE TABLE k{side} AS SELECT *, row_number() OVER "
                f"(PARTITION BY {keys} ORDER BY revision_id, repo_name, path_bytes, swhid, text_sha256, id) AS k FROM {side}"
            )
        on = " AND ".join(f"a.{key} = b.{key}" for key in (*keys.split(", "), "k"))
        connection.execute(
            f"CREATE OR REPLACE TABLE joined AS SELECT {state} AS state, a.id AS id_a, b.id AS id_b, {sides} "
            f"FROM ka AS a JOIN kb AS b ON {on}"
        )
        found.counts["same"] += one(connection, "SELECT count(*) FROM joined WHERE state = 'same'")
        connection.execute("INSERT INTO pairs SELECT * EXCLUDE (id_a, id_b) FROM joined WHERE state <> 'same'")
        for side in SIDES:
            connection.execute(
                f"CREATE OR REPLACE TABLE {side} AS SELECT * FROM {side} ANTI JOIN joined ON {side}.id = joined.id_{side}"
            )
    for side, state in zip(SIDES, ("lost", "gained"), strict=True):
        names = ", ".join(f"{name} AS {name}_{side}" for name in COMPARED.names[:6])
        connection.execute(f"INSERT INTO pairs BY NAME SELECT '{state}' AS state, {names} FROM {side}")
    for state, count in connection.execute("SELECT state, count(*) FROM pairs GROUP BY state").fetchall():
        found.counts[state] = count


def one(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    [[number]] = connection.execute(query).fetchall()
    return int(number)


def counted(connection: duckdb.DuckDBPyConnection, column: str, most: int | None) -> Iterator[tuple[str, str, int]]:
    """(value, state, rows) of the differences, where a row of b tells the value if there is one; `most`: only of as many values."""
    name = f"coalesce({column}_b, {column}_a, 'Unknown')"
    limit = f"LIMIT {most}" if most is not None else ""
    query = (
        f"WITH top AS (SELECT {name} AS name, count(*) AS n FROM pairs GROUP BY ALL ORDER BY n DESC, name {limit}) "
        f"SELECT top.name, state, count(*) FROM pairs JOIN top ON {name} = top.name "
        "GROUP BY top.name, top.n, state ORDER BY top.n DESC, top.name, state"
    )
    yield from connection.execute(query).fetchall()


def write(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """Write the table of differences, by state and place; nothing is left of it if it cannot be written whole."""
    names = ", ".join(ROWS.names)
    query = f"SELECT {names} FROM pairs ORDER BY state, coalesce(repo_name_b, repo_name_a), " + ", ".join(
        f"{name} NULLS FIRST" for name in ROWS.names[1:]
    )
    fresh = path.with_name(f".{path.name}.partial")
    try:
        with TableWriter(fresh, ROWS, compression_level=3) as writer:
            for batch in ordered(connection, {}, query):
                writer.write(conform(batch, ROWS))
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
