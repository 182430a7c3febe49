"""The stages of a training run: rows of one length and mixture after the other, without reading a document twice.

    run = StagedBatches([Stage(tokens="OUT/tokens", batch=512, data=DataConfig(sequence_length=4096)),
                         Stage(tokens="OUT/tokens", batch=128, data=DataConfig(sequence_length=16384), first_sample=10**6)], seed=0)
    rows = run.batch(first_sample=10**6, n=128)
    run.table                                       as it was given, with digests and where each source stood: for a checkpoint

Samples are numbered through all stages. A stage starts each source where the stage before left it: what was left of the
documents that were packed together is packed anew, in rows of its own length, and the rest of the epoch follows. So a batch is a
function of (stage table, seed, sample numbers).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import Field

from stackbuild.errors import InputError
from stackbuild.stage import Options
from stackbuild.tokens.batches import Batches, Piece, Rows
from stackbuild.tokens.data_config import DataConfig
from stackbuild.tokens.megatron_batches import MegatronBatches
from stackbuild.tokens.source_rows import BEGINNING, Start


def open_batches(
    folder: str | Path,
    config: DataConfig,
    seed: int,
    cache: str | Path | None = None,
    starts: Mapping[str, Start] | None = None,
) -> Batches | MegatronBatches:
    """The batches of a configuration, in the order that it names; arguments as of `Batches`."""
    if config.order == "megatron":
        return MegatronBatches.of(folder, config, seed)
    return Batches(folder, config, seed, cache, starts)


class Stood(Options):
    """Where a source stood when a stage began."""

    identity: str = Field(description="digest of its documents; a removal does not change it")
    epoch: int = Field(ge=0)
    document: int = Field(ge=0, description="place in the epoch's order of what comes next")
    left: str = Field(description="digest of what was left of the documents before")

    @classmethod
    def of(cls, identity: str, start: Start) -> Self:
        """What tells a start from any other."""
        left = hashlib.sha256(start.ranges.tobytes()).hexdigest()
        return cls(identity=identity, epoch=start.epoch, document=start.document, left=left)


class Stage(Options):
    """A stage. What is None is filled in by `StagedBatches.table`, and checked where it is given."""

    tokens: str = Field(description="folder of a build or of tokens")
    batch: int = Field(ge=1, description="samples of a step")
    data: DataConfig = DataConfig()
    first_sample: int = Field(0, ge=0, description="the first that is of this stage")
    anew: bool = Field(False, description="sources begin with their first document, whatever was read before")
    manifest: str | None = Field(None, description="SHA-256 of manifest.json; a removal changes it, and no batch moves")
    starts: dict[str, Stood] | None = Field(None, description="where each source stood")


class StagedBatches:
    """Batches of a run of several stages. `cache`: a folder in which the numbers of rows are kept.

    InputError: stages that do not begin one behind the other, at whole steps; a source whose documents are others than those
    that were read under its name; a table whose sources stood elsewhere. ValueError: samples of two stages at once.
    """

    def __init__(self, stages: Sequence[Stage], seed: int, cache: str | Path | None = None):
        self.seed = seed
        self._begin = [stage.first_sample for stage in stages]
        _check(stages)
        self._batches: list[Batches | MegatronBatches] = []
        self.table: list[Stage] = []
        starts: dict[str, tuple[str, Start]] = {}  # of all sources that were read so far, with their identity
        for number, stage in enumerate(stages):
            if number and not stage.anew:
                _same_order(stages[number - 1], stage)
            if number and isinstance(self._batches[-1], Batches):
                taken = stage.first_sample - self._begin[number - 1]
                starts |= self._after(self._batches[-1], taken, stages[number - 1])
            known = {} if stage.anew else {name: start for name, (_, start) in starts.items()}
            batches = open_batches(stage.tokens, stage.data, seed, cache, known)
            for name, identity in _identities(batches).items():
                if name in known and starts[name][0] != identity:
                    raise InputError(
                        f"{stage.tokens}: the source {name} holds other documents than those that were read before "
                        f"sample {stage.first_sample:,}, some of which it may hold too. Name it otherwise, or say `anew`."
                    )
            self._batches.append(batches)
            self.table.append(_filled(stage, batches))

    @staticmethod
    def _after(batches: Batches, samples: int, stage: Stage) -> dict[str, tuple[str, Start]]:
        total = batches.mixture.total
        if total is not None and samples > total:
            raise InputError(
                f"{stage.tokens}: the stage from sample {stage.first_sample:,} on has {total:,} samples, and the next begins "
                f"behind {samples:,}"
            )
        stood = batches.after(samples)
        return {source.name: (source.identity, stood[source.name]) for source in batches.sources}

    def stage(self, sample: int) -> int:
        """The number of the stage that a sample is of."""
        if sample < 0:
            raise ValueError(f"samples are numbered from 0; there is no sample {sample:,}")
        return bisect_right(self._begin, sample) - 1

    def sources(self, sample: int) -> list[str]:
        """The names of the sources of the stage that a sample is of, in the order of `Rows.source`."""
        return list(_identities(self._batches[self.stage(sample)]))

    def end(self, sample: int) -> int | None:
        """Behind the last sample of the stage that a sample is of: where the next begins, or its data ends; None if it never does."""
        number = self.stage(sample)
        batches = self._batches[number]
        total = batches.mixture.total if isinstance(batches, Batches) else batches.samples
        ends = [None if total is None else self._begin[number] + total, *self._begin[number + 1 : number + 2]]
        return min((end for end in ends if end is not None), default=None)

    def batch(self, first_sample: int, n: int) -> Rows:
        """Samples `first_sample` to `first_sample` + n - 1, all of one stage."""
        return self.explain(first_sample, n)[0]

    def explain(self, first_sample: int, n: int) -> tuple[Rows, list[list[Piece]]]:
        """As `batch`, with the pieces of each row."""
        number = self.stage(first_sample)
        end = self._begin[number + 1] if number + 1 < len(self._begin) else None
        if end is not None and first_sample + n > end:
            raise ValueError(
                f"samples {first_sample:,} to {first_sample + n - 1:,} are of two stages: one begins at {end:,}"
            )
        batches, first = self._batches[number], first_sample - self._begin[number]
        if isinstance(batches, MegatronBatches):  # its rows know no pieces
            return batches.batch(first, n), [[] for _ in range(n)]
        return batches.explain(first, n)


def _identities(batches: Batches | MegatronBatches) -> dict[str, str]:
    """The sources by name, in order, with the digest of their documents."""
    if isinstance(batches, MegatronBatches):
        return batches.identities
    return {source.name: source.identity for source in batches.sources}


def _same_order(before: Stage, stage: Stage) -> None:
    """InputError for a stage that would go on in a source of which Megatron's order tells no place."""
    if "megatron" in (before.data.order, stage.data.order):
        raise InputError(
            f'{stage.tokens}: the stage from sample {stage.first_sample:,} on, or the one before, has order = "megatron", which cannot '
            "tell what it has read of a source. Say `anew`: sources begin with their first document."
        )


