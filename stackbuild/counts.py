"""The counts of a shard: how many files and bytes came, stayed and left, and that nobody is missing."""

from __future__ import annotations

from dataclasses import dataclass, field

from stackbuild.errors import InputError


@dataclass
class Ledger:
    """Counts that must add up: rows_in + expanded = rows_out + merged + dropped + quarantined, and so the bytes."""

    rows_in: int = 0
    expanded: int = 0
    rows_out: int = 0
    merged: int = 0
    dropped: int = 0
    quarantined: int = 0
    bytes_in: int = 0
    bytes_delta: int = 0  # by transforms, and by expansion
    bytes_out: int = 0
    bytes_merged: int = 0
    bytes_dropped: int = 0
    bytes_quarantined: int = 0
    rules: dict[str, dict[str, int]] = field(default_factory=dict)  # rule -> {rows, bytes}

    def leave(self, outcome: str, rule: str, rows: int, bytes_: int) -> None:
        """Count files that left by a rule; outcome is dropped, merged or quarantined."""
        setattr(self, outcome, getattr(self, outcome) + rows)
        setattr(self, f"bytes_{outcome}", getattr(self, f"bytes_{outcome}") + bytes_)
        entry = self.rules.setdefault(rule, {"rows": 0, "bytes": 0})
        entry["rows"] += rows
        entry["bytes"] += bytes_

    def check(self, where: str) -> None:
        """Raise InputError if the sums do not add up."""
        rows = self.rows_in + self.expanded - self.rows_out - self.merged - self.dropped - self.quarantined
        size = (
            self.bytes_in
            + self.bytes_delta
            - self.bytes_out
            - self.bytes_merged
            - self.bytes_dropped
            - self.bytes_quarantined
        )
        if rows or size:
            raise InputError(
                f"The ledger of {where} does not add up: {rows} rows and {size} bytes are unaccounted for."
            )

    def add(self, other: Ledger) -> None:
        """Add another shard's counts."""
        for name, value in vars(other).items():
            if name == "rules":
                for rule, counts in value.items():
                    entry = self.rules.setdefault(rule, {"rows": 0, "bytes": 0})
                    entry["rows"] += counts["rows"]
                    entry["bytes"] += counts["bytes"]
            else:
                setattr(self, name, getattr(self, name) + value)
