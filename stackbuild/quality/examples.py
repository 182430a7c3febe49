"""Files whose label is known, for training and testing a classifier: from folders, or from Parquet files with a column.

An example is a line (`tokens`), its label and its group. To which side it falls, training or held out, its group alone
decides, by a hash: so no repository is on both. Training wants its examples shuffled and no text twice, also where they are
more than memory holds: they are written to buckets by a hash of the line, and each bucket is sorted by itself.
"""

from __future__ import annotations

import glob
import hashlib
import os
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.hashing import draw, uniform
from stackbuild.quality.fasttext_file import joined
from stackbuild.quality.tokens import Tokens, lines

GROUP_COLUMNS = ("repo_name", "repo", "max_stars_repo_name")  # of the published tables; the first that there is
BATCH_ROWS = 512
BATCH_BYTES = 4 << 20
BUCKETS = 256
MOST_LABELS = 1_000
NAMED = 10  # unreadable files that are named
MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))


@dataclass(frozen=True)
class Cut:
    """How text becomes a line."""

    tokens: Tokens
    head_bytes: int


@dataclass
class LeftOut:
    """Files that were not used, by the reason, and the first ones that could not be read."""

    counts: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)

    def cannot_read(self, path: object, why: object) -> None:
        self.counts["unreadable"] += 1
        if len(self.unreadable) < NAMED:
            self.unreadable.append(f"{path}: {why}")


@dataclass(frozen=True)
class Batch:
    """n texts (large_string), the label and the group of each."""

    text: pa.LargeStringArray
    labels: Sequence[str]
    groups: Sequence[str]


class Folders:
    """Every regular file below one folder for each label; what lies in one folder directly below it is one group.

    Links are not followed, `.git` is passed over. A file with a NUL in its head is binary; what is not UTF-8 is read as if
    it were, with U+FFFD in its places.
    """

    def __init__(self, folders: Sequence[tuple[str, Path]]):
        self.folders = folders

    def batches(self, cut: Cut, left_out: LeftOut) -> Iterator[Batch]:
        for label, folder in self.folders:
            if not folder.is_dir():
                raise InputError(f"{folder}, the folder of the label {label!r}, is no folder.")
            texts: list[str] = []
            groups: list[str] = []
            size = found = 0
            for path, group in _files(folder, left_out):
                found += 1
                text = head(path, cut.head_bytes, left_out)
                if text is None:
                    continue
                texts.append(text)
                groups.append(group)
                size += len(text)
                if size > BATCH_BYTES:
                    yield Batch(pa.array(texts, pa.large_string()), [label] * len(texts), groups)
                    texts, groups, size = [], [], 0
            if not found:
                raise InputError(f"{folder}, the folder of the label {label!r}, has no files.")
            if texts:
                yield Batch(pa.array(texts, pa.large_string()), [label] * len(texts), groups)


def _files(folder: Path, left_out: LeftOut) -> Iterator[tuple[str, str]]:
    """Path and group of every regular file below a folder, in order."""
    for where, below, names in os.walk(
        folder, onerror=lambda error: left_out.cannot_read(error.filename, error.strerror)
    ):
        below[:] = sorted(name for name in below if name != ".git")
        for name in sorted(names):
            path = os.path.join(where, name)
            if os.path.isfile(path) and not os.path.islink(path):
                yield path, os.path.relpath(path, folder).split(os.sep, 1)[0]


def head(path: str, size: int, left_out: LeftOut) -> str | None:
    """The beginning of a file as text, None if it was left out; `tokens` cuts a torn character off."""
    try:
        with open(path, "rb") as file:
            raw = file.read(size + 8)
    except OSError as error:
        left_out.cannot_read(os.fsencode(path).decode("utf-8", "replace"), error.strerror)
        return None
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), "utf-8")
    if encoding != "utf-16" and b"\0" in raw:
        left_out.counts["binary"] += 1
        return None
    return raw.decode(encoding, "replace").replace("\0", " ")


