"""Costs of a model: the figures of reference/trainer.md 1.2, and counts against the model itself."""

from __future__ import annotations

import pytest
import torch

from stackbuild.train.config import SIZES
from stackbuild.train.flops import flops, memory, parameters, peak, seen, utilisation
from stackbuild.train.loss import chunk_rows
from tests.train.test_config import PARAMETERS
from tests.train.worlds import new, row_of_tokens, tiny, tiny_bigcode


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters_are_counted_without_a_model(size):
    assert parameters(SIZES[size]) == PARAMETERS[size]


@pytest.mark.parametrize("config", [tiny(), tiny(bias=False, tied=False), tiny_bigcode(kv_heads=4)], ids=str)
def test_parameters_of_any_shape_are_counted(config):
    assert parameters(config) == sum(parameter.numel() for parameter in new(config).parameters())


@pytest.mark.parametrize(("length", "window"), [(1000, None), (1000, 100), (1000, 999), (100, 300)])
def test_tokens_seen_are_those_of_the_mask(length, window):
    place = torch.arange(length)
    distance = place[:, None] - place
    counted = float(((distance >= 0) & (distance < (window or length))).sum()) / length
    assert seen(length, window) == pytest.approx(counted, rel=0.01)


@pytest.mark.parametrize(
    ("size", "length", "windowed", "matrices", "attention"),
    [
        ("starcoder2-3b", 4096, True, 18.2, 2.3),
        ("starcoder2-7b", 4096, True, 43.0, 3.6),
        ("starcoder2-15b", 4096, True, None, 6.0),
        ("starcoder2-3b", 16_384, True, 18.2, 4.0),
        ("starcoder2-3b", 16_384, False, 18.2, 9.1),
        ("starcoder2-15b", 16_384, True, None, 10.6),
        ("starcoder2-15b", 16_384, False, None, 24.2),
        ("starcoderbase-15b", 8192, False, 93.0, 12.1),
    ],
)
def test_operations_of_a_token(size, length, windowed, matrices, attention):
    """In 10^9, to the digits that the table gives."""
    config = SIZES[size] if windowed else SIZES[size].model_copy(update={"window": None})
    found = flops(config, length)
    assert found.matrices == 6 * PARAMETERS[size]
    assert matrices is None or found.matrices / 1e9 == pytest.approx(matrices, abs=0.11)
    assert (found.total - found.matrices) / 1e9 == pytest.approx(attention, abs=0.05)


def test_share_of_the_peak():
    """StarCoder2-3B on an A100: 10,000 tokens a second are 58 %, with attention 66 %."""
    found = flops(SIZES["starcoder2-3b"], 4096)
    a100 = peak("NVIDIA A100-SXM4-80GB")
    assert a100 is not None
    assert round(utilisation(found.matrices, 10_000, a100), 2) == 0.58
    assert round(utilisation(found.total, 10_000, a100), 2) == 0.66


def test_peaks_go_by_the_name_of_the_device():
    assert (
        peak("NVIDIA H100 80GB HBM3") == 989e12 and peak("NVIDIA H100 PCIe") == 756e12 and peak("NVIDIA H200") == 989e12
    )
    assert peak("NVIDIA L40S") == 362e12 and peak("NVIDIA L4") == 121e12 and peak("cpu") is None
    assert peak("NVIDIA GeForce RTX 4090") == 165e12


@pytest.mark.parametrize(
    ("size", "gigabytes"), [("starcoder2-3b", 45), ("starcoder2-7b", 107), ("starcoder2-15b", 238)]
)
def test_memory_of_the_state(size, gigabytes):
    """16 bytes a parameter; the table's GB are 2^30 bytes."""
    assert memory(SIZES[size], 1, 4096, checkpoint_layers=True).state / 2**30 == pytest.approx(gigabytes, abs=0.5)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize(
    "config",
    [tiny(layers=6, hidden=64, ffn=256), tiny_bigcode(layers=6, hidden=64, residual_dropout=0.0)],
    ids=["starcoder2", "bigcode"],
)
def test_the_estimate_of_activations_is_near_what_is_kept(config, checkpointed):
    """Counted are the tensors that autograd keeps, each storage once, without parameters: fp32 on the CPU."""
    model = new(config, checkpoint_layers=checkpointed)
    own = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own and tensor.is_floating_point():
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = row_of_tokens(4, 64, config.vocab_size)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        hidden = model(tokens, None, model.mask())
    said = memory(config, 4, 64, checkpoint_layers=checkpointed, low=False)
    one_layer = 0
    if checkpointed:  # what is kept while one layer is computed again comes to it
        plain, two = (
            memory(config.model_copy(update={"layers": n}), 4, 64, checkpoint_layers=False, low=False) for n in (1, 2)
        )
        one_layer = two.activations - plain.activations
    assert said.activations - one_layer == pytest.approx(sum(kept.values()), rel=0.2)
    assert hidden.shape == (4, 64, 64)


def test_checkpointing_needs_less_and_logits_are_those_of_a_chunk():
    config = SIZES["starcoder2-3b"]
    rows = chunk_rows(config.vocab_size, "cuda")
    plain, saved = (
        memory(config, 2, 4096, checkpoint_layers=on, logits=rows * config.vocab_size) for on in (False, True)
    )
    assert saved.activations < plain.activations / 3 and saved.state == plain.state
    assert plain.logits < 2**30 and plain.total == plain.state + plain.activations + plain.logits
