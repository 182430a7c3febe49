"""Loss, documents, padding and new weights of the decoder."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from stackbuild.errors import UsageError
from stackbuild.tokens.batches import IGNORED
from stackbuild.train import loss as losses
from stackbuild.train.dropout import draws
from stackbuild.train.loss import _chunk_loss, _chunk_loss_to_fuse, cross_entropy
from stackbuild.train.model import Decoder, initialise
from tests.train.worlds import new, row_of_tokens, tiny, tiny_bigcode

FAMILIES = [tiny(window=6), tiny_bigcode()]
NAMES = ["starcoder2", "bigcode"]


def head(rows: int = 300, vocabulary: int = 211, width: int = 24) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states, head and labels of which a tenth is ignored."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(rows, width, generator=generator, requires_grad=True)
    weight = torch.randn(vocabulary, width, generator=generator, requires_grad=True)
    labels = torch.randint(0, vocabulary, (rows,), generator=generator)
    return hidden, weight, labels.masked_fill(torch.rand(rows, generator=generator) < 0.1, IGNORED)


@pytest.mark.parametrize("chunk", [1, 7, 128, 300, 4096, None])
def test_loss_and_gradients_in_chunks_are_those_of_all_at_once(chunk):
    hidden, weight, labels = head()
    right = F.cross_entropy(hidden @ weight.T, labels, reduction="sum")
    right_grads = torch.autograd.grad(right / 7, (hidden, weight))
    found = cross_entropy(hidden, weight, labels, chunk)
    assert found.sum.dtype == torch.float32 and found.sum.dim() == 0 and found.count.dtype == torch.int64
    assert found.count == (labels != IGNORED).sum() and torch.allclose(found.sum, right, rtol=1e-5)
    for grad, right_grad in zip(torch.autograd.grad(found.sum / 7, (hidden, weight)), right_grads, strict=True):
        assert torch.allclose(grad, right_grad, atol=1e-6)
    each = losses.token_losses(hidden, weight, labels, chunk)
    assert torch.allclose(each, F.cross_entropy(hidden @ weight.T, labels, reduction="none"), atol=1e-5)
    assert (each[labels == IGNORED] == 0).all() and not each.requires_grad
    with torch.no_grad():
        assert torch.allclose(cross_entropy(hidden, weight, labels, chunk).sum, right, rtol=1e-5)


def test_no_more_logits_than_a_chunk_are_kept_for_backward_or_made_at_once(monkeypatch):
    hidden, weight, labels = head()
    biggest = []
    made = torch.log_softmax
    monkeypatch.setattr(torch, "log_softmax", lambda x, *rest: (biggest.append(x.numel()), made(x, *rest))[1])
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (kept.append(x.numel()), x)[1], lambda x: x):
        sum_ = cross_entropy(hidden, weight, labels, chunk=32).sum
    sum_.backward()
    assert max(biggest) == 32 * 211 and len(biggest) == 10  # none a second time
    assert sum(kept) < 300 * 211


def test_the_gradient_of_a_loss_is_given_once():
    """It was made with the loss and is multiplied in place: a second time would be wrong in silence."""
    hidden, weight, labels = head()
    sum_ = cross_entropy(hidden, weight, labels).sum
    sum_.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second time"):
        sum_.backward()


def test_a_loss_without_labels_is_nothing():
    hidden, weight, labels = head()
    found = cross_entropy(hidden, weight, torch.full_like(labels, IGNORED))
    found.sum.backward()
    assert found.sum == 0 and found.count == 0 and not hidden.grad.any() and not weight.grad.any()


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_only_the_gradients_that_are_wanted_are_made(frozen):
    hidden, weight, labels = head()
    (hidden if frozen == "hidden" else weight).requires_grad_(False)
    cross_entropy(hidden, weight, labels).sum.backward()
    assert (hidden.grad is None) == (frozen == "hidden") and (weight.grad is None) == (frozen == "weight")


def test_under_autocast_products_are_bf16_and_sums_fp32():
    hidden, weight, labels = head()
    with torch.autocast("cpu", torch.bfloat16):
        found = cross_entropy(hidden, weight, labels).sum
    found.backward()
    low = hidden.detach().bfloat16() @ weight.detach().bfloat16().T
    right = F.cross_entropy(low.float(), labels, reduction="sum")
    assert found.dtype == torch.float32 and torch.allclose(found, right, rtol=1e-5)
    assert weight.grad.dtype == torch.float32
    again = weight.detach().clone().requires_grad_()
    F.cross_entropy(hidden.detach() @ again.T, labels, reduction="sum").backward()
    assert F.cosine_similarity(weight.grad.flatten(), again.grad.flatten(), 0) > 0.9999


@pytest.mark.parametrize("config", FAMILIES, ids=NAMES)
def test_bf16_training_follows_fp32(config):
    model, tokens = new(config), row_of_tokens(2, 33, 97)
    right = model.loss(tokens[:, :-1], tokens[:, 1:]).sum
    with torch.autocast("cpu", torch.bfloat16):
        found = model.loss(tokens[:, :-1], tokens[:, 1:]).sum
    found.backward()
    assert torch.isclose(found, right, rtol=0.02) and all(
        parameter.grad.dtype == torch.float32 for parameter in model.parameters()
    )


@pytest.mark.parametrize("config", FAMILIES, ids=NAMES)
def test_documents_side_by_side_are_as_if_alone(config):
    model = new(config)
    lengths = [9, 4, 14]
    rows = [row_of_tokens(1, length + 1, 97, seed=length) for length in lengths]
    padding = 5
    tokens = torch.cat([row[:, :-1] for row in rows] + [torch.zeros((1, padding), dtype=torch.int64)], 1)
    labels = torch.cat([row[:, 1:] for row in rows] + [torch.full((1, padding), IGNORED)], 1)
    positions = torch.cat([torch.arange(length) for length in [*lengths, padding]])[None]
    documents = torch.cat(
        [torch.full((length,), number) for number, length in enumerate(lengths)] + [torch.full((padding,), -1)]
    )[None]
    found = model.loss(tokens, labels, positions.int(), documents.int())
    alone = [model.loss(row[:, :-1], row[:, 1:]) for row in rows]
    assert found.count == sum(one.count for one in alone)
    assert torch.allclose(found.sum, sum(one.sum for one in alone), rtol=1e-5)
    each = model.token_losses(tokens, labels, positions, documents)
    assert torch.allclose(each.sum(), found.sum, rtol=1e-5) and each.shape == tokens.shape
    across = model.loss(tokens, labels)
    assert not torch.isclose(across.sum, found.sum, rtol=1e-3)  # documents that see each other


@pytest.mark.parametrize("config", FAMILIES, ids=NAMES)
def test_what_stands_in_padding_changes_nothing(config):
    model = new(config)
    tokens = row_of_tokens(1, 20, 97)
    documents = torch.tensor([[0] * 12 + [-1] * 8])
    labels = tokens.roll(-1, 1).masked_fill(documents < 0, IGNORED)
    other = tokens.clone()
    other[0, 12:] = 5
    results = []
    for row in (tokens, other):
        model.zero_grad()
        sum_ = model.loss(row, labels, documents=documents).sum
        sum_.backward()
        results.append((sum_.detach(), model.layers[0].mlp.up.weight.grad.clone()))
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("config", FAMILIES, ids=NAMES)
def test_micro_batches_add_up(config):
    model, tokens = new(config), row_of_tokens(4, 33, 97)
    labels = tokens[:, 1:].clone()
    labels[0, :30] = IGNORED  # so that a mean of means would be another number
    whole = model.loss(tokens[:, :-1], labels)
    parts = [model.loss(tokens[low : low + 1, :-1], labels[low : low + 1]) for low in range(4)]
    assert torch.allclose(whole.sum, sum(part.sum for part in parts), rtol=1e-5)
    assert whole.count == sum(part.count for part in parts)


def test_new_weights_depend_on_seed_and_name_alone():
    one, two = Decoder(tiny()), Decoder(tiny(layers=3))
    assert all(parameter.isnan().all() for parameter in one.parameters())  # an untouched weight is seen
    initialise(one, 5)
    initialise(two, 5)
    for name, parameter in one.named_parameters():
        assert torch.equal(parameter, two.get_parameter(name)), name
    initialise(two, 6)
    assert not torch.equal(one.embed.weight, two.embed.weight)
    assert not torch.equal(one.layers[0].attention.q.weight, one.layers[1].attention.q.weight)
    low = Decoder(tiny(), dtype=torch.bfloat16)
    initialise(low, 5)
    assert torch.equal(low.embed.weight, one.embed.weight.bfloat16())


@pytest.mark.parametrize("scaled", [False, True])
def test_new_weights_are_as_wide_as_the_configuration_says(scaled):
    config = tiny(hidden=64, ffn=256, layers=8, init_std=0.02, scaled_init=scaled, tied=False)
    model = Decoder(config)
    initialise(model, 0)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert (parameter == float("norm" in name and name.endswith("weight"))).all(), name
        else:
            smaller = scaled and name.endswith(("attention.o.weight", "mlp.down.weight"))
            std = 0.02 / 4 if smaller else 0.02
            assert abs(parameter.std() / std - 1) < 4 / (2 * parameter.numel()) ** 0.5, name


def test_a_row_longer_than_learned_positions_is_refused():
    with pytest.raises(UsageError, match=r"65 tokens.*64 learned"):
        new(tiny_bigcode())(row_of_tokens(1, 65, 97), None, new(tiny_bigcode()).mask())
    new(tiny())(row_of_tokens(1, 65, 97), None, new(tiny()).mask())  # rotary ones go on


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_the_loss_that_is_compiled_is_the_loss(scale: float) -> None:
    """Losses of hundreds of nats too, where a probability is 0 in fp32."""
    hidden, head = torch.randn(50, 16) * scale, torch.randn(97, 16)
    told = torch.randint(0, 97, (50, 1))
    ignored = torch.arange(50)[:, None] % 7 == 0
    right, found = (rule(hidden, head, told, ignored) for rule in (_chunk_loss, _chunk_loss_to_fuse))
    assert torch.isfinite(right[0]) and torch.allclose(right[0], found[0], rtol=1e-5)
    assert torch.allclose(right[1], found[1], atol=1e-3 if scale > 1 else 1e-6)


def test_tokens_may_come_as_the_loader_gives_them():
    model, tokens = new(tiny()), row_of_tokens(2, 17, 97)
    right = model.loss(tokens[:, :-1], tokens[:, 1:]).sum
    low = tokens.int()
    assert torch.equal(model.loss(low[:, :-1], low[:, 1:]).sum, right)


def test_a_compiled_model_is_the_same():
    """Without inductor, whose compiler a machine may lack: what matters here is that nothing of it cannot be traced."""
    config = tiny(layers=1, window=6, residual_dropout=0.1)
    tokens = row_of_tokens(2, 33, 97)
    documents = (torch.arange(32) // 12).expand(2, 32)
    results = []
    for compiled in (False, True):
        model = new(config)
        if compiled:
            model.compile(backend="aot_eager", fullgraph=True)
        sum_ = model.loss(tokens[:, :-1], tokens[:, 1:], documents=documents, dropout=draws(0, 1, torch.arange(2))).sum
        sum_.backward()
        results.append((sum_.detach(), model.layers[0].attention.q.weight.grad))
    assert torch.allclose(*[sum_ for sum_, _ in results]) and torch.allclose(*[grad for _, grad in results], atol=1e-5)
