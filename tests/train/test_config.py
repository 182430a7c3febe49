"""Shapes of models: the published ones are the published ones, and one that cannot be is refused by name."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from stackbuild.errors import UsageError
from stackbuild.train.config import SIZES, UNVERIFIED, ModelConfig
from stackbuild.train.hf_names import shapes, tensors
from stackbuild.train.layout import Layout
from stackbuild.train.model import Decoder
from tests.train.worlds import theirs, tiny, tiny_bigcode

PARAMETERS = {
    "starcoder2-3b": 3_030_371_328,
    "starcoder2-7b": 7_173_923_840,
    "starcoder2-15b": 15_957_889_024,
    "starcoderbase-1b": 1_137_207_296,
    "starcoderbase-3b": 3_043_311_104,
    "starcoderbase-7b": 7_327_263_232,
    "starcoderbase-15b": 15_517_456_384,
    "santacoder-1b": 1_124_886_528,
}


@pytest.mark.parametrize("size", PARAMETERS)
def test_a_published_size_has_the_published_parameters_and_the_shapes_of_transformers(size):
    config = SIZES[size]
    ours = {name: tuple(parameter.shape) for name, parameter in Decoder(config, device="meta").named_parameters()}
    assert sum(torch.Size(shape).numel() for shape in ours.values()) == PARAMETERS[size]
    assert shapes(config) == ours and list(shapes(config)) == list(ours)
    with torch.device("meta"):
        other = {name: tuple(parameter.shape) for name, parameter in theirs(config).named_parameters()}
    assert {tensor.name: tensor.shape for tensor in tensors(config)} == other
    assert sorted(name for tensor in tensors(config) for name in tensor.ours) == sorted(ours)


def test_fifteen_billion_with_a_tied_head_is_smaller_by_the_head():
    tied = SIZES["starcoder2-15b"].model_copy(update={"tied": True})
    assert sum(torch.Size(shape).numel() for shape in shapes(tied).values()) == 15_655_899_136


def test_published_values():
    """reference/trainer.md 3.3, one value of each row that is not a shape."""
    assert SIZES.keys() == PARAMETERS.keys() == UNVERIFIED.keys()
    assert [SIZES[f"starcoder2-{size}"].rope_theta for size in ("3b", "7b", "15b")] == [999_999.4420358813, 1e6, 1e5]
    assert [SIZES[f"starcoder2-{size}"].kv_heads for size in ("3b", "7b", "15b")] == [2, 4, 4]
    assert [SIZES[f"starcoder2-{size}"].init_std for size in ("3b", "7b", "15b")] == [0.018042, 0.018042, 0.01275]
    assert [SIZES[f"starcoderbase-{size}"].init_std for size in ("1b", "3b", "7b", "15b")] == [
        0.02209,
        0.01884,
        0.015625,
        0.01275,
    ]
    assert [SIZES[f"starcoderbase-{size}"].activation for size in ("1b", "15b")] == ["gelu_tanh", "gelu"]
    assert {config.head_dim for config in SIZES.values()} == {128}
    for name, config in SIZES.items():
        rates = {config.residual_dropout, config.embedding_dropout, config.attention_dropout}
        if name.startswith("starcoder2"):
            assert (config.window, config.max_positions, config.tied, rates) == (
                4096,
                16_384,
                name != "starcoder2-15b",
                {0.0},
            )
        else:
            assert (config.window, config.kv_heads, config.scaled_init, rates) == (None, 1, True, {0.1})
    assert SIZES["santacoder-1b"].vocab_size == 49_280 and SIZES["santacoder-1b"].max_positions == 2048


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hidden": 33}, "hidden = 33"),
        ({"kv_heads": 3}, "kv_heads = 3"),
        ({"rope_theta": None}, "rope_theta is missing"),
        ({"hidden": 36}, "odd"),
        ({"family": "gpt_bigcode"}, "rope_theta is given"),
        ({"family": "gpt_bigcode", "rope_theta": None}, "kv_heads = 2"),
        ({"family": "gpt_bigcode", "rope_theta": None, "kv_heads": 1, "window": 8}, "window is given"),
        ({"family": "gpt_bigcode", "rope_theta": None, "kv_heads": 1, "bias": False}, "bias = false"),
        ({"window": 0}, "window"),
        ({"rope_theta": float("inf")}, "rope_theta"),
        ({"residual_dropout": 1.0}, "residual_dropout"),
        ({"vocabulary": 5}, "vocabulary"),
    ],
)
def test_what_does_not_fit_is_named(changes, told):
    with pytest.raises(ValidationError, match=told):
        tiny(**changes)


def test_new_weights_are_as_wide_as_the_model_asks_unless_told():
    given = tiny().model_dump(exclude={"init_std"})
    assert ModelConfig(**given).init_std == pytest.approx(32**-0.5)
    assert tiny_bigcode(init_std=0.5).init_std == 0.5


def test_one_process_is_the_only_layout_yet():
    Layout.single().check()
    assert Layout(data=4, tensor=2).world == 8
    for layout in (Layout(data=2), Layout(pipeline=2), Layout(data=0), Layout(sequence=True)):
        with pytest.raises(UsageError, match=r"parallel"):
            layout.check()
    with pytest.raises(UsageError, match="tensor = 2"):
        Decoder(tiny(), Layout(tensor=2))
