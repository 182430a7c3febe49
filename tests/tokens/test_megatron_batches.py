"""Batches in Megatron's order: the stream cut at every S, by its index arrays; a row is a function of its number."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError
from rich.console import Console

from stackbuild.errors import InputError
from stackbuild.tokens.batches import IGNORED, Batches
from stackbuild.tokens.blend import greedy
from stackbuild.tokens.count_rows import count_rows
from stackbuild.tokens.data_config import DataConfig
from stackbuild.tokens.dataset import TokensDataset
from stackbuild.tokens.fim_compat import Rates
from stackbuild.tokens.megatron_batches import MegatronBatches
from stackbuild.tokens.megatron_order import megatron_order
from stackbuild.tokens.removed import Removed
from stackbuild.tokens.show_sample import show_sample
from stackbuild.tokens.stages import Stage, StagedBatches, open_batches

S, SAMPLES = 100, 90


def stream(corpus: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """All documents, in the order of shards, and their sizes."""
    dataset = TokensDataset(corpus)
    texts = [
        dataset.read(shard, number).tokens.astype(np.int64)
        for shard in dataset.shards("code", "train")
        for number in range(len(shard.tokens))
    ]
    return texts, np.array([len(text) for text in texts])


def test_rows_are_the_stream_of_shuffled_documents_cut_at_every_s(corpus: Path) -> None:
    texts, sizes = stream(corpus)
    rows = MegatronBatches(corpus, {"code": 1.0}, S, SAMPLES, 7).batch(0, SAMPLES)
    order = megatron_order(sizes, 0, S, SAMPLES, 7)
    whole = np.concatenate([texts[document] for document in order.doc_idx])
    for row in range(SAMPLES):
        begin = int(order.shuffle_idx[row]) * S
        assert rows.tokens[row].tolist() == whole[begin : begin + S].tolist()
        assert rows.labels[row].tolist() == whole[begin + 1 : begin + S + 1].tolist()
    assert (rows.positions == np.arange(S)).all() and not rows.document.any()


def test_sources_are_mixed_by_the_greedy_rule(corpus: Path) -> None:
    one = MegatronBatches(corpus, {"code": 3.0}, S, SAMPLES, 7)
    assert one.batch(0, SAMPLES).source.tolist() == [[0] * S] * SAMPLES
    assert greedy([3.0], SAMPLES)[1].tolist() == list(range(SAMPLES))
    with pytest.raises(InputError, match="no source 'web'"):
        MegatronBatches(corpus, {"code": 1.0, "web": 1.0}, S, SAMPLES, 7)
    with pytest.raises(IndexError, match="has no samples 89 to 90"):
        one.batch(89, 2)


def test_a_treated_row_does_not_depend_on_the_rows_before(corpus: Path) -> None:
    plain = MegatronBatches(corpus, {"code": 1.0}, S, SAMPLES, 7).batch(0, SAMPLES)
    treated = MegatronBatches(corpus, {"code": 1.0}, S, SAMPLES, 7, Rates())
    rows = treated.batch(0, SAMPLES)
    for row in reversed(range(SAMPLES)):
        assert treated.batch(row, 1).tokens[0].tolist() == rows.tokens[row].tolist()
    prefix = treated.dataset.manifest.sentinels["<fim_prefix>"]
    share = (rows.tokens == prefix).any(axis=1).mean()
    assert 0.3 < share < 1 and not (plain.tokens == prefix).any()
    never = MegatronBatches(corpus, {"code": 1.0}, S, SAMPLES, 7, Rates(fim=0)).batch(0, SAMPLES)
    assert never.tokens.tolist() == plain.tokens.tolist()


def test_what_was_removed_is_no_label_and_its_rows_are_not_treated(copied: Path) -> None:
    before = MegatronBatches(copied, {"code": 1.0}, S, SAMPLES, 7).batch(0, SAMPLES)
    shard = max(TokensDataset(copied).shards("code", "train"), key=lambda one: int(one.tokens.sizes.max()))
    number = int(shard.tokens.sizes.argmax())
    Removed().adding([(shard.shard, np.array([[number, 0, int(shard.tokens.sizes[number])]]))]).save(copied)
    after = MegatronBatches(copied, {"code": 1.0}, S, SAMPLES, 7).batch(0, SAMPLES)
    gone = after.labels == IGNORED
    assert gone.any() and (after.labels[~gone] == before.labels[~gone]).all()
    treated = MegatronBatches(copied, {"code": 1.0}, S, SAMPLES, 7, Rates(fim=1.0)).batch(0, SAMPLES)
    rows = gone.any(axis=1)
    assert treated.tokens[rows].tolist() == after.tokens[rows].tolist()


# ---------------------------------------------------------------- by configuration

MEGATRON = {"order": "megatron", "packing": "concatenation", "sequence_length": S, "samples": SAMPLES}


def test_a_configuration_gives_the_same_rows(corpus: Path) -> None:
    config = DataConfig.model_validate(MEGATRON | {"fim": {"rate": 0.9, "fragment_rate": 0.4, "spm_rate": 0.3}})
    found = open_batches(corpus, config, 7).batch(0, SAMPLES)
    expected = MegatronBatches(corpus, {"code": 1.0}, S, SAMPLES, 7, Rates(0.9, 0.4, 0.3)).batch(0, SAMPLES)
    for one, other in zip(found, expected, strict=True):
        assert (one == other).all()
    plain = open_batches(corpus, DataConfig.model_validate(MEGATRON | {"fim": {"rate": 0.0}}), 7).batch(0, SAMPLES)
    assert (plain.tokens != found.tokens).any()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"samples": None}, "for the rows of the whole run"),
        ({"packing": "best-fit"}, "runs documents together"),
        ({"fim": {"mode": "ast"}}, "cuts between characters"),
        ({"source": [{"name": "code", "epochs": 1.0}]}, "neither `epochs` nor `fim`"),
        ({"order": "shuffled"}, "has to know them beforehand"),
    ],
)
def test_what_that_order_does_not_have_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DataConfig.model_validate(MEGATRON | change)


def test_stages_change_the_order_anew(corpus: Path) -> None:
    megatron = DataConfig.model_validate(MEGATRON)
    first = Stage(tokens=str(corpus), batch=6, data=megatron)
    then = Stage(tokens=str(corpus), batch=4, data=DataConfig(sequence_length=64), first_sample=60)
    with pytest.raises(InputError, match="Say `anew`"):
        StagedBatches([first, then], 7)
    run = StagedBatches([first, then.model_copy(update={"anew": True})], 7)
    assert (run.batch(54, 6).tokens == open_batches(corpus, megatron, 7).batch(54, 6).tokens).all()
    assert (run.batch(60, 4).tokens == Batches(corpus, then.data, 7).batch(0, 4).tokens).all()
    assert run.end(0) == 60 and run.sources(0) == run.sources(60) == ["code"]
    again = StagedBatches(run.table, 7)  # the table of a checkpoint
    assert again.table == run.table
    assert StagedBatches([first], 7).end(0) == SAMPLES


def test_a_row_of_it_is_shown(corpus: Path) -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(show_sample(open_batches(corpus, DataConfig.model_validate(MEGATRON), 7), 3))
    text = console.export_text()
    assert "in Megatron's order" in text and "100 tokens, 100 labels" in text
    with pytest.raises(InputError, match="no windows to count"):
        count_rows(corpus, DataConfig.model_validate(MEGATRON), 7, corpus)
