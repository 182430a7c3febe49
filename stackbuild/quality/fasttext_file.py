"""Read a fastText model of a stranger: checked byte by byte before the library opens it.

The library trusts what it loads: a short file gives memory that was never written, a false size asks for all memory there
is, and an index out of range is followed. So the whole file is walked here: the format of fastText's versions 11 and 12 as
its `saveModel`, `Dictionary::save`, `DenseMatrix::save`, `QuantMatrix::save` and `ProductQuantizer::save` write it. Every
size must follow from those before it, every index lie in its table, every number be finite, and the last byte be the last.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stackbuild.errors import InputError, MissingDependency
from stackbuild.kernels import kernel
from stackbuild.quality.characters import U8

ENGINE = "fasttext-community"
PREFIX = "__label__"
MAGIC, VERSIONS = 793712314, (11, 12)
SUPERVISED = 3
LOSSES = {1: "hs", 2: "ns", 3: "softmax", 4: "ova"}
CENTROIDS = 256  # of each part of a quantized vector
MOST_DIMENSIONS, MOST_LABELS, MOST_NGRAM = 4_096, 100_000, 16
MOST_COUNT = 10**15  # from here on the tree of hierarchical softmax goes wrong (Loss::buildTree)


class _Bad(Exception):
    """What is wrong with a model, in words that follow its name."""


@dataclass(frozen=True)
class ModelFile:
    """A model that was found sound. `labels`: without fastText's prefix, in its order. `digest`: SHA-256 of the bytes."""

    path: str
    size: int
    digest: str
    labels: tuple[str, ...]
    words: int
    dim: int
    loss: str
    word_ngrams: int
    quantized: bool

    @cached_property
    def model(self) -> Model:
        """The model itself, loaded once in a process (and before a fork: children share it)."""
        return Model(self)


class Model:
    """A loaded classifier."""

    def __init__(self, file: ModelFile):
        loaded = library().load_model(file.path)
        if digest_of(file.path) != file.digest:
            raise InputError(f"{file.path} was changed while it was being read.")
        self._model = loaded  # keeps what `f` belongs to
        self._predict = loaded.f.predict
        self.labels = [PREFIX + label for label in file.labels]

    def best(self, line: bytes) -> tuple[str, float] | None:
        """The likeliest label of a line without line feeds, and its score from 0 to 1; None for a line without a word."""
        found = self._predict(line + b"\n", 1, 0.0, "strict") if line else []
        return (found[0][1].removeprefix(PREFIX), rounded(found[0][0])) if found else None

    def scores(self, line: bytes) -> dict[str, float]:
        """The score of every label; one too small for the library to tell is not there."""
        found = self._predict(line + b"\n", len(self.labels), 0.0, "strict") if line else []
        return {label.removeprefix(PREFIX): rounded(score) for score, label in found}


def rounded(score: float) -> float:
    """A score to four decimals, from 0 to 1: the library adds 0.00001, and the last bits depend on the C library's exp."""
    return min(max(round(score, 4), 0.0), 1.0)


def library() -> Any:
    """The package `fasttext` of fasttext-community: the others of that name cannot train or predict under numpy 2."""
    try:
        import fasttext
    except ImportError as error:
        raise MissingDependency(
            f"{ENGINE} is not installed: pip install 'stackbuild[quality]'. (fasttext, fasttext-wheel and fasttext-predict "
            "bring a package of the same name; have one of them only.)"
        ) from error
    return fasttext


def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_model(path: str | Path) -> ModelFile:
    """Check a model; InputError that names it and what is wrong with it. Nothing is loaded yet."""
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _Bad("it is no file")
            if not os.fstat(file.fileno()).st_size:
                raise _Bad("it is empty")
            view = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # closed when nothing looks at it any more
            digest = hashlib.sha256(view).hexdigest()
            return _checked(_Reader(np.frombuffer(view, np.uint8)), str(path), digest)
    except (OSError, ValueError) as error:  # of a name with NUL or half a surrogate pair: ValueError
        why = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise InputError(f"The model {str(path)!r} cannot be read: {why}.") from error
    except _Bad as error:
        raise InputError(f"{path} is no fastText classifier that can be used: {error}.") from error


# ---------------------------------------------------------------- the walk


class _Reader:
    """A place in the bytes of a file; `_Bad` where it ends too soon."""

    def __init__(self, data: U8):
        self.data, self.at = data, 0

    def take(self, size: int, what: str) -> U8:
        """The next bytes."""
        if size < 0 or size > len(self.data) - self.at:
            raise _Bad(f"it ends within {what}, at byte {len(self.data):,}")
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, layout: str, what: str) -> tuple[Any, ...]:
        """The next numbers, little-endian."""
        return struct.unpack("<" + layout, self.take(struct.calcsize("<" + layout), what).tobytes())

    def flag(self, what: str) -> bool:
        (value,) = self.numbers("B", what)
        if value > 1:
            raise _Bad(f"{what} is {value}, neither 0 nor 1")
        return bool(value)

    def floats(self, count: int, what: str) -> None:
        """Pass over numbers that must be finite."""
        raw = self.take(4 * count, what)
        for start in range(0, len(raw), 1 << 22):
            if not np.isfinite(raw[start : start + (1 << 22)].copy().view("<f4")).all():
                raise _Bad(f"{what} has a number that is not finite")


