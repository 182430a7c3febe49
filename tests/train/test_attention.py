"""One mask, three kernels, the same numbers; and what each token may see, by a loop over pairs."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stackbuild.errors import UsageError
from stackbuild.train import attention
from stackbuild.train.attention import Mask, attend, choose, prepare
from stackbuild.train.dropout import WEIGHTS, Site, draws

CPU = torch.device("cpu")


def packed(rows: int, keys: int, seed: int) -> torch.Tensor:
    """Documents side by side, some rows with padding behind: int32 (rows, keys)."""
    chance = random.Random(seed)
    documents = torch.empty((rows, keys), dtype=torch.int32)
    for row in documents:
        end = chance.choice([keys, chance.randint(0, keys)])
        starts = sorted(chance.sample(range(keys), chance.randint(0, min(4, keys - 1))))
        row[:] = torch.tensor([sum(place >= start for start in starts) if place < end else -1 for place in range(keys)])
    return documents


def seen_by_rule(mask: Mask, rows: int, queries: int, keys: int) -> torch.Tensor:
    out = torch.zeros((rows, 1, queries, keys), dtype=torch.bool)
    for row in range(rows):
        for i in range(queries):
            for j in range(keys):
                place = mask.offset + i
                out[row, 0, i, j] = (
                    (not mask.causal or j <= place)
                    and (mask.window is None or place - j < mask.window)
                    and (mask.documents is None or bool(mask.documents[row, place] == mask.documents[row, j]))
                )
    return out


@st.composite
def masks(draw: st.DrawFn, least: int = 1, most: int = 12) -> tuple[Mask, int, int]:
    queries, offset = draw(st.integers(least, most)), draw(st.sampled_from([0, 0, 1, 5]))
    keys = queries + offset
    causal = draw(st.booleans()) or draw(st.booleans())
    window = draw(st.one_of(st.none(), st.integers(1, keys + 2))) if causal else None
    documents = packed(2, keys, draw(st.integers(0, 999))) if draw(st.booleans()) else None
    return Mask(causal, window, documents, offset), queries, keys


@settings(max_examples=60)
@given(case=masks())
def test_kernels_agree_on_any_mask_and_padding_is_finite(case):
    mask, queries, keys = case
    generator = torch.Generator().manual_seed(keys)
    q = torch.randn((2, 4, queries, 16), generator=generator, requires_grad=True)
    k, v = (torch.randn((2, heads, keys, 16), generator=generator, requires_grad=True) for heads in (2, 2))
    rule = seen_by_rule(mask, 2, queries, keys)
    assert torch.equal(mask.visible(queries, keys).expand_as(rule), rule)
    by_hand = (q @ k.repeat_interleave(2, 1).transpose(-1, -2) / 4).masked_fill(~rule, float("-inf")).softmax(-1)
    right = by_hand @ v.repeat_interleave(2, 1)
    slope = torch.randn(right.shape, generator=generator)
    right_grads = torch.autograd.grad(right, (q, k, v), slope)
    for kernel in ("eager", "sdpa"):
        out = attend(q, k, v, mask, kernel)
        assert out.isfinite().all() and (out - right).abs().max() < 1e-6, kernel
        for grad, right_grad in zip(torch.autograd.grad(out, (q, k, v), slope), right_grads, strict=True):
            assert grad.isfinite().all() and (grad - right_grad).abs().max() < 1e-5, kernel


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("window", "documents"), [(None, False), (5, False), (None, True), (5, True), (40, True)], ids=str
)
def test_flex_agrees_forward_on_the_cpu(window, documents, heads):
    """Its backward pass exists on CUDA alone (tests/gpu)."""
    mask = Mask(window=window, documents=packed(2, 40, 3) if documents else None)
    q, k, v = torch.randn(2, 4, 40, 16), torch.randn(2, heads, 40, 16), torch.randn(2, heads, 40, 16)
    assert (attend(q, k, v, mask, "flex") - attend(q, k, v, mask, "sdpa")).abs().max() < 1e-6


def test_where_causality_is_the_whole_mask_there_is_no_tensor():
    def ready(mask: Mask, queries: int, keys: int):
        return prepare(mask, "sdpa", queries, keys, CPU)

    for window in (None, 16, 17):
        assert ready(Mask(window=window), 16, 16).is_causal and ready(Mask(window=window), 16, 16).given is None
    assert ready(Mask(window=15), 16, 16).given is not None
    one = ready(Mask(offset=15), 1, 16)  # the next token of a cache sees all before it
    assert not one.is_causal and one.given is None
    assert ready(Mask(offset=15, window=16), 1, 16).given is None
    assert ready(Mask(offset=15, window=15), 1, 16).given is not None
    assert ready(Mask(offset=14), 2, 16).given is not None


def test_a_mask_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="window"):
        Mask(window=0)
    with pytest.raises(ValueError, match="window"):
        Mask(causal=False, window=4)
    with pytest.raises(ValueError, match="do not fit"):
        prepare(Mask(offset=2), "sdpa", 4, 5, CPU)
    with pytest.raises(ValueError, match="do not fit"):
        prepare(Mask(documents=torch.zeros(1, 3)), "sdpa", 4, 4, CPU)


def test_the_kernel_that_is_chosen():
    packed_rows = Mask(documents=torch.zeros((1, 8), dtype=torch.int32))
    cuda = torch.device("cuda")
    assert choose("auto", Mask(), 8, 8, CPU, dropout=False) == "sdpa"
    assert choose("auto", packed_rows, 8, 8, CPU, dropout=False) == "sdpa"
    assert choose("auto", packed_rows, 8, 8, cuda, dropout=False) == "flex"
    assert choose("auto", Mask(window=8), 8, 8, cuda, dropout=False) == "sdpa"
    assert choose("auto", Mask(window=7), 8, 8, cuda, dropout=False) == "flex"
    assert choose("auto", packed_rows, 8, 8, cuda, dropout=True) == "eager"
    assert choose("sdpa", packed_rows, 8, 8, cuda, dropout=False) == "sdpa"
    for kernel in ("sdpa", "flex"):
        with pytest.raises(UsageError, match=f"kernel = {kernel}"):
            choose(kernel, Mask(), 8, 8, CPU, dropout=True)


def test_weights_are_dropped_under_every_mask_of_the_eager_kernel_and_by_no_other():
    site = Site(draws(0, 0, torch.arange(2)), 0, WEIGHTS, 0.5)
    mask = Mask(window=5, documents=packed(2, 24, 1))
    q, k, v = torch.randn(2, 4, 24, 16), torch.randn(2, 2, 24, 16), torch.ones(2, 2, 24, 16)
    out = attend(q, k, v, mask, "eager", site)
    assert (out - 1).abs().max() > 0.5 and abs(out.mean() - 1) < 0.2  # kept weights are scaled up
    with pytest.raises(UsageError, match="eager"):
        attend(q, k, v, mask, "sdpa", site)


@settings(max_examples=20, deadline=None)
@given(case=masks(17, 50), dropout=st.booleans())
def test_some_queries_at_a_time_are_all_of_them_with_the_same_weights_dropped(case, dropout):
    mask, queries, keys = case
    site = Site(draws(0, 0, torch.arange(2)), 0, WEIGHTS, 0.3) if dropout else None
    q, k, v = (torch.randn((2, heads, n, 16), requires_grad=True) for heads, n in ((4, queries), (2, keys), (2, keys)))
    whole = attend(q, k, v, mask, "eager", site)
    slope = torch.randn(whole.shape)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(attention, "AT_ONCE", 1)
        assert attention.eager_rows(2, 4, queries, keys) == 16
        parts = attend(q, k, v, mask, "eager", site)
        assert (parts - whole).abs().max() < 1e-5
        found = torch.autograd.grad(parts, (q, k, v), slope)
        with torch.no_grad():
            assert torch.equal(attend(q, k, v, mask, "eager", site), parts)
    for grad, right in zip(found, torch.autograd.grad(whole, (q, k, v), slope), strict=True):
        assert (grad - right).abs().max() < 1e-4


def test_nothing_of_all_weights_is_kept_for_backward(monkeypatch):
    monkeypatch.setattr(attention, "AT_ONCE", 2 * 4 * 16 * 256)
    site = Site(draws(0, 0, torch.arange(2)), 0, WEIGHTS, 0.3)
    q, k, v = (torch.randn((2, 4, 256, 16), requires_grad=True) for _ in range(3))
    kept: dict[int, int] = {}

    def keep(one: torch.Tensor) -> torch.Tensor:
        kept[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
        return one

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda one: one):
        out = attend(q, k, v, Mask(), "eager", site)
    weights, inputs = 4 * 2 * 4 * 256 * 256, 3 * q.numel() * 4 + 256 * 256  # q, k, v and the mask
    assert sum(kept.values()) <= inputs < weights / 4 and out.shape == q.shape