def _check(stages: Sequence[Stage]) -> None:
    if not stages or stages[0].first_sample:
        raise InputError("the first of a run's stages begins with sample 0")
    for one, two in pairwise(stages):
        samples = two.first_sample - one.first_sample
        if samples <= 0 or samples % one.batch:
            raise InputError(
                f"a stage begins with sample {two.first_sample:,}: the one before begins with {one.first_sample:,} and takes "
                f"whole steps of {one.batch:,}"
            )


def _filled(stage: Stage, batches: Batches | MegatronBatches) -> Stage:
    """A stage with its digests; InputError where what it tells of its sources is not so."""
    digest = hashlib.sha256((batches.dataset.folder / "manifest.json").read_bytes()).hexdigest()
    if isinstance(batches, MegatronBatches):
        starts = {name: Stood.of(identity, BEGINNING) for name, identity in batches.identities.items()}
    else:
        starts = {source.name: Stood.of(source.identity, source.start) for source in batches.sources}
    if stage.starts is not None and stage.starts != starts:
        wrong = sorted(name for name in {*stage.starts, *starts} if stage.starts.get(name) != starts.get(name))
        raise InputError(
            f"{stage.tokens}: at sample {stage.first_sample:,} the table has {', '.join(wrong)} at another place than the "
            "stages before, or with other documents"
        )
    return stage.model_copy(update={"manifest": digest, "starts": starts})
