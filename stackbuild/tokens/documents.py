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

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.render.repository import File, Role

DOCUMENTS = pa.schema(
    [
        pa.field("document", pa.int64(), nullable=False),  # its ordinal in the shard
        pa.field("repo_name", pa.string(), nullable=False),
        pa.field("revision_id", pa.string(), nullable=False),
        pa.field("tokens", pa.int64(), nullable=False),  # with headers and <|endoftext|>
        pa.field("bytes", pa.int64(), nullable=False),  # UTF-8 bytes of its files' texts
        pa.field("headers", pa.list_(pa.struct([pa.field("start", pa.int64()), pa.field("end", pa.int64())]))),
        pa.field(
            "files",
            pa.list_(
                pa.struct(
                    [
                        pa.field("path", pa.string()),  # as released: it begins with "/"
                        pa.field("content_id", pa.string()),  # hex
                        pa.field("license_type", pa.string()),
                        pa.field("language", pa.string()),
                        pa.field("start", pa.int64()),
                        pa.field("end", pa.int64()),
                        pa.field("bytes", pa.int64()),  # of its text in UTF-8
                        pa.field("characters", pa.int64()),  # Unicode code points of its text
                    ]
                )
            ),
        ),
    ]
)
ROW_GROUP = 1 << 14  # files of a row group, about
TOKENIZER = b"stackbuild.tokenizer"  # key of the table's metadata: the SHA-256 of the tokenizer.json of its tokens


def schema_for(tokenizer_sha256: str) -> pa.Schema:
    """The schema of a table whose tokens are of this tokenizer."""
    return DOCUMENTS.with_metadata({TOKENIZER: tokenizer_sha256})


class DocumentsWriter:
    """Writes `PREFIX.documents.parquet` from segments and their token counts; holds one row group.

    `documents`, `files`, `bytes` count what was written; `sha256` is the file's hex digest, after the context has
    ended. An exception leaves no file.
    """

    def __init__(self, prefix: str | Path, tokenizer_sha256: str):
        self.path = f"{prefix}.documents.parquet"
        self._schema = schema_for(tokenizer_sha256)
        self.documents = self.files = self.bytes = 0
        self.sha256 = ""
        self._rows: list[dict[str, Any]] = []
        self._held = 0  # files of the rows in hand
        self._begin()

    def _begin(self) -> None:
        self._at = self._text = 0
        self._headers: list[dict[str, int]] = []
        self._files: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._file = open(self.path, "w+b")
        self._writer = pq.ParquetWriter(self._file, self._schema, compression="zstd", compression_level=1)
        return self

    def add(self, role: Role, tokens: int, file: File) -> None:
        """Take up a segment of so many tokens; `Role.END` closes the document."""
        start, self._at = self._at, self._at + tokens
        if role is Role.HEADER:
            if self._headers and self._headers[-1]["end"] == start:
                self._headers[-1]["end"] = self._at
            else:
                self._headers.append({"start": start, "end": self._at})
        elif role is Role.FILE:
            self._text += file.length_bytes
            self._files.append(
                {
                    "path": file.path,
                    "content_id": file.content_id,
                    "license_type": file.license_type,
                    "language": file.language,
                    "start": start,
                    "end": self._at,
                    "bytes": file.length_bytes,
                    "characters": len(file.content),
                }
            )
        else:
            self._end(file)

    def _end(self, file: File) -> None:
        self._rows.append(
            {
                "document": self.documents,
                "repo_name": file.repo_name,
                "revision_id": file.revision_id,
                "tokens": self._at,
                "bytes": self._text,
                "headers": self._headers,
                "files": self._files,
            }
        )
        self.documents += 1
        self.files += len(self._files)
        self.bytes += self._text
        self._held += len(self._files)
        self._begin()
        if self._held >= ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema), row_group_size=len(self._rows))
        self._rows, self._held = [], 0

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush()
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
