"""The document table that stands beside each `.bin/.idx`: what every token of every document is.

Row k is document k of the shard. `headers` and the `start`/`end` of `files` are token spans, half open, counted from
the document's first token; they rise, never overlap, and with the closing `<|endoftext|>` they cover the document. So
FIM can keep out of headers and a file can be found and removed without decoding a token.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import hex_ids

SPAN = [pa.field("start", pa.int64()), pa.field("end", pa.int64())]
FILE = [
    pa.field("path", pa.string()),  # as released: it begins with "/"
    pa.field("content_id", pa.string()),  # hex
    pa.field("license_type", pa.string()),
    pa.field("language", pa.string()),
    *SPAN,
    pa.field("bytes", pa.int64()),  # of its text in UTF-8
    pa.field("characters", pa.int64()),  # Unicode code points of its text
]
DOCUMENTS = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),  # its ordinal in the shard
        pa.field("source", pa.string(), nullable=False),  # as in the manifest
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),  # with headers and <|endoftext|>
        pa.field("bytes", pa.int64(), nullable=False),  # UTF-8 bytes of its files' texts
        pa.field("headers", pa.list_(pa.struct(SPAN))),  # in front of each file that has something in front
        pa.field("files", pa.list_(pa.struct(FILE))),
    ]
)
ROW_GROUP = 1 << 14  # files of a row group, about
TOKENIZER = b"stackbuild.tokenizer"  # key of the table's metadata: the SHA-256 of the tokenizer.json of its tokens
_TOLD = ("repo_name", "revision_id", "path", "content_id", "license_type", "language")

I64 = npt.NDArray[np.int64]


def schema_for(tokenizer_sha256: str) -> pa.Schema:
    """The schema of a table whose tokens are of this tokenizer."""
    return DOCUMENTS.with_metadata({TOKENIZER: tokenizer_sha256})


def is_document_table(schema: pa.Schema) -> bool:
    """Whether a table has every column of `DOCUMENTS`, of its type."""
    return all(field.name in schema.names and schema.field(field.name).type == field.type for field in DOCUMENTS)


class DocumentsWriter:
    """Writes `PREFIX.documents.parquet`; holds the files of one row group, or those of one document.

    `documents`, `files`, `bytes` count what was written; `sha256` is the file's hex digest, after the context has
    ended. An exception leaves no file.
    """

    def __init__(self, prefix: str | Path, tokenizer_sha256: str, source: str):
        self.path, self.source = f"{prefix}.documents.parquet", source
        self._schema = schema_for(tokenizer_sha256)
        self.documents = self.files = self.bytes = 0
        self.sha256 = ""
        self._waiting: list[pa.Table] = []
        self._held = 0  # files of what waits

    def __enter__(self) -> Self:
        self._file = open(self.path, "w+b")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd", compression_level=1)
        return self

    def add(self, files: pa.Table, opens: npt.NDArray[np.bool_], headers: I64, tokens: I64) -> None:
        """Take up n files in order. `files`: the columns of `_TOLD` (content_id as binary(20)) and content; `opens`: whether a
        document begins with the file; `headers`, `tokens`: the tokens in front of it and of its text."""
        rows = files.select(_TOLD).append_column("bytes", pc.binary_length(files["content"]).cast(pa.int64()))
        rows = rows.append_column("characters", pc.utf8_length(files["content"]).cast(pa.int64()))
        for name, values in (("opens", opens), ("headers", headers), ("tokens", tokens)):
            rows = rows.append_column(name, pa.array(values))
        self._waiting.append(rows)
        self._held += rows.num_rows
        if self._held >= ROW_GROUP:
            self._flush(last=False)

    def _flush(self, last: bool) -> None:
        """Write row groups of whole documents, cut where the files alone say, not the batches in which they came."""
        rows = pa.concat_tables(self._waiting) if self._waiting else None
        while rows is not None and rows.num_rows:
            starts = np.flatnonzero(rows["opens"].to_numpy())
            at = int(np.searchsorted(starts, ROW_GROUP))
            if at == len(starts) and not last:
                break
            whole = int(starts[at]) if at < len(starts) else rows.num_rows
            self._write(rows.slice(0, whole).combine_chunks(), starts[:at])
            rows = rows.slice(whole)
        self._waiting = [] if rows is None else [rows]
        self._held = 0 if rows is None else rows.num_rows

    def _write(self, rows: pa.Table, starts: I64) -> None:
        table = _table(rows, starts, self.documents, self.source).replace_schema_metadata(self._schema.metadata)
        self._writer.write_table(table, row_group_size=table.num_rows)
        self.documents += table.num_rows
        self.files += rows.num_rows
        self.bytes += int(table["bytes"].to_numpy().sum())

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush(last=True)
            self._writer.close()
            if kind is None:
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.seek(0)
                self.sha256 = hashlib.file_digest(self._file, "sha256").hexdigest()
        finally:
            self._file.close()
            if kind is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self.path)


def _table(rows: pa.Table, starts: I64, first: int, source: str) -> pa.Table:
    """Documents from their files; `starts`: the first file of each."""
    headers, tokens = rows["headers"].to_numpy(), rows["tokens"].to_numpy()
    offsets = np.append(starts, rows.num_rows)
    ends = np.cumsum(headers + tokens)
    before = np.concatenate([[0], ends])[starts]  # tokens of the files of all documents before
    end = ends - np.repeat(before, np.diff(offsets))  # of each file in its document
    start = end - tokens
    told = headers > 0
    spans = pa.StructArray.from_arrays([pa.array((start - headers)[told]), pa.array(start[told])], fields=SPAN)
    columns = [
        rows["path"],
        hex_ids(rows["content_id"].combine_chunks()),
        rows["license_type"],
        rows["language"],
        start,
        end,
        rows["bytes"],
        rows["characters"],
    ]
    files = pa.StructArray.from_arrays([_array(column) for column in columns], fields=FILE)
    firsts = rows.take(pa.array(starts))
    return pa.Table.from_arrays(
        [
            pa.array(np.arange(first, first + len(starts))),
            pa.repeat(source, len(starts)),
            *(firsts[name].combine_chunks() for name in ("repo_name", "revision_id")),
            pa.array(np.add.reduceat(headers + tokens, starts) + 1),  # the sentinel that closes it
            pa.array(np.add.reduceat(rows["bytes"].to_numpy(), starts)),
            pa.ListArray.from_arrays(np.append(0, np.cumsum(told))[offsets].astype(np.int32), spans),
            pa.ListArray.from_arrays(offsets.astype(np.int32), files),
        ],
        schema=DOCUMENTS,
    )


def _array(column: Any) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else pa.array(column)


def read_document(prefix: str | Path, document: int) -> dict[str, Any]:
    """Row `document` of the table, as a dict with the names of `DOCUMENTS`. InputError if not there."""
    path = f"{prefix}.documents.parquet"
    try:
        with pq.ParquetFile(path) as file:
            at = document
            for group in range(file.num_row_groups if document >= 0 else 0):
                rows = file.metadata.row_group(group).num_rows
                if at < rows:
                    row: dict[str, Any] = file.read_row_group(group).slice(at, 1).to_pylist()[0]
                    return row
                at -= rows
            total = file.metadata.num_rows
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a document table: {error}") from error
    raise InputError(f"{path}: there is no document {document}; it has {total:,}, counted from 0")
