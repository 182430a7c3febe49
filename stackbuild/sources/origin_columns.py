"""Rows of somebody's table become a source's batches: origin columns, path, bytes, and a rule for what is not taken.

Everything is columnar; a Python function runs only for paths that are not plain (".." in them, too long). Values behind
a dictionary are measured there before any is copied, and a batch is cut before its bytes pass SLICE_BYTES, so that a
Parquet file of 2 kB that means gigabytes takes none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild import schema
from stackbuild.errors import InputError
from stackbuild.sources.archive_members import FREE_BYTES
from stackbuild.sources.archives import normalise
from stackbuild.sources.timestamps import as_timestamps
from stackbuild.sources.unit import Limits
from stackbuild.swhid import FILE_MODE

SLICE_BYTES: Final = 64 * 1024 * 1024
NAME_BYTES: Final = 4096  # of a repository's name or another origin column; longer is no name
NOT_PLAIN: Final = r"(^|/)\.{0,2}(/|$)|\x00"  # an empty, "." or ".." part, or NUL
ORIGIN: Final = {column.name: column.type for column in schema.ORIGIN_FIELDS}

# What `read_batches` of a columnar source yields; `content` is null where `rule` says why.
BATCH: Final = pa.schema(
    [
        *schema.ORIGIN_FIELDS,
        pa.field("path_bytes", pa.binary(), nullable=False),
        pa.field("mode", pa.int32(), nullable=False),
        pa.field("content", pa.large_binary()),
        pa.field("length", pa.int64()),
        pa.field("rule", pa.string()),
        pa.field("value", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("detail", pa.string()),
    ]
)


@dataclass
class Frame:
    """What holds for all rows of a file. `stem`: names rows without a path. `packed`: bytes on disk that are read."""

    stem: str
    revision_id: str
    defaults: Mapping[str, str]
    packed: int
    limits: Limits
    rows: int = field(default=0, init=False)
    bytes: int = field(default=0, init=False)
    stopped_at: int | None = field(default=None, init=False)  # number of the first row beyond a cap of the unit

    def take(self, lengths: npt.NDArray[np.int64]) -> int:
        """Count rows in; how many of them fit. If not all, `over` says why."""
        rows, size = self.rows, self.bytes
        self.rows, self.bytes = rows + len(lengths), size + int(lengths.sum())
        if not self.over():
            return len(lengths)
        self.rows, self.bytes = rows, size
        for count, length in enumerate(lengths.tolist()):
            self.rows, self.bytes = self.rows + 1, self.bytes + length
            if self.over():
                return count
        raise AssertionError("caps do not depend on how rows are counted")

    def over(self) -> tuple[str, float, float] | None:
        """(rule, value, threshold) of a cap of the unit that is passed."""
        limits = self.limits
        if self.rows > limits.unit_files:
            return "too_many_files", float(self.rows), float(limits.unit_files)
        if self.bytes > limits.unit_bytes:
            return "unit_too_large", float(self.bytes), float(limits.unit_bytes)
        if self.bytes > FREE_BYTES and self.bytes > limits.ratio * self.packed:
            return "archive_bomb", self.bytes / max(self.packed, 1), float(limits.ratio)
        return None


def batches(columns: Mapping[str, pa.Array], numbers: npt.NDArray[np.int64], frame: Frame) -> Iterator[pa.RecordBatch]:
    """Batches of schema BATCH. `columns`: by our name, each of n rows; `numbers`: int64 of n, the rows' in their file.

    Stops before the row that passes a cap of the unit; the caller asks `frame.over()` and refuses the rest.
    """
    content, lengths = _content(columns["content"])
    rules = _Rules(len(numbers))
    rules.mark(np.asarray(lengths) < 0, "null_content")
    rules.mark(np.asarray(lengths) > frame.limits.file_bytes, "too_large", np.asarray(lengths), frame.limits.file_bytes)
    origins = {name: _origin(name, columns.get(name), len(numbers)) for name in ORIGIN}
    if "repo_name" not in frame.defaults:
        rules.mark(np.asarray(pc.is_null(origins["repo_name"])), "no_repo_name")
    fallback = {"repo_name": f"local/{frame.stem}", "revision_id": frame.revision_id, **frame.defaults}
    for name, value in fallback.items():
        origins[name] = pc.fill_null(origins[name], value)
    paths = _paths(columns.get("path"), numbers, frame, rules)
    kept = np.where(rules.free(), np.asarray(lengths), 0)
    ends = np.cumsum(kept)
    start = 0
    while start < len(numbers) and not frame.over():
        before = int(ends[start - 1]) if start else 0
        stop = max(int(np.searchsorted(ends, before + SLICE_BYTES, "right")), start + 1)
        stop = start + frame.take(kept[start:stop])
        if frame.over():
            frame.stopped_at = int(numbers[stop])
        if stop == start:
            return
        piece = slice(start, stop)
        free = rules.free()[piece]
        size = np.asarray(lengths)[piece]
        yield pa.RecordBatch.from_arrays(
            [
                *(origins[name].slice(start, stop - start) for name in ORIGIN),
                paths.slice(start, stop - start),
                pa.array(np.full(stop - start, FILE_MODE, np.int32)),
                _spread(content, pa.array(np.flatnonzero(free) + start), free),
                pa.array(size, mask=size < 0),
                *rules.arrays(piece),
            ],
            schema=BATCH,
        )
        start = stop


def refusal(
    frame: Frame, path: str, rule: str, *, detail: str, value: float | None = None, threshold: float | None = None
) -> pa.RecordBatch:
    """One row of schema BATCH that stands for a row, or a run of them, that is not read."""
    row = {
        "repo_name": f"local/{frame.stem}",
        "revision_id": frame.revision_id,
        **frame.defaults,
        "path_bytes": path.encode(),
        "mode": FILE_MODE,
        "rule": rule,
        "value": value,
        "threshold": threshold,
        "detail": detail,
    }
    return pa.RecordBatch.from_pylist([row], BATCH)


class _Rules:
    """One rule at most for each of n rows, the first that marks it, with its value and threshold."""

    def __init__(self, rows: int):
        self.rule = np.zeros(rows, np.uint8)
        self.names: list[str | None] = [None]
        self.value = np.full(rows, np.nan)
        self.threshold = np.full(rows, np.nan)

    def mark(
        self,
        rows: npt.NDArray[np.bool_],
        rule: str,
        value: npt.NDArray[np.int64] | int | None = None,
        threshold: float | None = None,
    ) -> None:
        """Give `rule` to the rows of a mask that have none."""
        new = rows & self.free()
        if not new.any():
            return
        if rule not in self.names:
            self.names.append(rule)
        self.rule[new] = self.names.index(rule)
        if value is not None and threshold is not None:
            self.value[new] = np.broadcast_to(value, new.shape)[new]
            self.threshold[new] = threshold

    def free(self) -> npt.NDArray[np.bool_]:
        """True for rows that are taken."""
        return np.equal(self.rule, 0)

    def arrays(self, piece: slice) -> list[pa.Array]:
        """The columns rule, value, threshold, detail of a run of rows."""
        codes = self.rule[piece]
        return [
            pa.array(self.names, pa.string()).take(pa.array(codes)),
            pa.array(self.value[piece], mask=np.isnan(self.value[piece])),
            pa.array(self.threshold[piece], mask=np.isnan(self.threshold[piece])),
            pa.nulls(len(codes), pa.string()),
        ]


# ---------------------------------------------------------------- columns


def plain(array: pa.Array) -> pa.Array:
    """An array without its dictionary."""
    return array.dictionary.take(array.indices) if pa.types.is_dictionary(array.type) else array


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
    )


def _as_binary(array: pa.Array, wide: bool) -> pa.Array:
    """The bytes of texts or bytes; without a copy of them."""
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        array = array.cast(pa.binary() if pa.types.is_string(array.type) else pa.large_binary())
    return array.cast(pa.large_binary() if wide else pa.binary())


def _content(array: pa.Array) -> tuple[tuple[pa.Array, pa.Array | None], pa.Array]:
    """((values, indices into them or None), lengths in bytes with -1 for null). No byte of content is copied."""
    indices = None
    if pa.types.is_dictionary(array.type):
        array, indices = array.dictionary, array.indices
    if not _is_text(array.type):
        raise InputError(f"the column of contents is of type {array.type}; it has to be text or bytes")
    values = _as_binary(array, wide=True)
    lengths = pc.binary_length(values)
    if indices is not None:
        lengths = lengths.take(indices)
    return (values, indices), pc.fill_null(lengths.cast(pa.int64()), -1)


def _spread(content: tuple[pa.Array, pa.Array | None], rows: pa.Array, free: npt.NDArray[np.bool_]) -> pa.Array:
    """large_binary of len(free) rows: the bytes of `rows`, the free ones, at their place, null elsewhere."""
    values, indices = content
    if free.all():
        start = rows[0].as_py() if len(rows) else 0
        return values.slice(start, len(rows)) if indices is None else values.take(indices.slice(start, len(rows)))
    place = np.cumsum(free) - 1
    taken = values.take(rows if indices is None else indices.take(rows))
    return taken.take(pa.array(place, mask=~free)) if len(rows) else pa.nulls(len(free), pa.large_binary())


def _origin(name: str, array: pa.Array | None, rows: int) -> pa.Array:
    """An origin column in its own type; null where there is no value, or none that can be."""
    kind = ORIGIN[name]
    if array is None or pa.types.is_null(array.type):
        return pa.nulls(rows, kind)
    indices = None
    if pa.types.is_dictionary(array.type):
        array, indices = array.dictionary, array.indices
    found = _converted(array, kind)
    if found is None:
        raise InputError(f"the column for {name} is of type {array.type}, which cannot become {kind}")
    return found if indices is None else found.take(indices)


def _converted(array: pa.Array, kind: pa.DataType) -> pa.Array | None:
    if pa.types.is_timestamp(kind):
        return as_timestamps(_text(array) if _is_text(array.type) else array)
    if pa.types.is_int64(kind):
        if pa.types.is_floating(array.type):  # pandas writes integers with nulls as floats
            array = array.cast(pa.float64())
            whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), 2.0**53))
            return pc.if_else(whole, array, pa.scalar(None, pa.float64())).cast(pa.int64())
        return array.cast(pa.int64()) if pa.types.is_integer(array.type) else None
    if pa.types.is_integer(array.type):
        return array.cast(pa.string())
    return _text(array) if _is_text(array.type) else None


def _text(array: pa.Array) -> pa.Array:
    """string of texts or bytes, U+FFFD for what is not UTF-8; null for "" and for what is too long to be a name."""
    array = _as_binary(array, wide=False)  # readers of files do not validate what is called text
    lengths = pc.binary_length(array)
    array = pc.if_else(pc.and_(pc.greater(lengths, 0), pc.less_equal(lengths, NAME_BYTES)), array, pa.scalar(None))
    try:
        return array.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([None if v is None else v.decode("utf-8", "replace") for v in array.to_pylist()], pa.string())


def _paths(array: pa.Array | None, numbers: npt.NDArray[np.int64], frame: Frame, rules: _Rules) -> pa.Array:
    """binary paths without a leading "/", `row-<stem>-<n>` for none; unsafe, long and deep ones get a rule."""
    named = _as_binary(
        pc.binary_join_element_wise(f"row-{frame.stem}", pa.array(numbers).cast(pa.string()), "-"), False
    )
    if array is None or pa.types.is_null(array.type):
        return named
    limits = frame.limits
    indices = array.indices if pa.types.is_dictionary(array.type) else None
    values = array.dictionary if indices is not None else array
    if not _is_text(values.type):
        raise InputError(f"the column of paths is of type {values.type}; it has to be text or bytes")
    if pc.any(pc.starts_with(values, "/")).as_py():
        values = pc.replace_substring_regex(values, "^/", "")
    # a path column may be a bomb as well: what is far too long is cut to a name with a hash before it is multiplied
    lengths = pc.fill_null(pc.binary_length(values), 0)
    odd = pc.or_(
        pc.greater(lengths, limits.path_bytes),
        pc.fill_null(pc.match_substring_regex(values, NOT_PLAIN), False),
    )
    codes = np.zeros(len(values), np.uint8)
    if pc.any(pc.and_(odd, pc.greater(lengths, 0))).as_py():
        fixed: list[bytes | None] = []
        for number, (value, is_odd) in enumerate(zip(values.to_pylist(), odd.to_pylist(), strict=True)):
            raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
            if raw and is_odd:
                raw, wrong = normalise(raw, limits)
                codes[number] = 0 if wrong is None else 1 if wrong == "unsafe_path" else 2
            fixed.append(raw)
        values = pa.array(fixed, pa.binary())
    values = _as_binary(values, False)
    depth = pc.fill_null(pc.count_substring(values, "/"), 0)
    deep = np.asarray(depth).astype(np.int64) + 1
    if indices is not None:
        filled = pc.fill_null(indices, 0)
        present = np.asarray(pc.is_valid(indices))
        codes = np.where(present, codes[np.asarray(filled)], 0) if len(codes) else np.zeros(len(indices), np.uint8)
        deep = np.where(present, deep[np.asarray(filled)], 0) if len(deep) else np.zeros(len(indices), np.int64)
        values = values.take(indices)
    rules.mark(codes == 1, "unsafe_path")
    rules.mark(codes == 2, "long_path")
    rules.mark(deep > limits.depth, "too_deep", deep, limits.depth)
    missing = pc.or_kleene(pc.is_null(values), pc.equal(pc.binary_length(values), 0))
    return pc.if_else(pc.fill_null(missing, True), named, values)
