"""The texts of a unit of anyone's rows: read as UTF-8 whatever they are, and put back into their rows.

Positions are bytes of a text as it came. A text that is no UTF-8 (bytes of another encoding, half of a surrogate pair in JSON)
is looked at with `?` for each byte that does not fit, so that what is found in it lies where it lies in the bytes.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.decoder import JSONDecoder, scanstring  # type: ignore[attr-defined]

import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.errors import InputError, UsageError
from stackbuild.standalone.columns import TEXTS
from stackbuild.standalone.inputs import InputUnit, buffered, read_lines, read_unit, schema_of

BLANKS = " \t\n\r"


@dataclass(frozen=True)
class Piece:
    """Some rows of a unit. `numbers`: of the rows in their file. `texts`: large_string (n,), UTF-8, as long as `raw`,
    large_binary (n,), what the rows hold. `languages`: string (n,) or None. `rows`: all columns, or the lines."""

    numbers: Sequence[int]
    texts: pa.LargeStringArray
    raw: pa.Array
    languages: pa.Array | None
    rows: pa.RecordBatch | list[bytes]

    @property
    def not_utf8(self) -> int:
        """How many of the texts are no UTF-8; they are copies then."""
        shared, own = self.texts.buffers()[2], self.raw.buffers()[2]
        if (
            shared is None
            or (own is not None and shared.address == own.address)
            or self.texts.cast(pa.large_binary()).equals(self.raw)
        ):
            return 0
        return int(pc.sum(pc.not_equal(self.texts.cast(pa.large_binary()), self.raw)).as_py() or 0)


def check_text(unit: InputUnit, column: str) -> None:
    """UsageError if a file lacks the column of text, has it twice, or it is of no text."""
    schema = schema_of(unit)
    if schema is None:
        return  # told with its line
    if schema.names.count(column) != 1:
        which = "two columns" if column in schema.names else "no column"
        raise UsageError(f"{unit.path} has {which} {column!r}; it has {', '.join(schema.names[:30])}. Name it: --text.")
    kind = schema.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not any(is_text(kind) for is_text in TEXTS):
        raise UsageError(f"{unit.path}: the column {column!r} is {kind}, not text.")


def pieces(unit: InputUnit, text: str, language: str | None, whole: bool = False) -> Iterator[Piece]:
    """The rows of a unit, some megabytes at a time; `whole`: with all columns. InputError for a line without text."""
    if unit.kind == "lines":
        for lines in buffered(read_lines(unit)):
            yield _of_lines(unit, lines, text, language)
        return
    schema = schema_of(unit)
    assert schema is not None
    spoken = language if language in schema.names and _is_words(schema.field(language).type) else None
    columns = None if whole else [name for name in (text, spoken) if name]
    for first, batch in read_unit(unit, columns):
        raw = _plain(batch.column(text)).cast(pa.large_binary())
        languages = _plain(batch.column(spoken)).cast(pa.string()) if spoken else None
        yield Piece(range(first, first + batch.num_rows), as_text(raw), raw, languages, batch)


def _is_words(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind))


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _of_lines(unit: InputUnit, lines: Sequence[tuple[int, bytes]], text: str, language: str | None) -> Piece:
    texts, languages = list[bytes | None](), list[str | None]()
    for number, line in lines:
        try:
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("it is not an object")
            if text not in row:
                raise ValueError(f"it has no {text!r}; it has {', '.join(map(str, list(row)[:30]))}. Name it: --text")
            value, spoken = row[text], row.get(language) if language else None
            if not isinstance(value, str | None):
                raise ValueError(f"{text!r} is not text")
        except (ValueError, RecursionError) as error:
            raise InputError(f"{unit.path}, line {number + 1}: {ascii(str(error))[1:-1][:300]}.") from error
        texts.append(None if value is None else value.encode("utf-8", "surrogatepass"))
        languages.append(spoken.encode("utf-8", "replace").decode() if isinstance(spoken, str) else None)
    raw = pa.array(texts, pa.large_binary())
    named = pa.array(languages, pa.string()) if language else None
    return Piece([number for number, _ in lines], as_text(raw), raw, named, [line for _, line in lines])


# ---------------------------------------------------------------- bytes and text


def _question_marks(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "?" * (error.end - error.start), error.end


codecs.register_error("stackbuild.same_length", _question_marks)


def as_text(raw: pa.Array) -> pa.LargeStringArray:
    """large_binary (n,) as large_string of the same lengths: with `?` for each byte that is no part of UTF-8."""
    try:
        return raw.cast(pa.large_string())
    except pa.ArrowInvalid:
        values = raw.to_pylist()  # by row, as the codec is Python's; only for a batch that has such bytes
        fixed = [v if v is None else v.decode("utf-8", "stackbuild.same_length").encode() for v in values]
        return pa.array(fixed, pa.large_binary()).cast(pa.large_string())


def unchecked(raw: pa.Array) -> pa.LargeStringArray:
    """large_binary (n,) as large_string over the same memory, though it may not be UTF-8: to be cut, not to be read."""
    return pa.Array.from_buffers(pa.large_string(), len(raw), raw.buffers(), raw.null_count, raw.offset)


def with_text(batch: pa.RecordBatch, column: str, new: pa.Array) -> pa.RecordBatch:
    """The batch with another column of text, in the column's own type; of a dictionary, of its values' type."""
    place = batch.schema.get_field_index(column)
    field = batch.schema.field(place)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    large = pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)
    raw = pa.Array.from_buffers(pa.large_binary(), len(new), new.buffers(), new.null_count, new.offset)
    if not large:
        raw = raw.cast(pa.binary())
    if pa.types.is_null(kind):
        raw = pa.nulls(len(new))
    elif not binary:
        raw = pa.Array.from_buffers(kind, len(raw), raw.buffers(), raw.null_count, raw.offset)
    return batch.set_column(place, field.with_type(kind), raw)


def without_dictionary(schema: pa.Schema, column: str) -> pa.Schema:
    """The schema of batches of `with_text`."""
    place = schema.get_field_index(column)
    field = schema.field(place)
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    return schema.set(place, field.with_type(kind))


# ---------------------------------------------------------------- a value in a line of JSON


def spliced(line: bytes, column: str, new: bytes) -> bytes:
    """A line of JSON with another value of one key; everything else in it stays as it is, byte for byte.

    ValueError if the key stands there twice. The line is known to be an object that has the key.
    """
    if line.startswith(codecs.BOM_UTF8):
        return codecs.BOM_UTF8 + spliced(line.removeprefix(codecs.BOM_UTF8), column, new)
    text = line.decode("utf-8", "surrogatepass")  # as json.loads reads it
    places, at = list[tuple[int, int]](), _behind(text, 0)
    decode = JSONDecoder().raw_decode
    at = _behind(text, at + 1)  # {
    while text[at] != "}":
        key, at = scanstring(text, at + 1, True)
        at = _behind(text, _behind(text, at) + 1)  # :
        _, end = decode(text, at)
        if key == column:
            places.append((at, end))
        at = _behind(text, end)
        if text[at] == ",":
            at = _behind(text, at + 1)
    if len(places) != 1:
        raise ValueError(f"it has {column!r} {len(places)} times")
    (start, end), value = places[0], new.decode("utf-8", "surrogatepass")
    token = json.dumps(value, ensure_ascii=text[start:end].isascii())
    try:
        told = token.encode()
    except UnicodeEncodeError:  # half of a surrogate pair beside letters that stood there plain
        told = json.dumps(value).encode()
    return text[:start].encode("utf-8", "surrogatepass") + told + text[end:].encode("utf-8", "surrogatepass")


def _behind(text: str, at: int) -> int:
    while text[at] in BLANKS:
        at += 1
    return at


def named_column(units: Sequence[InputUnit], wanted: Sequence[str]) -> str:
    """The first of `wanted` that the first file with one of them has, whose others then must have it; else the first of them."""
    for unit in units:
        names = _names_of(unit) if unit.part[0] == 0 else set()
        for name in wanted:
            if name in names:
                return name
    return wanted[0]


def _names_of(unit: InputUnit) -> set[str]:
    """The columns of a file; of lines, the first one's."""
    schema = schema_of(unit)
    if schema is not None:
        return set(schema.names)
    for _, line in read_lines(unit):
        try:
            return set(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            break  # told with its line when the unit is read
    return set()