class Tables:
    """Parquet files with a column of text and one of labels. `group_column`: None for the first of GROUP_COLUMNS that the first
    file has; without any, each file stands for itself.
    """

    def __init__(self, patterns: Sequence[str], label_column: str, text_column: str, group_column: str | None):
        self.paths = [path for pattern in patterns for path in _matching(pattern)]
        self.label_column, self.text_column = label_column, text_column
        names = _open(self.paths[0]).schema_arrow.names
        known = [name for name in GROUP_COLUMNS if name in names]
        self.group_column = group_column or (known[0] if known else None)

    def batches(self, cut: Cut, left_out: LeftOut) -> Iterator[Batch]:
        columns = [self.text_column, self.label_column, *([self.group_column] if self.group_column else [])]
        for path in self.paths:
            file = _open(path)
            for column in columns:
                if column not in file.schema_arrow.names:
                    raise InputError(f"{path} has no column {column!r}; it has {joined(file.schema_arrow.names)}.")
            row = 0
            try:
                for batch in file.iter_batches(BATCH_ROWS, columns=list(dict.fromkeys(columns)), use_threads=False):
                    yield from self._batch(path, batch, row, left_out)
                    row += batch.num_rows
            except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
                raise InputError(f"{path} cannot be read: {error}") from error

    def _batch(self, path: str, batch: pa.RecordBatch, row: int, left_out: LeftOut) -> Iterator[Batch]:
        labels, text = batch[self.label_column], batch[self.text_column]
        if not (_is_text(text.type) or pa.types.is_binary(text.type)):
            raise InputError(f"{path}: the column {self.text_column!r} is of {text.type}, not text.")
        kind = labels.type.value_type if pa.types.is_dictionary(labels.type) else labels.type
        if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            raise InputError(
                f"{path}: the column {self.label_column!r} is of {kind}; labels are text, integers or true and false."
            )
        if labels.null_count:
            number = row + labels.is_valid().index(False).as_py() + 1
            raise InputError(
                f"{path}: row {number:,} has no label: {self.label_column!r} is null. Leave such rows out."
            )
        if text.null_count:
            left_out.counts["no text"] += text.null_count
        groups = [""] * batch.num_rows
        if self.group_column is not None:
            named = batch[self.group_column].cast(pa.string())
            groups = [f"named {one}" if one is not None else "" for one in named.to_pylist()]
        yield Batch(text.cast(pa.large_string()), labels.cast(pa.string()).to_pylist(), groups)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _matching(pattern: str) -> list[str]:
    found = sorted(glob.glob(pattern, recursive=True)) if glob.has_magic(pattern) else [pattern]
    found = [
        path
        for one in found
        for path in (
            sorted(glob.glob(f"{glob.escape(one)}/**/*.parquet", recursive=True)) if os.path.isdir(one) else [one]
        )
    ]
    if not found:
        raise InputError(f"No file matches {pattern}.")
    return found


