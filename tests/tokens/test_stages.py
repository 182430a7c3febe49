"""Stages: no token twice in an epoch, whoever asks, and a table that tells where each source stood."""

from __future__ import annotations

import collections
import json
from pathlib import Path

import pytest

from stackbuild.errors import InputError
from stackbuild.tokens.batches import Piece
from stackbuild.tokens.data_config import DataConfig, SourceConfig
from stackbuild.tokens.fim_options import FimOptions
from stackbuild.tokens.stages import Stage, StagedBatches


def config(length: int, rate: float = 0, window: int = 16) -> DataConfig:
    return DataConfig(sequence_length=length, fim=FimOptions(rate=rate), window=window)


def trunk_cooldown_context(corpus: Path, rate: float) -> list[Stage]:
    """A trunk; a cooldown with weights; four times the context, in windows of another size."""
    weighted = config(64, rate).model_copy(update={"source": (SourceConfig(name="code", weight=0.3),)})
    return [
        Stage(tokens=str(corpus), batch=4, data=config(64, rate)),
        Stage(tokens=str(corpus), batch=2, data=weighted, first_sample=52),
        Stage(tokens=str(corpus), batch=4, data=config(256, rate, window=24), first_sample=70),
    ]


def labels(told: list[list[Piece]]) -> collections.Counter[tuple[int, str, int, int]]:
    return collections.Counter(
        (piece.epoch, piece.prefix, piece.number, at)
        for row in told
        for piece in row
        for at in range(piece.low, piece.high)
    )


@pytest.mark.parametrize("rate", [0, 1])
def test_no_pair_is_read_twice_in_an_epoch_across_stages(corpus: Path, rate: float) -> None:
    run = StagedBatches(trunk_cooldown_context(corpus, rate), 3)
    source = run._batches[2].sources[0]
    rest = source.rows(0)
    read: collections.Counter[tuple[int, str, int, int]] = collections.Counter()
    for first, n in ((0, 52), (52, 18), (70, rest)):
        read += labels(run.explain(first, n)[1])
    assert set(read.values()) == {1} and {epoch for epoch, *_ in read} == {0}
    every = {
        (0, shard.shard.prefix, k, at)
        for shard in source.shards
        for k, size in enumerate(shard.tokens.sizes.tolist())
        for at in range(size - 1)
    }
    assert set(read) == every  # nor is one left out
    later = labels(run.explain(70 + rest, source.rows(1))[1])
    assert set(later.values()) == {1} and {epoch for epoch, *_ in later} == {1} and len(later) == len(every)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_and_any_resume_read_the_same(corpus: Path, tmp_path: Path, ranks: int) -> None:
    whole = StagedBatches(trunk_cooldown_context(corpus, 0.5), 3)
    table = [Stage.model_validate_json(stage.model_dump_json()) for stage in whole.table]
    again = [StagedBatches(table, 3, tmp_path) for _ in range(ranks)]
    assert again[0].table == whole.table
    for first, n in ((0, 52), (52, 18), (70, 8)):
        rows = whole.batch(first, n)
        for sample in reversed(range(first, first + n)):
            row = again[sample % ranks].batch(sample, 1)
            for name, array in row._asdict().items():
                assert array[0].tolist() == getattr(rows, name)[sample - first].tolist()


def test_a_table_that_does_not_fit_is_refused(corpus: Path, copied: Path) -> None:
    stages = trunk_cooldown_context(corpus, 0)
    with pytest.raises(InputError, match="whole steps of 4"):
        StagedBatches([stages[0], stages[1].model_copy(update={"first_sample": 51})], 3)
    with pytest.raises(InputError, match="begins with sample 0"):
        StagedBatches(stages[1:], 3)
    run = StagedBatches(stages, 3)
    with pytest.raises(ValueError, match="samples 50 to 53 are of two stages: one begins at 52"):
        run.batch(50, 4)
    moved = run.table[2].model_copy(update={"first_sample": 72})
    with pytest.raises(InputError, match="has code at another place"):
        StagedBatches([*run.table[:2], moved], 3)
    with pytest.raises(InputError, match="has code at another place"):
        StagedBatches(run.table, 4)
    once = stages[0].model_copy(
        update={"data": DataConfig(sequence_length=2048, source=(SourceConfig(name="code", epochs=0.5),))}
    )
    with pytest.raises(InputError, match=r"has [0-9]+ samples, and the next begins behind 52"):
        StagedBatches([once, stages[1]], 3)


@pytest.mark.parametrize(
    ("cap", "taken", "left"), [(1.5, 1.1, 0.4), (0.5, 0.02, 0.48), (1.0, 0.6, 0.4), (2.0, 0.3, 1.7)]
)
def test_what_a_cap_leaves_is_left_for_the_next_stage(corpus: Path, cap: float, taken: float, left: float) -> None:
    """In a window of all documents, as most corpora have it."""

    def stage(length: int, first: int) -> Stage:
        source = (SourceConfig(name="code", epochs=cap),)
        data = DataConfig(sequence_length=length, fim=FimOptions(rate=0), window=1 << 20, source=source)
        return Stage(tokens=str(corpus), batch=1, data=data, first_sample=first)

    rows = StagedBatches([stage(64, 0)], 3)._batches[0].sources[0].rows(0)
    run = StagedBatches([stage(64, 0), stage(128, int(taken * rows))], 3)
    total = run._batches[1].mixture.total
    assert abs(total / (rows / 2) - left) < 0.06
    run.batch(int(taken * rows), total)
    with pytest.raises(IndexError, match="exhausted"):
        run.batch(int(taken * rows) + total, 1)


def test_a_source_that_is_treated_otherwise_is_another(copied: Path) -> None:
    stages = [Stage(tokens=str(copied), batch=1, data=config(64))]
    table = StagedBatches(stages, 3).table
    told = json.loads((copied / "manifest.json").read_text())
    for source in told["sources"]:
        source["fim"] = not source["fim"]
    (copied / "manifest.json").write_text(json.dumps(told))
    with pytest.raises(InputError, match="at another place than the stages before, or with other documents"):
        StagedBatches(table, 3)
