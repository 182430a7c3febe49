"""Training recipes: what is wrong with one is told with its place; the replications at full size, on the meta device."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from stackbuild.cli.train_recipe import load, names
from stackbuild.errors import RecipeError
from stackbuild.train.config import SIZES
from stackbuild.train.estimate import estimate
from stackbuild.train.flops import parameters
from stackbuild.train.model import Decoder
from stackbuild.train.recipe import shape
from stackbuild.train.schedule import learning_rate

TOKENS = {  # of the whole run: reference figures of the papers
    "santacoder-1b": 236e9,
    "starcoderbase-1b": 1.048576e12,
    "starcoderbase-3b": 1.048576e12,
    "starcoderbase-7b": 1.048576e12,
    "starcoderbase-15b": 1.048576e12,
    "starcoder-python": 35e9,
    "starcoder2-3b": 3.3e12,
    "starcoder2-7b": 3.7e12,
    "starcoder2-15b": 4.4e12,
}


def test_all_replications_are_there() -> None:
    assert set(names()) == {*TOKENS, "tiny"}


@pytest.mark.parametrize("name", sorted(TOKENS))
def test_a_replication_at_full_size(name: str) -> None:
    recipe = load(name)
    config = shape(recipe.model, None)
    assert recipe.model["size"] in SIZES
    model = Decoder(config, recipe.parallel.layout, "meta")
    assert (
        sum(one.numel() for one in model.parameters()) == parameters(config) == parameters(SIZES[recipe.model["size"]])
    )
    told = estimate(recipe, 49_152)
    assert told["tokens"] == pytest.approx(TOKENS[name], rel=0.03)
    assert told["unverified"] and told["deviations"]
    assert (recipe.optimizer.beta1, recipe.optimizer.beta2, recipe.optimizer.eps) == (0.9, 0.95, 1e-8)


@pytest.mark.parametrize(
    ("name", "peak", "end"),
    [
        ("starcoderbase-1b", 4e-4, 4e-5),
        ("starcoderbase-3b", 5e-4, 5e-5),
        ("starcoderbase-7b", 3e-4, 3e-5),
        ("starcoderbase-15b", 3e-4, 3e-5),
        ("starcoder-python", 5e-5, 5e-6),
        ("starcoder2-15b", 3e-4, 3e-5),
    ],
)
def test_rates_are_those_of_the_papers(name: str, peak: float, end: float) -> None:
    options = load(name).schedule
    assert options.steps is not None
    assert learning_rate(options, options.warmup) == pytest.approx(peak)
    assert learning_rate(options, options.steps - 1) == pytest.approx(end, rel=1e-3)


@pytest.mark.parametrize("name", sorted(TOKENS))
def test_the_forward_pass_of_each_stage_on_the_meta_device(name: str) -> None:
    recipe = load(name)
    config = shape(recipe.model, None)
    model = Decoder(config, recipe.parallel.layout, "meta")
    for _, _, data in recipe.stages():
        hidden = model(torch.zeros((1, data.sequence_length), dtype=torch.int64, device="meta"), None, model.mask())
        assert model.logits(hidden).shape == (1, data.sequence_length, config.vocab_size)


def test_every_problem_is_told_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(
        'name = "a b"\n[model]\nsize = "tiny"\n[data]\nbatch = 0\nsequence_lenght = 64\n[schedule]\npeak = "high"\n'
    )
    with pytest.raises(RecipeError) as error:
        load(str(tmp_path / "r.toml"))
    told = str(error.value)
    for text in ("name", "data.batch", "did you mean 'sequence_length'?", "schedule.peak", "r.toml:5"):
        assert text in told, told


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("model.size=starcoder3", "no size 'starcoder3'"),
        ("model.heads=5", "not a multiple"),
        ("data.sequence_length=4096", "longer than model.max_positions"),
        ("schedule.cooldown=400", "too few"),
        ("stage=[{first_step=9, data={batch=4}}, {first_step=9}]", "not behind"),
        ("averaging.window=7", "whole number of snapshots"),
        ("unknown=1", "unknown"),
    ],
)
def test_what_does_not_fit_is_refused(override: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        load("tiny", [override])


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"starcoder2-15b, .*tiny"):
        load("gpt5")
