"""Ours, as benchmarks/near_dedup.py runs it.

signatures    the text column read from Parquet in batches and sketched, on one thread; start-up is told apart
command       `stackbuild dedup INPUT --output OUT`: Parquet to Parquet, exact check, clusters
table         the same by near_duplicates() on a table in memory:

python -m benchmarks.near_dedup_ours INPUT OUT [--headers]      (--headers: licence headers count)
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import NotMeasured, Run, command, way
from benchmarks.near_dedup_peers import Input, Outcome, outcome

BATCH_ROWS = 1000


# ---------------------------------------------------------------- in a process of their own


def signatures(folder: str) -> Callable[[], int]:
    """A way of `benchmarks.measure`: compiled kernels are loaded before the work begins. It returns how many files."""
    from stackbuild.dedup.options import NearDedupOptions
    from stackbuild.dedup.signatures import permutation_constants, sketch_texts

    options = NearDedupOptions()
    a, b = permutation_constants(42, options.permutations)

    def sketch(texts: pa.Array) -> int:
        sketch_texts(texts, options.shingling, a, b)
        return len(texts)

    sketch(pa.array(["some five words of text"]))

    def work() -> int:
        done = 0
        for path in sorted(Path(folder).glob("*.parquet")):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(BATCH_ROWS, columns=["text"], use_threads=False):
                    done += sketch(batch.column(0))
        return done

    return work


def table(folder: str, out: str) -> None:
    """Everything in memory, on one thread."""
    from stackbuild.dedup.near_duplicates import near_duplicates
    from stackbuild.dedup.options import NearDedupOptions

    pa.set_cpu_count(1)
    options = NearDedupOptions(scope="global")
    files = pa.concat_tables(
        pq.read_table(path, columns=["id", "text"]) for path in sorted(Path(folder).glob("*.parquet"))
    )
    found = near_duplicates(files, "text", "id", options)
    for name, rows in (("data", files.filter(found["kept"])), ("clusters", found)):
        (Path(out) / name).mkdir(parents=True)
        pq.write_table(rows, Path(out, name, "000.parquet"), compression="zstd", compression_level=1)


# ---------------------------------------------------------------- measuring


def run_signatures(given: Input, env: Mapping[str, str]) -> Run:
    return way("benchmarks.near_dedup_ours:signatures", {"folder": str(given.folder)}, env)


def run_whole(
    extra: tuple[str, ...] | None, given: Input, cache: Path, env: Mapping[str, str], workers: int
) -> tuple[Run, Outcome]:
    """One run of the command with some more words; None: of the table in memory. NotMeasured with the reason if it fails."""
    with tempfile.TemporaryDirectory(dir=cache, prefix="ours-") as scratch:
        out = Path(scratch, "out")
        if extra is None:
            words = ["benchmarks.near_dedup_ours", str(given.folder), str(out)]
        else:
            words = [
                "stackbuild",
                "dedup",
                *map(str, given.paths),
                "--output",
                str(out),
                "--workers",
                str(workers),
                *extra,
            ]
        try:
            run, _ = command([sys.executable, "-m", *words], env, tree=True)
        except SystemExit as error:
            raise NotMeasured(str(error)) from error
        return run, read_outcome(given, out)


def read_outcome(given: Input, out: Path) -> Outcome:
    """From OUT/data and OUT/clusters."""
    columns = ["id", "cluster_id", "kept_id"]
    told = pa.concat_tables(pq.read_table(path, columns=columns) for path in sorted(out.glob("clusters/*.parquet")))
    told = told.filter(told["cluster_id"].is_valid()).rename_columns(["id", "group", "kept_id"])
    return outcome(given, sorted(out.glob("data/*.parquet")), told)


if __name__ == "__main__":
    table(*sys.argv[1:])
