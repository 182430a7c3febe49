"""Decisions and the ledger, kept together so that no file can leave one without the other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from stackbuild.counts import Ledger
from stackbuild.hashing import owner_bucket
from stackbuild.schema import DECISIONS
from stackbuild.shards import Attempt
from stackbuild.tables import conform

BUCKETED_DECISIONS = pa.schema([pa.field("owner_bucket", pa.uint16(), nullable=False), *DECISIONS])
FLUSH_ROWS = 250_000


class Decisions:
    """The files that left in one attempt, written in runs grouped by owner, and the attempt's ledger."""

    def __init__(self, attempt: Attempt, stage: str, partitions: int):
        self.attempt, self.stage, self.partitions = attempt, stage, partitions
        self.ledger = Ledger()
        self._tables: list[pa.Table] = []
        self._rows = 0

    def enter(self, rows: int, size: int) -> None:
        """Files that the stage was given, with their bytes."""
        self.ledger.rows_in += rows
        self.ledger.bytes_in += size

    def stay(self, rows: int, size: int) -> None:
        """Files that it passes on."""
        self.ledger.rows_out += rows
        self.ledger.bytes_out += size

    def add(self, columns: Mapping[str, pa.Array], outcome: str, sizes: npt.NDArray[np.int64]) -> None:
        """Files that left: columns of schema.DECISIONS (all but `stage` and `outcome`; `rule` an array or one word)."""
        rows = len(sizes)
        if not rows:
            return
        filled = {**columns, "stage": pa.repeat(self.stage, rows), "outcome": pa.repeat(outcome, rows)}
        if isinstance(filled["rule"], str):
            filled["rule"] = pa.repeat(filled["rule"], rows)
        table = pa.table(filled)
        grouped = (
            pa.table({"rule": table["rule"], "size": pa.array(sizes)})
            .group_by("rule")
            .aggregate([("size", "sum"), ("size", "count")])
        )
        for rule, size, count in zip(
            *(grouped[n].to_pylist() for n in ("rule", "size_sum", "size_count")), strict=True
        ):
            self.ledger.leave(outcome, rule, count, size)
        names = table["repo_name"].combine_chunks()
        if isinstance(names, pa.ChunkedArray):
            names = pa.concat_arrays(names.chunks)
        encoded = names.dictionary_encode()
        buckets = np.array([owner_bucket(name, self.partitions) for name in encoded.dictionary.to_pylist()], np.uint16)
        table = table.append_column("owner_bucket", pa.array(buckets[np.asarray(encoded.indices)]))
        self._tables.append(
            pa.Table.from_batches([conform(batch, BUCKETED_DECISIONS) for batch in table.combine_chunks().to_batches()])
        )
        self._rows += rows
        if self._rows >= FLUSH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._tables:
            table = pa.concat_tables(self._tables)
            order = pc.sort_indices(
                table,
                [
                    (name, "ascending")
                    for name in ("owner_bucket", "repo_name", "revision_id", "path_bytes", "content_id")
                ],
            )
            with self.attempt.writer("decisions", BUCKETED_DECISIONS, group_by="owner_bucket") as writer:
                writer.write(table.take(order))
        self._tables, self._rows = [], 0

    def close(self) -> None:
        """Write what is pending; called once before the attempt is committed."""
        self._flush()