def _open(path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no Parquet file that can be read: {error}") from error


def label_name(label: str) -> str:
    """The label, if fastText can take it; InputError else."""
    if not label or len(label) > 100 or any(character <= " " or character.isspace() for character in label):
        raise InputError(f"{label[:100]!r} can be no label: one has up to 100 characters and no white space.")
    return label


def examples(source: Folders | Tables, cut: Cut, left_out: LeftOut) -> Iterator[tuple[bytes, str, str]]:
    """(line, label, group) of every file that has a word; the group is the line's hash where the source knows none."""
    labels: set[str] = set()
    for batch in source.batches(cut, left_out):
        labels.update(map(label_name, set(batch.labels) - labels))
        if len(labels) > MOST_LABELS:
            raise InputError(
                f"There are more than {MOST_LABELS:,} labels: {joined(sorted(labels))}. Is it the right column?"
            )
        for line, label, group, there in zip(
            lines(batch.text, cut.tokens, cut.head_bytes),
            batch.labels,
            batch.groups,
            batch.text.is_valid().to_pylist(),
            strict=True,
        ):
            if line:
                yield line, label, group or hashlib.blake2b(line, digest_size=16).hexdigest()
            elif there:
                left_out.counts["no word"] += 1


def is_held_out(group: str, seed: int, share: float) -> bool:
    """On which side a group is."""
    return uniform(seed, "held out", group) < share


# ---------------------------------------------------------------- shuffled, each line once


_RECORD = struct.Struct(">24sQHBI")  # hashes of the line and of the group, label, side, length of the line


@dataclass
class Side:
    """One side of the split, written as fastText reads it: a label, then the line. `digest`: of labels and lines in order."""

    path: Path
    labels: Counter[str] = field(default_factory=Counter)
    groups: set[int] = field(default_factory=set)  # by a hash
    digest: str = ""


@dataclass(frozen=True)
class Split:
    trained: Side
    held_out: Side


def split(found: Iterator[tuple[bytes, str, str]], folder: Path, seed: int, share: float, left_out: LeftOut) -> Split:
    """Write both sides to `folder`, each in the order of a hash of its lines, each line once.

    Of a line that several files give the one of the first group stays; one that has two labels leaves.
    """
    names: dict[str, int] = {}
    with ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"{k:03d}", "wb")) for k in range(BUCKETS)]
        for line, label, group in found:
            key = draw(seed, line).to_bytes(8, "big") + hashlib.blake2b(line, digest_size=16).digest()
            side = is_held_out(group, seed, share)
            number = names.setdefault(label, len(names))
            files[key[0]].write(_RECORD.pack(key, draw(seed, group), number, side, len(line)) + line)
    labels = list(names)
    sides = (Side(folder / "trained.txt"), Side(folder / "held-out.txt"))
    with open(sides[0].path, "wb") as trained, open(sides[1].path, "wb") as held_out:
        digests = (hashlib.sha256(), hashlib.sha256())
        for k in range(BUCKETS):
            path = folder / f"{k:03d}"
            raw = path.read_bytes()
            path.unlink()
            for record, line in _once(_records(raw), labels, left_out):
                side, label = record[3], labels[record[2]]
                told = f"__label__{label} ".encode() + line + b"\n"
                (trained, held_out)[side].write(told)
                digests[side].update(told)
                sides[side].labels[label] += 1
                sides[side].groups.add(record[1])
    for written, digest in zip(sides, digests, strict=True):
        written.digest = digest.hexdigest()
    return Split(*sides)


def _records(raw: bytes) -> list[tuple[tuple[Any, ...], bytes]]:
    """What a bucket holds, sorted: by the line, then by group and label."""
    found, at = [], 0
    while at < len(raw):
        record = _RECORD.unpack_from(raw, at)
        at += _RECORD.size + record[4]
        found.append((record, raw[at - record[4] : at]))
    return sorted(found)


def _once(
    found: list[tuple[tuple[Any, ...], bytes]], labels: Sequence[str], left_out: LeftOut
) -> Iterator[tuple[tuple[Any, ...], bytes]]:
    first = 0
    while first < len(found):
        last = first + 1
        while last < len(found) and found[last][0][0] == found[first][0][0]:
            last += 1
        if len({record[2] for record, _ in found[first:last]}) > 1:
            left_out.counts["of two labels"] += last - first
        else:
            left_out.counts["copy"] += last - first - 1
            yield found[first]
        first = last


def read_side(path: Path) -> Iterator[tuple[str, bytes]]:
    """(label, line) of what `split` wrote."""
    with open(path, "rb") as file:
        yield from _read(file)


def _read(file: BinaryIO) -> Iterator[tuple[str, bytes]]:
    for raw in file:
        label, _, line = raw[:-1].partition(b" ")
        yield label.decode().removeprefix("__label__"), line
