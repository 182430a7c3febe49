"""JSON lines in runs of bounded memory: each line an object, or a number and a reason.

The parser is the standard library's: pyarrow's JSON reader stops the process on a line that reads `null` and on deep
nesting, which a stranger may send.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

RUN_BYTES: Final = 16 * 1024 * 1024


@dataclass
class Run:
    """Lines that are read together. `values`: by our name; `numbers`: of lines; `bad`: (number, reason) of others."""

    values: dict[str, list[Any]]
    numbers: list[int] = field(default_factory=list)
    bad: list[tuple[int, str]] = field(default_factory=list)
    long: list[tuple[int, int]] = field(default_factory=list)  # (number, bytes)
    bytes: int = 0

    def arrays(self) -> dict[str, pa.Array]:
        """Columns: content and path as bytes, the others as text or integers as they come."""
        found = {}
        for name, values in self.values.items():
            kind = pa.large_binary() if name == "content" else pa.binary() if name == "path" else None
            found[name] = pa.array(values, kind)
        return found


def lines(chunks: Iterable[bytes], longest: int) -> Iterator[tuple[bytes | None, int]]:
    """(line, its bytes) of a stream; (None, bytes) for one longer than `longest`, which is passed over, not held."""
    rest, passed = bytearray(), 0
    for chunk in chunks:
        first, newline, after = chunk.partition(b"\n")
        if not passed:
            rest += first
        if passed or len(rest) > longest:
            passed += len(first) if passed else len(rest)
            rest.clear()
        if not newline:
            continue
        yield (None, passed) if passed else (bytes(rest), len(rest))
        rest.clear()
        passed = 0
        *whole, tail = after.split(b"\n")
        for line in whole:
            yield (None if len(line) > longest else line), len(line)
        rest += tail
    if passed or rest:
        yield (None, passed or len(rest)) if passed or len(rest) > longest else (bytes(rest), len(rest))


def runs(
    found: Iterable[tuple[bytes | None, int]], first: int, columns: Mapping[str, str], integers: frozenset[str]
) -> Iterator[Run]:
    """Parse lines into runs.

    `first`: number of the first line; `columns`: our name -> theirs; `integers`: ours that are numbers.
    """
    names = {ours: theirs.split(".") for ours, theirs in columns.items()}
    run = Run({name: [] for name in names})
    for number, (line, length) in enumerate(found, start=first):
        if line is None:
            run.long.append((number, length))
        elif line.strip():
            try:
                row = _row(json.loads(line), names, integers)
            except (ValueError, RecursionError) as error:
                run.bad.append((number, str(error)[:200]))
            else:
                run.numbers.append(number)
                for name, value in row.items():
                    run.values[name].append(value)
        run.bytes += length + 1
        if run.bytes >= RUN_BYTES:
            yield run
            run = Run({name: [] for name in names})
    yield run


def _row(found: Any, names: Mapping[str, list[str]], integers: frozenset[str]) -> dict[str, Any]:
    """Our columns of a parsed line; ValueError if one is not of its type."""
    if not isinstance(found, dict):
        raise ValueError("the line is not a JSON object")
    row: dict[str, Any] = {}
    for name, parts in names.items():
        value: Any = found
        for part in parts:
            value = value.get(part) if isinstance(value, dict) else None
        if name in integers:
            whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
            value = int(value) if whole else value
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63):
                raise ValueError(f"{'.'.join(parts)} is not an integer")
        elif value is not None and not isinstance(value, str):
            raise ValueError(f"{'.'.join(parts)} is not text")
        if isinstance(value, str):
            encoded = value.encode("utf-8")  # ValueError for half of a surrogate pair
            value = encoded if name in ("content", "path") else value
        row[name] = value
    return row
