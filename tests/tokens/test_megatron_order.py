"""Megatron's order: equal to its rule written out slowly (starcoder1 6.3), and to megatron-core where that is installed."""

from __future__ import annotations

from types import MethodType, SimpleNamespace

import numpy as np
import pytest

from stackbuild.errors import InputError
from stackbuild.tokens import megatron_order as module
from stackbuild.tokens.megatron_order import epochs_for, megatron_order, split


def slow_epochs(samples: int, tokens: int, sequence: int) -> int:
    epochs = 1
    while (epochs * tokens - 1) // sequence < samples:
        epochs += 1
    return epochs


def slow_order(sizes: list[int], first: int, sequence: int, samples: int | None, seed: int) -> tuple[np.ndarray, ...]:
    """Straight from the rule: a walk over every token's document."""
    tokens = sum(sizes)
    epochs = 1 if samples is None else slow_epochs(samples, tokens, sequence)
    without_last = ((epochs - 1) * tokens - 1) // sequence
    apart = epochs > 1 and samples - without_last < int(0.80 * ((tokens - 1) // sequence))
    random = np.random.RandomState(seed)
    documents = list(range(first, first + len(sizes)))
    doc_idx = np.array(documents * (epochs - 1 if apart else epochs), np.int32)
    random.shuffle(doc_idx)
    if apart:
        last = np.array(documents, np.int32)
        random.shuffle(last)
        doc_idx = np.concatenate([doc_idx, last])
    places = [(at, offset) for at, document in enumerate(doc_idx) for offset in range(sizes[document - first])]
    made = (epochs * tokens - 1) // sequence
    sample_idx = [(0, 0)] + [places[number * sequence] for number in range(1, made + 1)]
    shuffled = []
    for start, stop in ((0, without_last), (without_last, made)) if apart else ((0, made),):
        part = np.arange(start, stop, dtype=np.uint32)
        random.shuffle(part)
        shuffled.append(part)
    return doc_idx, np.array(sample_idx, np.int32), np.concatenate(shuffled)


def cases() -> list[tuple[np.ndarray, int, int, int | None, int]]:
    random = np.random.default_rng(3)
    made = []
    for number in range(120):
        sizes = random.integers(0, 40, random.integers(1, 30)).astype(np.int32)
        sizes[random.integers(len(sizes))] += 2
        if number % 3 == 0:
            sizes[0] = 0
            sizes[-1] += 2
        sequence = int(random.integers(1, 25))
        samples = None if number % 5 == 0 else int(random.integers(1, 6 * max(int(sizes.sum()) // sequence, 1) + 2))
        made.append((sizes, int(random.integers(0, 1000)), sequence, samples, number))
    return made


def test_index_arrays_are_those_of_the_rule() -> None:
    several = 0
    for sizes, first, sequence, samples, seed in cases():
        order = megatron_order(sizes, first, sequence, samples, seed)
        expected = slow_order(sizes.tolist(), first, sequence, samples, seed)
        for name, array, slow in zip(order._fields, order, expected, strict=False):
            assert array.dtype == slow.dtype, name
            assert np.array_equal(array, slow), (name, sizes, sequence, samples, seed)
        several += order.epochs > 1
    assert several > 40


def test_index_arrays_are_frozen() -> None:
    order = megatron_order([5, 0, 7, 3], 10, 4, 8, 1234)
    assert order.doc_idx.tolist() == [12, 11, 12, 10, 10, 11, 13, 13, 10, 12, 11, 13]
    assert order.sample_idx.tolist() == [
        [0, 0],
        [0, 4],
        [2, 1],
        [2, 5],
        [3, 2],
        [4, 1],
        [6, 0],
        [7, 1],
        [8, 2],
        [9, 1],
        [9, 5],
        [11, 2],
    ]
    assert order.shuffle_idx.tolist() == [6, 4, 0, 5, 3, 2, 1, 8, 7, 10, 9]


def test_a_last_epoch_of_under_80_percent_of_its_samples_is_shuffled_apart() -> None:
    sizes = np.full(101, 10)  # 1,010 tokens: 100 samples of 10 in one epoch, 201 in two without the extra token
    for samples, apart in ((100 + 79, True), (100 + 80, False)):
        order = megatron_order(sizes, 0, 10, samples, 1)
        assert order.epochs == 2
        assert (sorted(order.doc_idx[:101].tolist()) == list(range(101))) == apart
        assert (sorted(order.shuffle_idx[:100].tolist()) == list(range(100))) == apart


def test_epochs_are_the_fewest_that_supply_the_samples() -> None:
    for tokens in (2, 3, 17, 100):
        for sequence in (1, 2, 7, 100, 500):
            for samples in range(1, 40):
                assert epochs_for(samples, tokens, sequence) == slow_epochs(samples, tokens, sequence)
    assert epochs_for(None, 10, 3) == 1


def test_samples_overlap_by_one_token() -> None:
    sizes = np.array([4, 9, 1, 12])
    order = megatron_order(sizes, 0, 5, None, 7)
    ends = np.cumsum(sizes[order.doc_idx])
    starts = [int(ends[at] - sizes[order.doc_idx[at]] + offset) for at, offset in order.sample_idx]
    assert starts == list(range(0, 26, 5))  # sample k is tokens 5 k .. 5 k + 5


def test_a_split_subtracts_the_surplus_from_every_later_border() -> None:
    assert split("969,30,1", 1000) == [(0, 969), (969, 999), (999, 1000)]
    assert split("1,1,1", 5) == [(0, 1), (1, 3), (3, 5)]  # lengths 2, 2, 2: one too many
    assert split("1,1,1", 5, "core") == [(0, 2), (2, 3), (3, 5)]
    assert split("100", 7) == [(0, 7), (7, 7), (7, 7)]
    assert split("0,1,1", 3) == [(0, 0), (0, 1), (1, 3)]  # never below 0
    for text in ("", "a,b", "1,2,3,4", "0,0", "-1,2", "nan", "1,inf"):
        with pytest.raises(InputError, match="a split is three numbers"):
            split(text, 10)


def test_above_10_to_the_8_documents_it_is_refused() -> None:
    big = np.broadcast_to(np.int64(2), module.MOST_DOCUMENTS + 1)
    with pytest.raises(InputError, match=r"100,000,001 x 1 epochs are more than 100,000,000"):
        megatron_order(big, 0, 8, None, 0)
    with pytest.raises(InputError, match="more than 100,000,000"):
        megatron_order([2, 2], 0, 1, 10**9, 0)
    with pytest.raises(InputError, match="hold no sample"):
        megatron_order([1, 0], 0, 8, None, 0)
    with pytest.raises(InputError, match="sequence of at least 1"):
        megatron_order([10], 0, 0, None, 0)


def test_index_arrays_are_those_of_megatron_core() -> None:
    core = pytest.importorskip("megatron.core.datasets.gpt_dataset")
    utils = pytest.importorskip("megatron.core.datasets.utils")
    for sizes, first, sequence, samples, seed in cases():
        all_sizes = np.concatenate([np.full(first, 5, np.int32), sizes])
        dataset = SimpleNamespace(
            config=SimpleNamespace(
                defer_npy_index_mmap=False, path_to_cache=None, mock=True, sequence_length=sequence,
                add_extra_token_to_sequence=1, random_seed=seed,
            ),
            dataset=SimpleNamespace(sequence_lengths=all_sizes), num_samples=samples, index_split=utils.Split.train,
            indices=np.arange(first, first + len(sizes), dtype=np.int32),
        )  # fmt: skip
        for name in ("_get_num_tokens_per_epoch", "_get_num_epochs", "_build_document_sample_shuffle_indices"):
            setattr(dataset, name, MethodType(getattr(core.GPTDataset, name), dataset))
        expected = dataset._build_document_sample_shuffle_indices()
        order = megatron_order(sizes, first, sequence, samples, seed)
        for name, array, theirs in zip(order._fields, order, expected, strict=False):
            assert array.dtype == theirs.dtype, name
            assert np.array_equal(array, theirs), (name, sizes, sequence, samples, seed)
