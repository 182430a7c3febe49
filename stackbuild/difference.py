"""Two builds compared: which files the second gained and lost, and by which rule."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa

from stackbuild import memory
from stackbuild.errors import InputError
from stackbuild.status import described

KEY = ("repo_name", "revision_id", "path", "content_id")
FILES = pa.schema([(name, pa.string()) for name in (*KEY, "language")])
LEFT = pa.schema([*((name, pa.string()) for name in (*KEY[:3], "stage", "rule")), ("content_id", pa.binary(20))])


def difference(first: Path, second: Path) -> dict[str, Any]:
    """Files that a second build gained and lost, by identity, with the rule by which a lost file left there.

    Returns `lost` and `gained`, lists of files in order of their names, and `both`, the number of files that are in both.
    """
    import duckdb

    key = ", ".join(KEY)
    # What does not fit in half of the memory is spilled to a folder of its own, not to `.tmp` wherever the user stands.
    with tempfile.TemporaryDirectory(prefix="stackbuild-diff-") as spill, duckdb.connect() as connection:
        connection.execute("SET temp_directory = $folder", {"folder": spill})
        connection.execute(f"SET memory_limit = '{memory.limit() // 2 // 2**20}MiB'")
        for name, out in (("a", first), ("b", second)):
            described(out)
            if not (out / "dataset").is_dir():
                raise InputError(f"{out} has no dataset yet; run its build to the end.")
            # registered, not named in SQL: a "*" or "[" in a folder's name would be taken for a pattern
            connection.register(name, files_below(out / "dataset" / "data", FILES))
            connection.register(f"{name}_decisions", files_below(out / "decisions", LEFT))
            connection.execute(
                f"CREATE VIEW {name}_left AS SELECT * REPLACE (lower(hex(content_id)) AS content_id) FROM {name}_decisions"
            )

        def only_in(here: str, there: str) -> list[dict[str, Any]]:
            rows = connection.execute(
                f"WITH one_sided AS (SELECT * FROM {here} ANTI JOIN {there} USING ({key})) "
                f"SELECT repo_name, path, content_id, language, min(stage), min(rule) "
                f"FROM one_sided LEFT JOIN {there}_left USING ({key}) GROUP BY ALL ORDER BY ALL"
            ).fetchall()
            names = ("repo_name", "path", "content_id", "language", "stage", "rule")
            return [dict(zip(names, row, strict=True)) for row in rows]

        try:
            lost, new = only_in("a", "b"), only_in("b", "a")
            both = connection.execute(f"SELECT count(*) FROM a SEMI JOIN b USING ({key})").fetchone()
        except (duckdb.Error, pa.ArrowException, OSError) as error:
            raise InputError(f"{first} and {second} cannot be compared: {error}") from error
    return {"lost": lost, "gained": new, "both": both[0] if both else 0}


def files_below(folder: Path, schema: pa.Schema) -> Any:
    """The columns of a schema of the Parquet files below a folder, to be read when asked for; a table without rows if
    there are none. InputError if a file has no whole footer or lacks a column."""
    from pyarrow import dataset, fs, parquet

    paths = sorted(folder.rglob("*.parquet"))
    for path in paths:
        try:
            missing = set(schema.names) - set(parquet.read_schema(path).names)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} cannot be read ({str(error).splitlines()[0]}); build it again.") from error
        if missing:
            raise InputError(f"{path} has no column {min(missing)}: it is not of a dataset of stackbuild.")
    if not paths:
        return schema.empty_table()
    return dataset.dataset([str(path) for path in paths], schema, "parquet", fs.LocalFileSystem())
