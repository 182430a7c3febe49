"""Published ids (the-stack-v2, -dedup, -train-full-ids, -train-smol-ids and tables like them) filled with their contents.

Two column layouts are known: one row for each file, and one row for each repository with `files`. In both `blob_id` is the
plain SHA-1, which is the object's key, `content_id` the git SHA-1 and `src_encoding` what the bytes are in (dataset card of
the-stack-v2). What is written has one row for each file, with the published columns and `content`; rows of a repository get
its columns. Text is what the bytes decode to: nobody published what else was done to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.release.filling import Filled, Folder, Piece
from stackbuild.release.supply import CHANGED, OK, Supply, answered
from stackbuild.release.verify import judged
from stackbuild.tables import TableWriter, conform
from stackbuild.wanted import Fetched, Wanted

IDS: Final = ("blob_id", "content_id", "path")
FILES, CONTENT, COUNT = "files", "content", "num_files"
PIECE_ROWS: Final = 65_536  # of the input that are committed at a time, or one row group if that is more
READ_ROWS: Final = {False: 4_096, True: 64}  # rows at a time: files, or repositories
WRITE_BYTES: Final = 32 << 20
PREFIX: Final = "swh:1:cnt:"
SHA1: Final = r"^[0-9a-fA-F]{40}\z"

Opener = Callable[[], Any]  # a file that Arrow can read
Decode = Callable[[bytes, str | None], "bytes | str"]  # the UTF-8 of a text, or in words why there is none


@dataclass(frozen=True)
class Input:
    """A published table. `name`: its path below the folder that was named."""

    name: str
    open: Opener


@dataclass(frozen=True)
class Layout:
    """The columns of a published table, `nested` in `files` or not, and what is written of it."""

    nested: bool
    schema: pa.Schema


def local_inputs(source: Path) -> list[Input]:
    """The Parquet files of a folder, or the one that is named; InputError if there is none."""
    if source.is_file():
        return [Input(source.name, partial(str, source))]
    paths = sorted(path for path in source.rglob("*.parquet") if path.is_file())
    if not paths:
        raise InputError(f"{source} holds neither a manifest (manifest/header.json) nor Parquet files.")
    return [Input(str(path.relative_to(source)), partial(str, path)) for path in paths]


def layout_of(name: str, schema: pa.Schema) -> Layout:
    """How a table tells of its files; InputError if it does not, or has contents already."""
    columns = {field.name: field for field in schema}
    if CONTENT in columns:
        raise InputError(f"{name} has a column {CONTENT!r} already: there is nothing to fetch.")
    if set(IDS) <= set(columns):
        return Layout(False, schema.append(pa.field(CONTENT, pa.large_string())))
    files = columns.get(FILES)
    if files is not None and is_list(files.type) and pa.types.is_struct(files.type.value_type):
        struct = files.type.value_type
        inner = [struct.field(index) for index in range(struct.num_fields)]
        outer = [field for field in schema if field.name not in (FILES, COUNT)]
        both = {field.name for field in inner} & {field.name for field in outer}
        if set(IDS) <= {field.name for field in inner} and not both and CONTENT not in {f.name for f in inner}:
            return Layout(True, pa.schema([*outer, *inner, pa.field(CONTENT, pa.large_string())]))
    raise InputError(
        f"{name} is not of a layout that was published: it has neither {', '.join(IDS)} nor {FILES} with them, but "
        f"{', '.join(list(columns)[:20])}."
    )


def is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind))


def fill_published(inputs: Sequence[Input], supply: Supply, decode: Decode, folder: Folder) -> Filled:
    """Fill a folder with the contents of published tables, piece by piece."""
    result = Filled()
    names = []
    for source in inputs:
        with opened(source) as file:
            layout = layout_of(source.name, file.schema_arrow)
            runs = list(row_group_runs(file.metadata))
            stem = PurePosixPath(source.name).with_suffix("")
            for number, groups in enumerate(runs):
                name = f"{stem}-{number:05d}-of-{len(runs):05d}.parquet"
                names.append(name)
                mark = folder.complete(name)
                if mark is None:
                    mark = fill_piece(file, groups, layout, supply, decode, folder.piece(name), source.name)
                else:
                    result.found += 1
                result.files += 1
                result.rows += mark["rows"]
                result.lost.update(mark["lost"])
    folder.conclude(names)
    return result


def opened(source: Input) -> pq.ParquetFile:
    """The table; InputError names it if it is none."""
    try:
        return pq.ParquetFile(source.open())
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{source.name} cannot be read ({str(error).splitlines()[0]}).") from error


def row_group_runs(metadata: pq.FileMetaData) -> Iterator[list[int]]:
    """Runs of row groups of about PIECE_ROWS rows."""
    sizes = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]
    starts, filled = [0], 0
    for index, size in enumerate(sizes):
        if filled and filled + size > PIECE_ROWS:
            starts.append(index)
            filled = 0
        filled += size
    if sizes:
        for start, stop in pairwise([*starts, len(sizes)]):
            yield list(range(start, stop))


def fill_piece(
    file: pq.ParquetFile,
    groups: list[int],
    layout: Layout,
    supply: Supply,
    decode: Decode,
    piece: Piece,
    name: str,
) -> dict[str, Any]:
    """Write one piece; returns what its mark says."""
    with piece.writer(layout.schema, release=True, compression_level=3) as writer:
        ready: list[tuple[Row, Fetched]] = []
        size = 0
        for row, answer in answered(rows_of(file, groups, layout, piece, name), lambda row: row.wanted, supply):
            if (ready and row.batch is not ready[0][0].batch) or size >= WRITE_BYTES:
                write(ready, decode, piece, writer, layout)
                ready, size = [], 0
            ready.append((row, answer))
            size += len(answer.data or b"")
        write(ready, decode, piece, writer, layout)
    piece.commit(writer)
    return {"rows": writer.rows, "lost": dict(piece.lost)}


@dataclass(frozen=True)
class Row:
    """A file: a row of a batch of exploded rows, its number in the piece, and what it wants."""

    batch: pa.RecordBatch
    index: int
    number: int
    wanted: Wanted


def rows_of(file: pq.ParquetFile, groups: list[int], layout: Layout, piece: Piece, name: str) -> Iterator[Row]:
    """The files of some row groups. One whose ids are not is noted as lost: nobody can be asked for it."""
    number = 0
    try:
        for read in file.iter_batches(READ_ROWS[layout.nested], row_groups=groups):
            batch = exploded(read) if layout.nested else read
            ids = batch.column("content_id").cast(pa.string())
            ids = pc.if_else(pc.starts_with(ids, PREFIX), pc.utf8_slice_codeunits(ids, len(PREFIX), 64), ids)
            keys = batch.column("blob_id").cast(pa.string())
            good = [pc.fill_null(pc.match_substring_regex(column, SHA1), False) for column in (keys, ids)]
            fine = np.asarray(pc.and_(*good))
            pairs = zip(keys.to_pylist(), ids.to_pylist(), fine.tolist(), strict=True)
            for index, (key, identifier, is_id) in enumerate(pairs):
                if is_id:
                    yield Row(batch, index, number, Wanted(bytes.fromhex(key), bytes.fromhex(identifier)))
                else:
                    piece.lose(number, CHANGED, "its blob_id and content_id are not SHA-1s", told(batch, index))
                number += 1
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{name} cannot be read ({str(error).splitlines()[0]}).") from error


def exploded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """One row for each of the `files` of repositories, with the columns of both."""
    files = batch.column(FILES)
    parents = pc.list_parent_indices(files)
    inner = pc.list_flatten(files)
    columns = {name: batch.column(name).take(parents) for name in batch.schema.names if name not in (FILES, COUNT)}
    struct = inner.type
    columns |= {struct.field(at).name: pc.struct_field(inner, at) for at in range(struct.num_fields)}
    return pa.RecordBatch.from_pydict(columns)


def told(batch: pa.RecordBatch, index: int) -> dict[str, Any]:
    """What a list of missing rows tells of one."""

    def value(name: str) -> str | None:
        if name not in batch.schema.names:
            return None
        found = batch.column(name)[index].as_py()
        return None if found is None else str(found)

    identifier = value("content_id") or ""
    return {
        "swhid": PREFIX + identifier.removeprefix(PREFIX),
        "sha1": value("blob_id"),
        "repo_name": value("repo_name"),
        "path": value("path"),
    }


def write(ready: list[tuple[Row, Fetched]], decode: Decode, piece: Piece, writer: TableWriter, layout: Layout) -> None:
    """Append those of some rows of a batch that have a text; note the others."""
    if not ready:
        return
    batch = ready[0][0].batch
    there = "src_encoding" in batch.schema.names
    kept: list[int] = []
    texts: list[bytes] = []
    for row, answer in ready:
        state, detail = judged(answer)
        if state == OK and answer.data is not None:
            encoding = batch.column("src_encoding")[row.index].as_py() if there else None
            text = decode(answer.data, encoding or "UTF-8")
            if isinstance(text, bytes):
                kept.append(row.index)
                texts.append(text)
                continue
            state, detail = CHANGED, text
        piece.lose(row.number, state, detail, told(batch, row.index))
    if kept:
        content = pa.array(texts, pa.large_binary()).cast(pa.large_string())
        rows = batch.take(pa.array(kept, pa.int64())).append_column(CONTENT, content)
        writer.write(conform(rows, layout.schema))
