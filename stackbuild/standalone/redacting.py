"""The tasks of redaction on anyone's rows: what is found in a unit, and a file written with something else in its places.

find        a unit  ->  spans: a row for each row of the unit, as the stage `pii` has them (private)
write_file  a file  ->  its rows, all columns but the text as they came

Two tasks, so that the units of a large file are searched side by side and still become one file.
"""

from __future__ import annotations

import gzip
import io
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError
from stackbuild.pii.options import PiiOptions
from stackbuild.pii.settling import UNSETTLED
from stackbuild.pii.stage import Pii, texts_with
from stackbuild.schema import SPANS
from stackbuild.standalone.inputs import InputUnit, schema_of
from stackbuild.standalone.texts import Piece, pieces, spliced, unchecked, with_text, without_dictionary

if TYPE_CHECKING:
    from stackbuild.task import Task

FOUND = pa.schema([pa.field("unit", pa.int32()), pa.field("row", pa.int64()), pa.field("pii_spans", SPANS)])
FOUND_ROWS = 4096  # of a row group of spans
OUTPUT_BYTES = 8 << 20  # of text in a row group of what is written
MOST_LANGUAGES = 1000  # of a unit that are counted by their names
OTHER = "(other)"


@dataclass(frozen=True)
class RedactOptions:
    """`text`, `language`: columns; files need not have the second. `pii`: as the recipe's table."""

    text: str
    language: str | None
    pii: PiiOptions


def find(task: Task) -> None:
    """Search a unit. Statistics: rows, bytes, rows in which something was found, and counts by language and entity."""
    unit, options = InputUnit(**task.params["unit"]), task.options
    stage, told = Pii(options.pii), Told()
    stage.load(task)
    with task.writer("spans", FOUND, group_by="unit", row_group_rows=FOUND_ROWS) as writer:
        for piece in pieces(unit, options.text, options.language):
            spans = stage.tags(texts_with(piece.texts, piece.languages))["pii_spans"]
            told.add(piece, spans)
            numbers = pa.array(piece.numbers, pa.int64())
            units = pa.nulls(len(numbers), pa.int32()).fill_null(unit.number)
            writer.write(pa.RecordBatch.from_arrays([units, numbers, spans], schema=FOUND))
    task.stats.update(told.stats())


class Told:
    """Counts over the rows of a unit."""

    def __init__(self) -> None:
        self.numbers: Counter[str] = Counter()
        self.counts: dict[str, Counter[str]] = {}

    def add(self, piece: Piece, spans: pa.Array) -> None:
        """Count a piece with its column of spans."""
        self.numbers["rows"] += len(piece.texts)
        self.numbers["bytes"] += pc.sum(pc.binary_length(piece.raw)).as_py() or 0
        self.numbers["not_utf8"] += piece.not_utf8
        values = spans.flatten()
        if not len(values):
            return
        parents = pc.list_parent_indices(spans)
        self.numbers["rows_redacted"] += len(pc.unique(parents))
        self.numbers["unsettled"] += int(pc.sum(pc.equal(values.field("rule"), UNSETTLED)).as_py() or 0)
        if piece.languages is None:
            languages = pa.nulls(len(values), pa.string())
        else:
            languages = piece.languages.take(parents)
        pairs = pa.table({"language": pc.fill_null(languages, ""), "entity": values.field("entity")})
        for row in pairs.group_by(["language", "entity"], use_threads=False).aggregate([([], "count_all")]).to_pylist():
            known = row["language"] in self.counts or len(self.counts) < MOST_LANGUAGES
            counts = self.counts.setdefault(row["language"] if known else OTHER, Counter())
            counts[row["entity"]] += row["count_all"]

    def stats(self) -> dict[str, Any]:
        """What the task tells."""
        names = ("rows", "bytes", "rows_redacted", "not_utf8", "unsettled")
        return {name: int(self.numbers[name]) for name in names} | {
            "counts": {language: dict(counts) for language, counts in self.counts.items()}
        }


class Found:
    """The spans of a unit, taken as many rows at a time as somebody has."""

    def __init__(self, batches: Iterator[pa.RecordBatch]):
        self._batches, self._waiting = batches, list[pa.Array]()

    def take(self, rows: int) -> pa.Array:
        """The next rows' spans."""
        while sum(map(len, self._waiting)) < rows:
            self._waiting.append(next(self._batches).column("pii_spans"))
        column = pa.concat_arrays(self._waiting) if self._waiting else pa.array([], SPANS)
        self._waiting = [column.slice(rows)] if len(column) > rows else []
        return column.slice(0, rows)


def write_file(task: Task) -> None:
    """Write the rows of a file, redacted."""
    units, options = [InputUnit(**one) for one in task.params["units"]], task.options
    stage = Pii(options.pii)

    def redacted() -> Iterator[tuple[Piece, pa.Array, pa.Array]]:
        for unit in units:
            found = Found(task.read("spans", None, unit.number, "unit"))
            for piece in pieces(unit, options.text, options.language, whole=True):
                spans = found.take(len(piece.texts))
                files = pa.RecordBatch.from_pydict({"text": unchecked(piece.raw), "pii_spans": spans})
                yield piece, spans, stage.text(files)

    if units[0].kind == "lines":
        suffix = next((end for end in (".gz", ".zst") if units[0].path.lower().endswith(end)), "")
        with writable(task.file("data", f".jsonl{suffix}"), suffix) as out:
            _write_lines(redacted(), units[0].path, options.text, out)
        return
    schema = without_dictionary(schema_of(units[0]), options.text)
    with task.writer("data", schema, heavy=options.text, row_group_bytes=OUTPUT_BYTES) as writer:
        for piece, spans, new in redacted():
            rows = piece.rows
            assert isinstance(rows, pa.RecordBatch)
            writer.write(with_text(rows, options.text, new if len(spans.flatten()) else unchecked(piece.raw)))


def _write_lines(
    redacted: Iterator[tuple[Piece, pa.Array, pa.Array]], path: str, text: str, out: io.RawIOBase | BinaryIO
) -> None:
    """Lines in which nothing was found as they came; of the others all but the value of the text."""
    expected = 0
    for piece, spans, new in redacted:
        changed = set(pc.unique(pc.list_parent_indices(spans)).to_pylist())
        values = pa.Array.from_buffers(pa.large_binary(), len(new), new.buffers(), new.null_count, new.offset)
        for place, (number, line) in enumerate(zip(piece.numbers, piece.rows, strict=True)):
            told = line
            if place in changed:
                try:
                    told = spliced(line, text, values[place].as_py())
                except ValueError as error:
                    raise InputError(f"{path}, line {number + 1}: {error}.") from error
            out.write(b"\n" * (number - expected) + told + b"\n")  # blank lines stay
            expected = number + 1


@contextmanager
def writable(path: Path, suffix: str) -> Iterator[Any]:
    """A file that is compressed as its suffix says, with nothing of a clock or a name in it."""
    with path.open("wb") as raw:
        if suffix == ".gz":
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as out:
                yield out
        elif suffix == ".zst":
            with pa.CompressedOutputStream(pa.PythonFile(raw), "zstd") as out:
                yield out
        else:
            yield raw


def spans_of(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The rows of FOUND as one row for each span: row, start, end, entity, rule, replacement."""
    column = batch.column("pii_spans")
    rows = batch.column("row").take(pc.list_parent_indices(column))
    values = column.flatten()
    names = [field.name for field in SPANS.value_type]
    return pa.RecordBatch.from_arrays([rows, *(values.field(name) for name in names)], ["row", *names])
