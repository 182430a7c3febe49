"""Caps: of all files that a rule is about, only so many bytes stay, and a hash draws which.

What StarCoder2 capped (Lozhkov et al. 2024, section 4: 200 GB of Java, 100 GB of HTML, …) cannot be told from one file. So two
phases run first: each partition adds up the bytes of what its rules would keep, by the number that a file draws, in 16,384
steps; then one task finds the longest run of steps from 0 on that holds no more bytes than the cap. A file stays if it
draws less than that share. So the result depends on no order and no worker, differs from the cap by a step at most, and of a
larger cap keeps all that a smaller one does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from stackbuild.quality.rules import Rule

STEPS = 1 << 14
ALL = ""  # the group of a cap for all its files together

VOLUMES = pa.schema(
    [
        pa.field("rule", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("step", pa.int32(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
    ]
)
SHARES = pa.schema(
    [
        pa.field("rule", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("share", pa.float64(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("kept_bytes", pa.int64(), nullable=False),
    ]
)

_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgtp", 1):
    _UNITS |= {f"{_letter}b": 1000**_power, f"{_letter}ib": 1024**_power}
_SIZE = re.compile(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([a-z]*)\s*", re.ASCII | re.IGNORECASE)


def size_of(value: object) -> int:
    """Bytes of a size such as 8000000000, "8 GB" (decimal) or "8 GiB"; ValueError if it is none, or below 1."""
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif match and match[2].lower() in _UNITS:
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    else:
        raise ValueError(f'{value!r} is no size; write bytes, or as in "8 GB" and "512 MiB"')
    if size < 1:
        raise ValueError(f"{value!r} is no byte: no file would stay; drop them by another rule")
    return size


def overlapping(rules: Sequence[Rule]) -> tuple[Rule, Rule] | None:
    """Two caps that one file might fall under: then what the first leaves would have to be known for the second."""
    for one, other in combinations([rule for rule in rules if rule.keep_bytes is not None], 2):
        for key in ("languages", "extensions"):
            a, b = getattr(one, key), getattr(other, key)
            if a and b and not set(a) & set(b) and not any(name.endswith("*") for name in (*a, *b)):
                break
        else:
            return one, other
    return None


class Volumes:
    """Bytes by rule, group and step, added up over batches: 128 KB for each group that is met."""

    def __init__(self) -> None:
        self._bytes: dict[tuple[str, str], npt.NDArray[np.int64]] = {}

    def add(self, rule: str, groups: pa.Array, drawn: pa.Array, length: pa.Array) -> None:
        """Files of a rule: the group (string), what each drew ([0, 1), float64) and its bytes (int64), of length n."""
        codes = groups.dictionary_encode()
        steps = (np.asarray(drawn) * STEPS).astype(np.int64)
        lengths = np.asarray(pc.fill_null(length, 0)).astype(np.int64)
        for code, group in enumerate(codes.dictionary.to_pylist()):
            of_it = np.asarray(codes.indices) == code
            total = self._bytes.setdefault((rule, group), np.zeros(STEPS, np.int64))
            np.add.at(total, steps[of_it], lengths[of_it])

    def take(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Add what `batches` of others gave (VOLUMES)."""
        for batch in batches:
            names = pa.table(batch).group_by(["rule", "group"], use_threads=False).aggregate([]).to_pylist()
            for name in names:
                here = pc.and_(pc.equal(batch["rule"], name["rule"]), pc.equal(batch["group"], name["group"]))
                some = batch.filter(here)
                total = self._bytes.setdefault((name["rule"], name["group"]), np.zeros(STEPS, np.int64))
                np.add.at(total, np.asarray(some["step"]), np.asarray(some["bytes"]))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """What was added (VOLUMES), by rule, group and step."""
        for (rule, group), total in sorted(self._bytes.items()):
            steps = np.flatnonzero(total)
            named = [pa.repeat(name, len(steps)) for name in (rule, group)]
            yield pa.record_batch([*named, pa.array(steps, pa.int32()), pa.array(total[steps])], schema=VOLUMES)

    def shares(self, rules: Iterable[Rule]) -> pa.Table:
        """What stays of each group (SHARES)."""
        caps = {rule.id: rule.keep_bytes for rule in rules if rule.keep_bytes is not None}
        rows: list[dict[str, Any]] = []
        for (rule, group), total in sorted(self._bytes.items()):
            sums = np.cumsum(total)
            steps = int(np.searchsorted(sums, caps[rule], side="right"))
            kept = int(sums[steps - 1]) if steps else 0
            rows.append(
                {"rule": rule, "group": group, "share": steps / STEPS, "bytes": int(sums[-1]), "kept_bytes": kept}
            )
        return pa.Table.from_pylist(rows, SHARES)


@dataclass(frozen=True)
class Share:
    """What stays of a group: those that draw less than `share`; in bytes, of all and of those that stay."""

    share: float
    bytes: int
    kept_bytes: int


def shares_of(table: pa.Table) -> dict[str, dict[str, Share]]:
    """SHARES by rule and group."""
    found: dict[str, dict[str, Share]] = {}
    for row in table.to_pylist():
        found.setdefault(row["rule"], {})[row["group"]] = Share(row["share"], row["bytes"], row["kept_bytes"])
    return found
