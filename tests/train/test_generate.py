"""Greedy continuation with kept keys and values is that of computing every row anew, and that of transformers."""

from __future__ import annotations

import pytest
import torch

from stackbuild.errors import UsageError
from stackbuild.train.generate import Generated, greedy
from tests.train.worlds import pair, row_of_tokens, tiny, tiny_bigcode

CONFIGS = {
    "window": tiny(window=6, max_positions=128),
    "grouped": tiny(max_positions=128),
    "bigcode": tiny_bigcode(max_positions=128),
    "many-heads": tiny_bigcode(kv_heads=4, max_positions=128),
}
STOP = {*range(20), *range(30, 45)}
LENGTHS = (5, 17, 1, 17, 30, 9, 4)


def world(name: str):
    """A model that does not go round in circles, transformers' of the same weights, and prompts of different lengths."""
    model, other = pair(CONFIGS[name])
    return (
        model,
        other,
        [row_of_tokens(1, length, 97, seed=length + place)[0].tolist() for place, length in enumerate(LENGTHS)],
    )


def by_recomputing(model, prompt: list[int], limit: int, stop: set[int]) -> Generated:
    ids: list[int] = []
    while len(ids) < limit:
        with torch.no_grad():
            hidden = model(torch.tensor([prompt + ids]), None, model.mask())
        token = int(model.logits(hidden[0, -1]).argmax())
        if token in stop:
            return Generated(ids, True)
        ids.append(token)
    return Generated(ids, False)


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_computing_every_row_anew_gives(name, batch):
    model, _, prompts = world(name)
    right = [by_recomputing(model, prompt, 32, STOP) for prompt in prompts]
    assert greedy(model, prompts, 32, STOP, batch) == right


@pytest.mark.parametrize("name", CONFIGS)
def test_some_stop_and_some_do_not(name):
    """Or the test above would say nothing of rows that leave a batch."""
    model, _, prompts = world(name)
    told = [one.stopped for one in greedy(model, prompts, 32, STOP)]
    assert any(told) and not all(told)


@pytest.mark.parametrize("name", CONFIGS)
def test_it_is_what_transformers_generates(name):
    model, other, prompts = world(name)
    for prompt, found in zip(prompts, greedy(model, prompts, 32), strict=True):
        given = torch.tensor([prompt])
        right = other.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=32,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert found == Generated(right[0, len(prompt) :].tolist(), False)


def test_the_token_that_stops_is_not_told():
    model, _, prompts = world("window")
    first = greedy(model, prompts[:1], 1)[0].ids[0]
    assert greedy(model, prompts[:1], 8, {first}) == [Generated([], True)]
    assert greedy(model, prompts[:1], 0) == [Generated([], False)]
    assert greedy(model, [], 8) == []


def test_prompts_that_cannot_be_continued_are_refused():
    model, _, prompts = world("bigcode")
    with pytest.raises(UsageError, match="prompt 1 is empty"):
        greedy(model, [[1], []], 4)
    with pytest.raises(UsageError, match="prompt 0 holds"):
        greedy(model, [[97]], 4)
    with pytest.raises(UsageError, match="prompt 4 has 30 tokens and may get 100 more"):
        greedy(model, prompts, 100)
    assert len(greedy(model, prompts, 99)[4].ids) == 99  # the last one is not read


@pytest.mark.parametrize("batch", [1, 3, 16])
@pytest.mark.parametrize("name", ["grouped", "bigcode"])
def test_each_prompt_may_have_its_own_limit_up_to_the_positions(name, batch):
    model, _, prompts = world(name)
    limits = [128 - len(prompt) for prompt in prompts]
    limits[::2] = [3, 1, 2, 128 - len(prompts[6])]
    right = [by_recomputing(model, prompt, limit, STOP) for prompt, limit in zip(prompts, limits, strict=True)]
    assert greedy(model, prompts, limits, STOP, batch) == right
