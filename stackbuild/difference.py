"""Two builds compared: which files the second gained and lost, and by which rule."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stackbuild.errors import InputError
from stackbuild.status import described

if TYPE_CHECKING:
    import duckdb

KEY = ("repo_name", "revision_id", "path", "content_id")


def difference(first: Path, second: Path) -> dict[str, Any]:
    """Files that a second build gained and lost, by identity, with the rule by which a lost file left there."""
    import duckdb

    key = ", ".join(KEY)
    with duckdb.connect() as connection:
        for name, out in (("a", first), ("b", second)):
            if not (out / "dataset").exists():
                described(out)  # which says so if this is no build at all
                raise InputError(f"{out} has no dataset yet; run its build to the end.")
            files = dict.fromkeys((*KEY, "language"), "VARCHAR")
            view(connection, name, out / "dataset" / "data", files, f"{key}, language")
            left = {**dict.fromkeys((*KEY[:3], "stage", "rule"), "VARCHAR"), "content_id": "BLOB"}
            columns = f"{', '.join(KEY[:3])}, lower(hex(content_id)) content_id, stage, rule"
            view(connection, f"{name}_left", out / "decisions", left, columns)

        def only_in(here: str, there: str) -> list[dict[str, Any]]:
            rows = connection.execute(
                f"WITH one_sided AS (SELECT * FROM {here} ANTI JOIN {there} USING ({key})) "
                f"SELECT repo_name, path, content_id, language, min(stage), min(rule) "
                f"FROM one_sided LEFT JOIN {there}_left USING ({key}) GROUP BY ALL ORDER BY ALL"
            ).fetchall()
            names = ("repo_name", "path", "content_id", "language", "stage", "rule")
            return [dict(zip(names, row, strict=True)) for row in rows]

        lost, new = only_in("a", "b"), only_in("b", "a")
        both = connection.execute(f"SELECT count(*) FROM a SEMI JOIN b USING ({key})").fetchone()
    return {"lost": lost, "gained": new, "both": both[0] if both else 0}


def view(
    connection: duckdb.DuckDBPyConnection, name: str, folder: Path, columns: dict[str, str], selected: str
) -> None:
    """A view over the Parquet files below a folder; an empty table of the columns (name: SQL type) if there are none."""
    paths = [str(path) for path in sorted(folder.rglob("*.parquet"))]
    if paths:
        connection.execute(f"CREATE VIEW {name} AS SELECT {selected} FROM read_parquet({quoted(paths)})")
        return
    connection.execute(
        f"CREATE TABLE {name}_empty ({', '.join(f'{column} {kind}' for column, kind in columns.items())})"
    )
    connection.execute(f"CREATE VIEW {name} AS SELECT {selected} FROM {name}_empty")


def quoted(paths: list[str]) -> str:
    """A SQL list of file names."""
    return "[" + ", ".join("'" + path.replace("'", "''") + "'" for path in paths) + "]"
