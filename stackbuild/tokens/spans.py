"""Where the files and headers of a shard's documents lie, as arrays: what a loader cuts and treats by.

Read from the document table, without its texts: `files` and `headers` of `documents.DOCUMENTS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stackbuild.errors import InputError

I64 = npt.NDArray[np.int64]


class Lists(NamedTuple):
    """Spans of n documents: those of document k are `start[offsets[k]:offsets[k + 1]]` and so on, in tokens of the document."""

    offsets: I64  # (n + 1,)
    start: I64
    end: I64


class DocumentSpans(NamedTuple):
    """Of one shard. `characters`: int64, of each file's text; `plain`: bool, whether it is ASCII, all characters a byte."""

    files: Lists
    characters: I64
    plain: npt.NDArray[np.bool_]
    headers: Lists

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return sum(array.nbytes for array in (*self.files, self.characters, self.plain, *self.headers))


def document_spans(prefix: str | Path) -> DocumentSpans:
    """Read the spans of a shard's documents. A document without a list of files (datatrove's) is one file, all of it but
    the token that closes it; where that is missing (the list is null), it was cut, and its end is where no token follows.

    InputError if the table is torn, or its spans do not lie in order.
    """
    path = f"{prefix}.documents.parquet"
    columns = [f"files.list.element.{name}" for name in ("start", "end", "characters", "bytes")]
    columns += [f"headers.list.element.{name}" for name in ("start", "end")]
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(columns=["tokens", *columns], use_threads=False)
        files, characters, texts = _lists(table["files"], "characters", "bytes")
        headers, *_ = _lists(table["headers"])
        sizes = np.asarray(table["tokens"])
        cut = np.asarray(table["files"].combine_chunks().is_null())
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a document table: {error}") from error
    for name, spans in (("files", files), ("headers", headers)):
        if not _in_order(spans, sizes):
            raise InputError(f"{path}: its {name} do not lie in their documents one behind the other")
    return _with_texts(DocumentSpans(files, characters, characters == texts, headers), sizes - ~cut)


def _with_texts(spans: DocumentSpans, sizes: I64) -> DocumentSpans:
    """With a file of `sizes` tokens in each document that has none: of at least as many characters as a token each."""
    counts = np.diff(spans.files.offsets)
    bare = np.flatnonzero(counts == 0)
    if not len(bare):
        return spans
    at, more = spans.files.offsets[bare], np.maximum(sizes[bare], 0).astype(np.int64)
    offsets = np.append(0, np.cumsum(np.maximum(counts, 1)))
    files = Lists(offsets, np.insert(spans.files.start, at, 0), np.insert(spans.files.end, at, more))
    return DocumentSpans(files, np.insert(spans.characters, at, more), np.insert(spans.plain, at, False), spans.headers)


def file_languages(prefix: str | Path) -> pa.DictionaryArray:
    """The language of each file of a shard's documents, as enry names it or null, in the order of `DocumentSpans.files`."""
    path = f"{prefix}.documents.parquet"
    try:
        with pq.ParquetFile(path, pre_buffer=False) as file:
            table = file.read(columns=["files.list.element.language"], use_threads=False)
        entries = pc.list_flatten(table["files"].combine_chunks())
        return pc.dictionary_encode(entries.field("language"))
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise InputError(f"{path}: cannot be read as a document table: {error}") from error


def _lists(column: pa.ChunkedArray, *more: str) -> tuple[Any, ...]:
    listed = column.combine_chunks()
    counts = pc.fill_null(pc.list_value_length(listed), 0)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(counts), dtype=np.int64)])
    entries = pc.list_flatten(listed)
    start, end, *others = (np.asarray(entries.field(name)).astype(np.int64) for name in ("start", "end", *more))
    return Lists(offsets, start, end), *others


def _in_order(spans: Lists, sizes: I64) -> bool:
    offsets, start, end = spans
    if offsets[-1] != len(start):
        return False
    if len(start) == 0:
        return True
    of = np.repeat(np.arange(len(sizes)), np.diff(offsets))
    fits = (start >= 0) & (start <= end) & (end <= sizes[of])
    same = of[1:] == of[:-1]
    return bool(fits.all() and (start[1:] >= end[:-1])[same].all())
