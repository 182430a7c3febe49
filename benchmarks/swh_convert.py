"""Converting a Software Heritage export: rows of `directory_entry` per CPU-second, from ORC to sorted Parquet.

The file is generated: directories of random ids in no order, their entries sorted by name, names that other directories have too,
ZSTD, one stripe of 64 MB after the other, as exports have them. Peers make the same table by DuckDB (unhex, ORDER BY, COPY) from
Arrow's ORC reader, and by pyarrow's own sort.

    python -m benchmarks.swh_convert --rows 4 --memory 256
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import orc

from benchmarks.measure import Comparison, options

DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
ENTRIES_OF_A_DIRECTORY = 9  # on average
STEP = 500_000  # rows that are made at a time


def main() -> None:
    """Generate, run in turns, print."""
    parser = options(__doc__ or "")
    parser.add_argument("--rows", type=float, default=4, help="millions of entries")
    parser.add_argument("--memory", type=int, default=256, help="MB that ours may gather")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = int(arguments.rows * 1_000_000)
        path = Path(folder, "export", "orc", "directory_entry", "directory_entry-1.orc")
        size = generate(path, rows)
        bench = Comparison(
            "entries, ORC to sorted Parquet", "rows per CPU-second", 330_000, rows,
            {"rows": rows, "orc_bytes": size, "memory_mb": arguments.memory}, ("pyarrow", "duckdb", "numba", "numpy"),
            absolute=True, shown=("parquet_mb", "runs", "rows"), parts=("decoding alone",),
        )  # fmt: skip
        given = {"path": str(path)}
        bench.take_turns(
            {
                "ours": ("benchmarks.swh_convert:ours", given | {"memory_mb": arguments.memory}),
                "duckdb": ("benchmarks.swh_convert:by_duckdb", given | {"memory_mb": 4 * arguments.memory}),
                "pyarrow": ("benchmarks.swh_convert:by_pyarrow", given),
                "decoding alone": ("benchmarks.swh_convert:decoding", given),
            },
            arguments.rounds,
        )
        bench.show(arguments.json)


def generate(path: Path, rows: int) -> int:
    """Write the file; its bytes."""
    path.parent.mkdir(parents=True)
    draw = np.random.default_rng(7)
    names = pa.array(
        sorted({hashlib.sha1(b"%d" % i).hexdigest()[: 3 + i % 14].encode() + b".py" for i in range(200_000)})
    )
    kinds, modes = pa.array(["file", "dir", "rev"]), np.array([0o100644, 0o040000, 0o160000], np.int32)
    writer = orc.ORCWriter(str(path), compression="zstd", stripe_size=64 << 20, batch_size=8192)
    for start in range(0, rows, STEP):
        count = min(STEP, rows - start)
        sizes = draw.geometric(1 / ENTRIES_OF_A_DIRECTORY, count)
        owner = np.repeat(np.arange(count), sizes)[:count]
        first = (
            np.minimum(draw.zipf(1.3, count), len(names)) - 1
        )  # name of a directory; those behind it follow, as git has them
        inside = np.arange(count) - np.searchsorted(owner, owner)
        kind = draw.choice(3, count, p=[0.8, 0.19, 0.01])
        table = pa.table(
            {
                "directory_id": _hex(draw.integers(0, 256, (count, 20), np.uint8)[owner]),
                "name": names.take(pa.array((first[owner] + 7 * inside) % len(names))),
                "type": kinds.take(pa.array(kind)),
                "target": _hex(draw.integers(0, 256, (count, 20), np.uint8)),
                "perms": modes[kind],
            }
        )
        writer.write(table)
    writer.close()
    return path.stat().st_size


def _hex(ids: Any) -> pa.Array:
    """Ids uint8 (n, 20) as a column of 40 digits each."""
    digits = np.empty((len(ids), 40), np.uint8)
    digits[:, ::2], digits[:, 1::2] = DIGITS[ids >> 4], DIGITS[ids & 15]
    ends = np.arange(0, 40 * len(ids) + 1, 40, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(ids), [None, pa.py_buffer(ends), pa.py_buffer(digits)])


# ---------------------------------------------------------------- ways


def ours(path: str, memory_mb: int) -> Callable[[], dict[str, Any]]:
    """`convert_file`."""
    from stackbuild.sources.swh.convert import convert_file
    from stackbuild.sources.swh.export import open_export, opened
    from stackbuild.sources.swh.tables import ENTRIES

    pa.set_cpu_count(1)
    file = open_export(str(Path(path).parents[2])).table("directory_entry")[0]
    with tempfile.TemporaryDirectory() as warm:  # kernels
        small = Path(warm, "w", "orc", "directory_entry", "a.orc")
        generate(small, 1000)
        with opened(open_export(str(Path(warm, "w"))).table("directory_entry")[0]) as table:
            convert_file(table, ENTRIES, Path(warm, "out.parquet"), Path(warm), 1)

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder, opened(file) as table:
            out = Path(folder, "out.parquet")
            counts = convert_file(table, ENTRIES, out, Path(folder), memory_mb << 20)
            return {"rows": counts.rows_out, "runs": counts.runs, "parquet_mb": out.stat().st_size / 1e6}

    return work


def by_duckdb(path: str, memory_mb: int) -> Callable[[], dict[str, Any]]:
    """Unhex, sort and write by DuckDB, one thread."""
    import duckdb

    pa.set_cpu_count(1)

    def work() -> dict[str, Any]:
        from pyarrow import dataset

        with tempfile.TemporaryDirectory() as folder:
            database = duckdb.connect(config={"threads": 1, "memory_limit": f"{memory_mb}MB", "temp_directory": folder})
            database.register("entries", dataset.dataset(path, format="orc"))
            out = Path(folder, "out.parquet")
            rows = database.execute(
                f"""COPY (SELECT unhex(directory_id) AS directory_id, name, CASE type WHEN 'file' THEN 0::TINYINT
                WHEN 'dir' THEN 1::TINYINT ELSE 2::TINYINT END AS kind, unhex(target) AS target, perms FROM entries
                ORDER BY directory_id, name) TO '{out}' (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1,
                ROW_GROUP_SIZE 100000)"""
            ).fetchone()
            return {"rows": rows[0] if rows else 0, "parquet_mb": out.stat().st_size / 1e6}

    return work


def by_pyarrow(path: str) -> Callable[[], dict[str, Any]]:
    """Read all, unhex by Python's own, sort by Arrow: the plain way, with everything in memory."""
    import pyarrow.parquet as pq

    pa.set_cpu_count(1)

    def work() -> dict[str, Any]:
        table = orc.read_table(path)
        for name in ("directory_id", "target"):
            column = pa.chunked_array(
                [pa.array([bytes.fromhex(v) for v in chunk.to_pylist()], pa.binary(20)) for chunk in table[name].chunks]
            )
            table = table.set_column(table.schema.get_field_index(name), name, column)
        table = table.sort_by([("directory_id", "ascending"), ("name", "ascending")])
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder, "out.parquet")
            pq.write_table(table, out, compression="zstd", compression_level=1, row_group_size=100_000)
            return {"rows": table.num_rows, "parquet_mb": out.stat().st_size / 1e6}

    return work


def decoding(path: str) -> Callable[[], dict[str, Any]]:
    """What reading the ORC alone takes."""
    from stackbuild.sources.swh.export import open_export, opened
    from stackbuild.sources.swh.tables import ENTRIES

    pa.set_cpu_count(1)
    file = open_export(str(Path(path).parents[2])).table("directory_entry")[0]

    def work() -> dict[str, Any]:
        with opened(file) as table:
            return {"rows": sum(batch.num_rows for batch in table.batches(ENTRIES.reads))}

    return work


if __name__ == "__main__":
    main()
