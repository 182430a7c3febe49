"""Labelled texts from files: JSON lines with spans under many names, and the published annotation layout.

Lines are objects with a text (`text`, `content`) and spans (`spans`, `entities`, `fragments`, `labels`, `pii`). A span is an
object with `start` and `end` or `position` [start, end] and a name (`entity`, `label`, `category`, `tag`, `type`,
`entity_type`), or a list [start, end, name]. The published layout (id, text, language, type, fragments [{category, position,
value}]) is one of these; as Parquet too. Where a span has a `value`, it must be what stands there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from stackbuild.errors import InputError
from stackbuild.pii.score import Document, Mark, Positions

TEXT_FIELDS: Final = ("text", "content")
SPAN_FIELDS: Final = ("spans", "entities", "fragments", "labels", "pii")
LABEL_FIELDS: Final = ("entity", "label", "category", "tag", "type", "entity_type")
LANGUAGE_FIELDS: Final = ("language", "lang")

# What others call our entities. A name that stands nowhere here is an entity of its own.
ALIASES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("E_MAIL", "EMAIL_ADDRESS", "MAIL"), "EMAIL"),
    **dict.fromkeys(("IP", "IPADDRESS", "IPV4", "IPV6", "IP_ADDR"), "IP_ADDRESS"),
    **dict.fromkeys(("SECRET", "TOKEN", "API_KEY", "APIKEY", "CREDENTIAL"), "KEY"),
    **dict.fromkeys(("PASSWD", "PASSPHRASE"), "PASSWORD"),
    **dict.fromkeys(("PERSON", "PERSON_NAME", "PER"), "NAME"),
    **dict.fromkeys(("USER_NAME", "USER", "LOGIN"), "USERNAME"),
}
NEVER_COUNTED: Final = frozenset({"AMBIGUOUS", "ID"})  # annotators disagreed; StarPII was trained without them
LICENSE, EXAMPLE = "_LICENSE", "_EXAMPLE"  # behind an entity's name: in a licence header; a made-up one


@dataclass(frozen=True)
class Reading:
    """How a file is read. `licenses`, `examples`: whether labels of these variants count; else they are ignored regions."""

    positions: Literal["characters", "bytes"] = "characters"
    licenses: bool = False
    examples: bool = False
    overlaps: bool = False

    def entity(self, label: str) -> tuple[str, bool]:
        """(our name of a label, whether it counts): EMAIL-LICENSE and EMAIL_LICENSE are EMAIL in a licence header."""
        name = label.strip().upper().replace("-", "_").replace(" ", "_")
        counts = name not in NEVER_COUNTED
        for suffix, counted in ((LICENSE, self.licenses), (EXAMPLE, self.examples)):
            if name.endswith(suffix) and name != suffix:
                name, counts = name.removesuffix(suffix), counts and counted
        return ALIASES.get(name, name), counts and name not in NEVER_COUNTED


def read_gold(path: Path, reading: Reading) -> Iterator[Document]:
    """The labelled texts of a file. InputError names file, line and field of what is not as it should be."""
    for where, row in rows(path):
        yield document(where, row, reading)


def read_predictions(path: Path, reading: Reading) -> dict[str, list[dict[str, Any]]]:
    """Rows of predictions by `id`, or by their number where they have none; the spans are read with their texts later."""
    found: dict[str, list[dict[str, Any]]] = {}
    for number, (where, row) in enumerate(rows(path)):
        name = name_of(row, number)
        if name in found:
            raise InputError(f"{where}: the id {ascii(name)[:80]} stands in an earlier line too.")
        found[name] = [{"where": where, **row}]
    return found


def name_of(row: Mapping[str, Any], number: int) -> str:
    """What predictions and labelled texts are joined by."""
    return f"line {number + 1}" if row.get("id") is None else f"id {row['id']}"


def predicted_marks(row: dict[str, Any], of: Document, reading: Reading) -> list[Mark]:
    """The spans of a row of predictions on a text; of labels that never count, none."""
    where = row["where"]
    found = Spans(where, of.text, replace(reading, licenses=True, examples=True))
    return [mark for span, name in spans_of(where, row) for mark in found.read(span, name) if found.counts]


def document(where: str, row: Mapping[str, Any], reading: Reading) -> Document:
    """A row as a labelled text."""
    text = next((row[name] for name in TEXT_FIELDS if isinstance(row.get(name), str)), None)
    if text is None:
        raise InputError(f"{where}: no text under {' or '.join(TEXT_FIELDS)}; there are {_names(row)}.")
    marks, ignored = list[Mark](), list[Mark]()
    reader = Spans(where, text, reading)
    for span, name in spans_of(where, row):
        for mark in reader.read(span, name):
            (marks if reader.counts else ignored).append(mark)
    if not reading.overlaps:
        for one, other in pairwise(sorted(marks)):
            if other.start < one.end:
                raise InputError(
                    f"{where}: labels overlap, {one.entity} at {one.start} to {one.end} and {other.entity} at "
                    f"{other.start} to {other.end}; --allow-overlaps takes them as they are."
                )
    language = next((row[name] for name in LANGUAGE_FIELDS if isinstance(row.get(name), str)), None)
    return Document(where, None if row.get("id") is None else str(row["id"]), text, marks, ignored, language)


def spans_of(where: str, row: Mapping[str, Any]) -> Iterator[tuple[Any, str]]:
    """The spans of a row, each with the name of its field; lists may stand as JSON in a text."""
    for field in SPAN_FIELDS:
        value = row.get(field)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{where}, {field}: it is text, and no JSON.") from error
        if isinstance(value, list):
            for number, span in enumerate(value):
                yield span, f"{field}[{number}]"
            return
    raise InputError(f"{where}: no list of spans under {', '.join(SPAN_FIELDS)}; there are {_names(row)}.")


class Spans:
    """Reads the spans of one text; `counts`: whether the last one read does."""

    def __init__(self, where: str, text: str, reading: Reading):
        self.where, self.text, self.reading, self.counts = where, text, reading, True
        self._positions = Positions(text) if reading.positions == "bytes" else None

    def read(self, span: Any, name: str) -> Iterator[Mark]:
        """The mark of a span (one). InputError names the field."""
        start, end, label, value = self._fields(span, name)
        if not isinstance(label, str) or not label.strip():
            raise InputError(f"{self.where}, {name}: no name under {', '.join(LABEL_FIELDS)}.")
        for place in (start, end):
            if not isinstance(place, int) or isinstance(place, bool):
                raise InputError(f"{self.where}, {name}: positions are whole numbers, not {ascii(place)[:40]}.")
        if self._positions is not None:
            try:
                start, end = self._positions.character(start), self._positions.character(end)
            except ValueError as error:
                raise InputError(f"{self.where}, {name}: {error}.") from error
        if not 0 <= start < end <= len(self.text):
            raise InputError(
                f"{self.where}, {name}: {start} to {end} is no part of a text of {len(self.text):,} {self.reading.positions}."
            )
        if isinstance(value, str) and value != self.text[start:end]:
            raise InputError(
                f"{self.where}, {name}.value: it is not what stands at {start} to {end}; are positions "
                f"{'characters' if self.reading.positions == 'bytes' else 'bytes'}?"
            )
        entity, self.counts = self.reading.entity(label)
        yield Mark(start, end, entity)

    def _fields(self, span: Any, name: str) -> tuple[Any, Any, Any, Any]:
        if isinstance(span, Sequence) and not isinstance(span, str) and len(span) >= 3:
            return span[0], span[1], span[2], None
        if not isinstance(span, Mapping):
            raise InputError(f"{self.where}, {name}: a span is an object or a list [start, end, name].")
        start, end = span.get("start"), span.get("end")
        position = span.get("position")
        if start is None and isinstance(position, str):
            try:
                position = json.loads(position)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{self.where}, {name}.position: it is no list [start, end].") from error
        if start is None:
            if not isinstance(position, Sequence) or len(position) != 2:
                raise InputError(f"{self.where}, {name}: neither start and end nor position [start, end].")
            start, end = position
        label = next((span[field] for field in LABEL_FIELDS if isinstance(span.get(field), str)), None)
        return start, end, label, span.get("value")


# ---------------------------------------------------------------- files


def rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where it stands, row) of a file of JSON lines or Parquet."""
    if not path.is_file():
        raise InputError(f"{path} is no file." if path.exists() else f"{path} is not there.")
    if path.suffix.lower() == ".parquet":
        try:
            with pq.ParquetFile(path) as file:
                number = 0
                for batch in file.iter_batches(64):
                    for row in batch.to_pylist():
                        number += 1
                        yield f"{path}, row {number}", row
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is not a whole Parquet file ({error}).") from error
        return
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"{path}, line {number}: no JSON ({ascii(str(error))[1:-1][:120]}).") from error
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: it is not an object.")
            yield f"{path}, line {number}", row


def _names(row: Mapping[str, Any]) -> str:
    return ascii(", ".join(map(str, list(row)[:20])))[1:-1] or "no fields"
