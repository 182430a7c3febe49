"""What a stage is.

A stage takes the files that are still in and says two things of them: tags (columns that it measured) and verdicts (who
leaves, by which rule, value and threshold). It never edits a file and never sees more than a batch of a partition. What
cannot be told from one file alone (copies, near-duplicates, inheritance) is prepared by phases that run before it.

A stage is a datatrove `PipelineStep` whose stream is `pyarrow.RecordBatch`, so that it also runs in a plain datatrove
pipeline: `run(batches)` yields the rows that stay, with the added columns.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datatrove.pipeline.base import PipelineStep
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from stackbuild.task import Task

Space = Literal["occurrence", "file"]


class Options(BaseModel):
    """Options of a stage: the recipe's table of its name, validated; unknown keys are refused."""

    # Options that may name a file: where it lies does not count, what it says must be in `Stage.key`.
    files: ClassVar[tuple[str, ...]] = ()
    model_config = ConfigDict(extra="forbid", frozen=True)


OptionsT = TypeVar("OptionsT", bound=Options)


@dataclass(frozen=True)
class Verdict:
    """One rule's answer for a batch of n files.

    `keep`: boolean array of n, null counts as keep. `value`: what was measured, numbers of length n or None.
    `detail`: words of length n, for verdicts that no number tells. `kept_content_id`: binary(20) of length n, for copies.
    """

    rule: str
    keep: pa.Array
    value: pa.Array | None = None
    threshold: float | None = None
    detail: pa.Array | None = None
    kept_content_id: pa.Array | None = None


@dataclass(frozen=True)
class Phase:
    """Work that a stage needs done over many files before its rows can be judged.

    `run(task)` does one task of it. `tasks` says how many there are: "partition" (task k reads partition k of the stage's
    rows through `task.batches`), "contents" (task k reads contents partition k through `task.contents`), "buckets" (as many
    as there are partitions, each reading its bucket of the tables), "one", or a function of the outputs so far to a list
    of JSON parameters, one for each task.
    `reads` names the tables that it wants, all shards of each: of earlier phases of this stage, or of an earlier stage as
    `stage.table`. `columns` are the columns of the stage's rows that it wants (only for tasks = "partition").
    `removes`: the phase removes rows itself and keeps the ledger of its stage. `preload`: "module:function" to be called once
    in the task server before its tasks are forked (a large index that the children share; never enry, which cannot fork).
    `parts`: its output over a partition of rows or contents is what its outputs over runs of that partition are one behind the
    other, so that it is run for each planned part by itself (`parts.py`); `task.first` says where a part begins.
    `key`: gives what else than the stage's own options and data its output depends on, asked when a task's key is told.
    """

    name: str
    run: Callable[[Task], None]
    tasks: Literal["partition", "contents", "buckets", "one"] | Callable[[PhaseOutputs], Sequence[dict[str, Any]]] = (
        "partition"
    )
    reads: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    removes: bool = False
    preload: tuple[str, ...] = ()
    parts: bool = False
    key: Callable[[], Mapping[str, Any]] = dict


class PhaseOutputs:
    """What a planning function may look at: the committed files of the tables that its phase reads, in shard order."""

    def __init__(self, files: Mapping[str, Sequence[str]], partitions: int, seed: int):
        self.files, self.partitions, self.seed = files, partitions, seed


