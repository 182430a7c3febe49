"""Parquet in, Parquet out, nothing between: our reader and writer of shards against datatrove's.

    python -m benchmarks.passthrough PARQUET ... [--rounds N] [--json]

Both read every column of the same files in order and write them again with zstd at level 1, one file for each. Ours
goes through record batches and also hashes (SHA-256), checksums its pages and flushes to the disk what it wrote;
datatrove goes through a `Document` for each row. Rows and bytes of text that came out are counted from the files
afterwards and must agree. Either spends more on its first megabytes, in which memory is touched for the first time:
give them some hundred.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.measure import Comparison, options

GOAL = 2.0  # times datatrove


def ours(files: list[str], column: str, folder: str) -> Callable[[], dict[str, Any]]:
    """Row groups as batches into `TableWriter`, as the build does."""
    from stackbuild.tables import TableWriter

    def work() -> dict[str, Any]:
        made = [Path(folder, f"{number:05d}.parquet") for number in range(len(files))]
        for name, out in zip(files, made, strict=True):
            with pq.ParquetFile(name) as file, TableWriter(out, file.schema_arrow) as writer:
                for group in range(file.num_row_groups):
                    writer.write(file.read_row_group(group, use_threads=False))
        return {"files": list(map(str, made)), "column": column}

    return work


def datatrove(files: list[str], column: str, folder: str) -> Callable[[], dict[str, Any]]:
    """`ParquetReader` into `ParquetWriter`, one rank."""
    from datatrove.data import Document
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.writers import ParquetWriter
    from datatrove.utils.logging import logger

    logger.remove()
    links, out = Path(folder, "in"), Path(folder, "out")
    links.mkdir()
    for number, name in enumerate(files):
        (links / f"{number:05d}.parquet").symlink_to(name)
    reader = ParquetReader(str(links), text_key=column, id_key="id")
    # Ours cuts intermediate files without content-defined chunking or a page index; so both do the same.
    writer = ParquetWriter(
        str(out),
        output_filename="${stem}.parquet",
        compression="zstd",
        expand_metadata=True,
        use_content_defined_chunking=False,
        write_page_index=False,
    )

    def named(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            document.metadata["stem"] = Path(document.metadata.pop("file_path")).stem
            yield document

    def work() -> dict[str, Any]:
        for _ in writer.run(named(reader.run(None, 0, 1)), 0, 1):
            pass
        return {"files": sorted(map(str, out.glob("*.parquet"))), "column": "text"}

    return work


WAYS = ("ours", "datatrove")


def content(files: list[str], column: str) -> dict[str, int]:
    """Rows, and bytes of text."""
    rows = size = 0
    for name in files:
        texts = pq.read_table(name, columns=[column])[column]
        rows, size = rows + len(texts), size + (pc.sum(pc.binary_length(texts)).as_py() or 0)
    return {"rows": rows, "bytes": size}


def main() -> None:
    """Let both take turns, compare what they wrote, and print."""
    parser = options(__doc__ or "")
    parser.add_argument("files", nargs="+", metavar="PARQUET")
    parser.add_argument("--column", default="text", help="the column of text")
    arguments = parser.parse_args()
    files = [str(Path(name).resolve()) for name in arguments.files]
    expected = content(files, arguments.column)
    comparison = Comparison(
        "passthrough",
        "MB/CPU-s",
        GOAL,
        expected["bytes"] / 1e6,
        {"files": len(files), **expected},
        ("stackbuild", "pyarrow", "datatrove"),
    )
    for _ in range(arguments.rounds):
        for name in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                given = {"files": files, "column": arguments.column, "folder": folder}
                comparison.take_turns({name: (f"benchmarks.passthrough:{name}", given)}, 1)
                for run in comparison.runs.get(name, ())[-1:]:
                    written = content(run.told.pop("files"), run.told.pop("column"))
                    if written != expected:
                        raise SystemExit(f"{name} wrote {written}, not {expected}")
    comparison.show(arguments.json)


if __name__ == "__main__":
    main()