def _checked(reader: _Reader, path: str, digest: str) -> ModelFile:
    magic, version = reader.numbers("ii", "its header") if len(reader.data) >= 8 else (0, 0)
    if magic != MAGIC:
        raise _Bad("it does not begin as one")
    if version not in VERSIONS:
        raise _Bad(f"it is of version {version} of the format; {' and '.join(map(str, VERSIONS))} are known")
    dim, _, _, _, _, ngrams, loss, kind, bucket, _, maxn, _, _ = reader.numbers("12id", "its header")
    maxn = 0 if version == 11 else maxn  # as the library reads models of that version
    _must(kind == SUPERVISED, "it holds word vectors, not a classifier")
    _must(loss in LOSSES, f"its loss is number {loss}")
    _must(1 <= dim <= MOST_DIMENSIONS, f"its vectors have {dim:,} dimensions")
    _must(bucket >= 0 and (bucket > 0 or (ngrams <= 1 and maxn <= 0)), f"it has {bucket:,} buckets")
    _must(ngrams <= MOST_NGRAM and maxn <= MOST_NGRAM, f"its n-grams are of {max(ngrams, maxn):,}")
    size, words, labels, _, pruned = reader.numbers("3i2q", "its header")
    _must(
        1 <= labels <= MOST_LABELS and words >= 1 and size == words + labels,
        f"it has {words:,} words and {labels:,} labels",
    )
    names = _dictionary(reader, words, labels)
    if pruned > 0:
        pairs = (
            reader.take(8 * pruned, "its index of n-grams").view("<i4")
            if reader.at % 4 == 0
            else np.frombuffer(reader.take(8 * pruned, "its index of n-grams").tobytes(), "<i4")
        )
        _must(
            bool((pairs[1::2] >= 0).all() and (pairs[1::2] < pruned).all()),
            "its index of n-grams leads out of the table",
        )
    quantized = reader.flag("the mark of a quantized table")
    _must(quantized or pruned < 0, "it is pruned and not quantized")
    rows = words + (bucket if pruned < 0 else pruned)
    (_quantized if quantized else _dense)(reader, rows, dim, "its table of words")
    whole = reader.flag("the mark of a quantized output")
    (_quantized if quantized and whole else _dense)(reader, labels, dim, "its table of labels")
    _must(reader.at == len(reader.data), f"{len(reader.data) - reader.at:,} bytes follow its end")
    return ModelFile(path, len(reader.data), digest, names, words, dim, LOSSES[loss], ngrams, quantized)


def _must(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Bad(otherwise)


def _dictionary(reader: _Reader, words: int, labels: int) -> tuple[str, ...]:
    """Pass over the words; the labels without their prefix."""
    ends = np.zeros(labels + 1, np.int64)
    at, total = walk(reader.data, reader.at, words, labels, ends)
    if at < 0:
        raise _Bad(
            "it ends within its words" if at == -1 else f"its word {total + 1:,} of {words + labels:,} is damaged"
        )
    _must(total < MOST_COUNT, "its counts of labels are too large")
    reader.at = at
    names = []
    for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        raw = bytes(reader.data[start : end - 10])
        try:
            names.append(raw.decode().removeprefix(PREFIX))
        except UnicodeDecodeError as error:
            raise _Bad(f"its label {raw[:40]!r} is not UTF-8") from error
    _must(len(set(names)) == labels, "a label stands in it twice")
    return tuple(names)


@kernel
def walk(data: U8, at: int, words: int, labels: int, ends: Any) -> Any:
    """Pass over the entries of a dictionary from byte `at`: each a name, a NUL, its count (int64) and its kind (0 for the
    words, which come first, 1 for the labels).

    Writes where the first label begins, and where each ends, to `ends` (labels + 1,). Returns (where they end, sum of the
    labels' counts), (-1, 0) if the bytes end before, (-2, its number) at an entry that cannot be.
    """
    total = np.int64(0)
    for k in range(words + labels):
        if k == words:
            ends[0] = at
        start = at
        while at < len(data) and data[at] != 0:
            at += 1
        if at + 10 > len(data):
            return -1, 0
        count = np.int64(0)
        for j in range(8):
            count |= np.int64(data[at + 1 + j]) << np.int64(8 * j)
        if at == start or data[at + 9] != (k >= words) or count < 0 or count >= 1_000_000_000_000_000:
            return -2, k
        at += 10
        if k >= words:
            total += count
            ends[k - words + 1] = at
    return at, total


def _dense(reader: _Reader, rows: int, dim: int, what: str) -> None:
    m, n = reader.numbers("2q", what)
    _must((m, n) == (rows, dim), f"{what} is of {m:,} by {n:,}, not {rows:,} by {dim:,}")
    reader.floats(m * n, what)


def _quantized(reader: _Reader, rows: int, dim: int, what: str) -> None:
    with_norms = reader.flag(what)
    m, n, codes = reader.numbers("2qi", what)
    _must((m, n) == (rows, dim), f"{what} is of {m:,} by {n:,}, not {rows:,} by {dim:,}")
    reader.take(codes, what)
    parts = _quantizer(reader, dim, what)
    _must(codes == rows * parts, f"{what} has {codes:,} codes, not {rows * parts:,}")
    if with_norms:
        reader.take(rows, what)
        _quantizer(reader, 1, what)


def _quantizer(reader: _Reader, dim: int, what: str) -> int:
    """Into how many parts a vector is cut."""
    of, parts, size, last = reader.numbers("4i", what)
    sound = of == dim and size >= 1 and parts == -(-dim // max(size, 1)) and last == (dim % max(size, 1) or size)
    _must(sound, f"{what} is cut into {parts:,} parts of {size:,}, the last of {last:,}")
    reader.floats(dim * CENTROIDS, what)
    return int(parts)


def joined(labels: Sequence[str]) -> str:
    """Labels for a message, the first few of many."""
    return ", ".join(labels[:12]) + (f" and {len(labels) - 12:,} more" if len(labels) > 12 else "")