class Stage(PipelineStep, Generic[OptionsT]):  # type: ignore[misc]  # datatrove has no types
    """Base of all stages; subclass it as `class LongLines(Stage[LongLineOptions])`.

    `name`: as in a recipe. `version`: raised when the same input gives other output for a reason that the code's digest
    does not show. `space`: which rows it can judge. `reads`: columns that it needs (`text` is the decoded text so far,
    `content` the raw bytes). `adds`: columns that it writes. `private`: those of `adds` that never leave the build.
    `engines`: installed distributions whose version is part of the output's identity.
    `rewrites_text`: it gives a new `text`. `private_decisions`: what it removed is told in counts only. `makes_files`: its rows are
    occurrences, those behind it files.
    """

    name: ClassVar[str]
    type = "stackbuild"
    version: ClassVar[str] = "1"
    space: ClassVar[tuple[Space, ...]] = ("file",)
    reads: ClassVar[tuple[str, ...]] = ()
    adds: ClassVar[tuple[pa.Field, ...]] = ()
    private: ClassVar[frozenset[str]] = frozenset()
    engines: ClassVar[tuple[str, ...]] = ()
    rewrites_text: ClassVar[bool] = False
    private_decisions: ClassVar[bool] = False
    makes_files: ClassVar[bool] = False
    options_model: ClassVar[builtins.type[Options]] = Options  # `type` is datatrove's attribute here

    def __init__(self, options: OptionsT | None = None):
        super().__init__()
        self.options: OptionsT = options if options is not None else self.options_model()  # type: ignore[assignment]

    def placed(self, instance: str, before: Sequence[Stage[Any]], behind: Sequence[Stage[Any]]) -> None:
        """Learn its place, before anything else is asked of it: its name in the recipe, and the stages before it (which have
        learned theirs) and behind it.
        """

    # ---- what a stage may say of itself

    def needs(self) -> tuple[str, ...]:
        """Columns that these options make it read; `reads` unless overridden."""
        return self.reads

    def phases(self) -> Sequence[Phase]:
        """Phases to run, in order, before rows are judged."""
        return ()

    def key(self) -> Mapping[str, Any]:
        """What else, beside the options, determines the output: digests of data files that the options name."""
        return {}

    def conceals(self, rows: pa.RecordBatch) -> pa.Array | None:
        """For a stage with `private_decisions`: which of n rows (bool, n) nothing that is released may name, whatever
        stage removed them. Columns: schema.ORIGIN_FIELDS and content_id, null where unknown. None: it cannot tell."""
        return None

    @property
    def merge_reads(self) -> tuple[str, ...]:
        """Tables of its phases that `merge_copies` wants (a column "bucket" says the partition of contents)."""
        return ()

    def license_rank(self, copies: pa.Table) -> pa.Array | None:
        """For a stage over occurrences: how good the licence of each of n copies is, 0 the best, nulls last (int8, n); None if it
        is their class that says so.
        """
        return None

    def merge_copies(self, task: Task, copies: pa.Table, starts: npt.NDArray[np.int64]) -> Mapping[str, pa.Array]:
        """For a stage over occurrences: those of its columns that a file has not simply from the copy which is kept, each of
        length n, given all copies of n contents. `copies`: those of one content together, the one that is kept first;
        `starts`: where each content begins, int64 (n,).
        """
        return {}

    def warm(self) -> None:
        """Compile kernels and load tables once in the task server, so that its children share them (never enry)."""

    # ---- work on rows

    def load(self, task: Task) -> None:
        """Open what `tags` and `verdicts` need, once per task; tables of phases by `task.table(name)`."""

    def tags(self, files: pa.RecordBatch) -> Mapping[str, pa.Array]:
        """Return the columns of `adds` for a batch of n files, each of length n."""
        return {}

    def verdicts(self, files: pa.RecordBatch) -> Iterable[Verdict]:
        """Yield a verdict for each rule; `files` has the columns of `tags` too. A file leaves by the first rule that drops it."""
        return ()

    def text(self, files: pa.RecordBatch) -> pa.Array:
        """For a stage with `rewrites_text`: the new `text` (large_string, length n) from the old columns and its own tags."""
        raise TypeError(f"{self.name} does not rewrite text")

    # ---- alone, in a datatrove pipeline

    def run(self, data: Iterable[pa.RecordBatch], rank: int = 0, world_size: int = 1) -> Iterator[pa.RecordBatch]:
        """Yield what stays of each batch, with the added columns."""
        for batch in data:
            tagged = with_columns(batch, self.tags(batch))
            keep, _ = judge(self.verdicts(tagged), tagged.num_rows)
            if self.rewrites_text:
                tagged = with_columns(tagged, {"text": self.text(tagged)})
            yield tagged.filter(keep)


@dataclass(frozen=True)
class Left:
    """The files that one rule removed from a batch: their row numbers (int64) and its verdict."""

    rows: pa.Array
    verdict: Verdict


def judge(verdicts: Iterable[Verdict], rows: int) -> tuple[pa.Array, list[Left]]:
    """Fold verdicts over a batch: (keep mask of length rows, who left by which rule first, in rule order)."""
    keep = pa.array([True]).take(pa.array([0] * rows, pa.int32())) if rows else pa.array([], pa.bool_())
    left: list[Left] = []
    for verdict in verdicts:
        if len(verdict.keep) != rows:
            raise ValueError(f"rule {verdict.rule} answered for {len(verdict.keep)} of {rows} files")
        stays = pc.fill_null(verdict.keep, True)
        gone = pc.and_(keep, pc.invert(stays))
        keep = pc.and_(keep, stays)
        rows_gone = pc.indices_nonzero(gone)
        if len(rows_gone):
            left.append(Left(rows_gone.cast(pa.int64()), verdict))
    return keep, left


def with_columns(batch: pa.RecordBatch, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """The batch with columns added or replaced, in a stable order."""
    names, arrays = list(batch.schema.names), list(batch.columns)
    for name, array in columns.items():
        whole = array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
        if name in names:
            arrays[names.index(name)] = whole
        else:
            names.append(name)
            arrays.append(whole)
    return pa.RecordBatch.from_arrays(arrays, names=names)
