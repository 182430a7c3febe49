"""The rules of the published programs for given draws. Every expected row was derived by hand from the rule, as its comment says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.fim_compat import (
    NumpyDraws,
    Rates,
    Sentinels,
    Text,
    megatron,
    santacoder_finetuning,
)

# A tokenizer for reading: a letter is a token, and so is "ab". Sentinels are capitals: E end of text, F file separator, R header.
E, P, M, S, D, F, R, AB = 0, 1, 2, 3, 4, 5, 6, 7
SHOWN = {E: "<E>", F: "<F>", R: "<R>", AB: "ab"}
IDS = {shown: number for number, shown in SHOWN.items()}
SENTINELS = Sentinels(end_of_text=E, prefix=P, middle=M, suffix=S, pad=D)
REPOSITORIES = Sentinels(end_of_text=E, prefix=P, middle=M, suffix=S, pad=D, split=F)


def encode(text: str) -> list[int]:
    return [IDS[part] if part in IDS else ord(part) for part in re.findall("<[EFR]>|ab|.", text, re.S)]


def decode(ids: Sequence[int]) -> str:
    return "".join(SHOWN.get(number) or chr(number) for number in ids)


KEPT = Text(decode, encode)
DROPPED = Text(lambda ids: decode([number for number in ids if number > F + 1]), encode)


@dataclass
class Given:
    """Draws from a list, each of which must be asked for in its turn: (rate, answer) for a coin, (length, one, other) for cuts."""

    left: list[tuple[float | int, ...]] = field(default_factory=list)

    def coin(self, rate: float) -> bool:
        wanted, answer = self.left.pop(0)
        assert wanted == rate
        return bool(answer)

    def cuts(self, length: int) -> tuple[int, int]:
        wanted, one, other = self.left.pop(0)
        assert wanted == length
        return int(one), int(other)


RATES = Rates(fim=0.5, fragment=0.25, spm=0.75)  # three rates, so that a coin of the wrong one is seen
YES, NO = (0.5, 1), (0.5, 0)
FRAGMENT, NOT_FRAGMENT = (0.25, 1), (0.25, 0)
SPM, PSM = (0.75, 1), (0.75, 0)


def treated(
    sample: list[int],
    draws: list[tuple[float, ...]],
    sentinels: Sentinels,
    text: Text = KEPT,
    no_prefix: str | None = None,
) -> list[int]:
    given = Given(list(draws))
    found = megatron(np.array(sample, np.uint16), given, text, sentinels, RATES, no_prefix)
    assert given.left == []
    assert found.dtype == np.int64 and len(found) == len(sample)
    return found.tolist()


X, Y, A, B = ord("x"), ord("y"), ord("a"), ord("b")


# ---------------------------------------------------------------- megatron: SantaCoder, StarCoder


def test_psm_cuts_characters_and_the_tail_is_lost() -> None:
    # "xabyxy" is x, ab, y, x, y; cut at 2 and 4: "xa", "by", "xy". P x a S x y M b y: nine tokens, of which five are left.
    draws = [YES, (6, 4, 2), PSM]
    assert treated([X, AB, Y, X, Y], draws, SENTINELS) == [P, X, A, S, X]


def test_spm_encodes_prefix_and_middle_apart() -> None:
    # One document of ten letters and what follows its end. Cut at 1 and 2 of "abxy": "a", "b", "xy"; P S x y M a b, not ab.
    # Three more tokens and the lost merge: of "xyxy" behind the end, the last four tokens go.
    draws = [YES, (4, 1, 2), SPM, NO]
    assert treated([AB, X, Y, E, X, Y, X, Y], draws, SENTINELS) == [P, S, X, Y, M, A, B, E]


def test_documents_have_coins_of_their_own_and_pads_fill_what_is_missing() -> None:
    # x | y | x: the first coin falls no, the second yes with cuts at both ends: P y S M, the third no.
    assert treated([X, E, Y, E, X], [NO, YES, (1, 1, 1), PSM, NO], SENTINELS) == [X, E, P, Y, S]
    # "abababab" as a, b, a, b, ...: encoded again as ab, ab, ab, ab. P S M ab ab ab ab: seven of eight, one pad.
    draws = [YES, (8, 8, 0), SPM]
    assert treated([A, B, A, B, A, B, A, B], draws, SENTINELS) == [P, S, M, AB, AB, AB, AB, D]


def test_an_empty_document_loses_its_end_of_text() -> None:
    # E first, and two in a row: both vanish without a coin, so that two pads come.
    assert treated([E, X, E, E, Y], [NO, NO], SENTINELS) == [X, E, Y, D, D]


def test_an_empty_last_piece_gets_sentinels() -> None:
    # x E and nothing: the nothing has a coin, cuts of length 0, and becomes P S M; one of them has no room.
    assert treated([X, X, X, E], [NO, NO], SENTINELS) == [X, X, X, E]
    assert treated([E, E, E, X, E], [NO, YES, (0, 0, 0), PSM], SENTINELS) == [X, E, P, S, M]


def test_a_rate_of_zero_draws_nothing_and_changes_nothing() -> None:
    found = megatron([E, E, X, F], Given([]), KEPT, REPOSITORIES, Rates(fim=0, fragment=1))
    assert found.tolist() == [E, E, X, F]


def test_half_a_character_becomes_a_replacement_character(tokenizer: Path) -> None:
    vocabulary = Vocabulary(tokenizer)
    text = Text.of(vocabulary)
    ids = text.encode("a text \U0001f600")
    assert text.decode(ids[:-1]).endswith("\ufffd") and text.decode(ids) == "a text \U0001f600"
    named = Sentinels(
        *(
            vocabulary.sentinels[name]
            for name in ("<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
        )
    )
    length = len(text.decode(ids[:-1]))
    found = megatron(
        [*ids[:-1], 0, 0, 0, 0, 0], Given([(1, 1), (length, 0, 0), (0.5, 0), (1, 0)]), text, named, Rates(fim=1)
    )
    assert found[:2].tolist() == [named.prefix, named.suffix]
    assert "\ufffd" in text.decode(found[2 : found.tolist().index(named.middle)].tolist())


# ---------------------------------------------------------------- megatron: StarCoder2


def test_fragments_have_coins_if_their_document_has_one() -> None:
    # x F y F ab, E, y: the first document's coin, then x no, y yes (cuts 0 and 1 of 1: P S M y), ab no; y has no F: its own coin.
    sample = [X, F, Y, F, AB, E, Y, Y, Y, Y]
    draws = [YES, NOT_FRAGMENT, FRAGMENT, (1, 1, 0), PSM, NOT_FRAGMENT, NO]
    assert treated(sample, draws, REPOSITORIES) == [X, F, P, S, M, Y, F, AB, E, Y]
    assert treated(sample, [NO, NO], REPOSITORIES) == sample  # one coin for all of it


def test_a_separator_in_front_and_empty_fragments_are_lost() -> None:
    # F x F F y: the first F and one of the two in a row are lost, if the document's coin is yes.
    sample = [F, X, F, F, Y]
    assert treated(sample, [YES, NOT_FRAGMENT, NOT_FRAGMENT], REPOSITORIES) == [X, F, Y, D, D]
    assert treated(sample, [NO], REPOSITORIES) == sample
    # An F at the end leaves an empty fragment, which may be treated.
    draws = [YES, NOT_FRAGMENT, NOT_FRAGMENT, FRAGMENT, (0, 0, 0), SPM]
    assert treated([F, F, X, F, Y, F], draws, REPOSITORIES) == [X, F, Y, F, P, S]


def test_a_fragment_that_begins_with_a_header_is_exempt_after_its_coin() -> None:
    # <R>x F y: the first fragment's coin is yes, but it begins with <R>: no cuts are drawn.
    sample = [R, X, F, Y, E, X, X, X]
    draws = [YES, FRAGMENT, NOT_FRAGMENT, NO]
    assert treated(sample, draws, REPOSITORIES, no_prefix="<R>") == sample


def test_a_header_that_is_dropped_while_decoding_is_never_found() -> None:
    # The same with special tokens dropped: "x" is cut at 0 and 1, and the header is gone: P S M x F y E x.
    sample = [R, X, F, Y, E, X, X, X]
    draws = [YES, FRAGMENT, (1, 0, 1), PSM, NOT_FRAGMENT, NO]
    assert treated(sample, draws, REPOSITORIES, DROPPED, no_prefix="<R>") == [P, S, M, X, F, Y, E, X]


def test_a_cut_may_fall_into_the_letters_of_a_header() -> None:
    # "<R>x" cut at 1: "<" and "R>x" are letters. P < S M R > x is seven; F is lost with what follows.
    sample = [R, X, F, Y, E, X, X]
    draws = [YES, FRAGMENT, (4, 4, 1), PSM, NOT_FRAGMENT, NO]
    assert treated(sample, draws, REPOSITORIES) == [P, ord("<"), S, M, ord("R"), ord(">"), X]


def test_text_of_a_tokenizer_keeps_or_drops_special_tokens(tokenizer: Path) -> None:
    vocabulary = Vocabulary(tokenizer)
    repo, text = vocabulary.sentinels["<repo_name>"], Text.of(vocabulary)
    ids = text.encode("<repo_name>a/b")
    assert ids[0] == repo and repo not in ids[1:]  # these programs knew special tokens by their letters
    assert text.decode(ids) == "<repo_name>a/b"
    assert Text.of(vocabulary, drop_special=True).decode(ids) == "a/b"


def test_draws_of_numpy_are_its_calls_in_order() -> None:
    draws, state = NumpyDraws(np.random.RandomState(1234)), np.random.RandomState(1234)
    for _ in range(20):
        assert draws.coin(0.5) == bool(state.binomial(1, 0.5))
        assert list(draws.cuts(7)) == state.randint(low=0, high=8, size=2).tolist()


# ---------------------------------------------------------------- santacoder-finetuning


def rows(
    documents: list[list[int]], draws: list[tuple[float, ...]], window: int, truncate_or_pad: bool = False
) -> list[list[int]]:
    given = Given(list(draws))
    found = [row.tolist() for row in santacoder_finetuning(documents, given, SENTINELS, window, RATES, truncate_or_pad)]
    assert given.left == []
    return found


def test_documents_are_cut_between_tokens_and_windows_cut_them_anywhere() -> None:
    # ab x y cut at 1 and 2 of three tokens: P ab S y M x E, then x y untreated, E: ten tokens, two windows of four, two lost.
    draws = [YES, (3, 2, 1), PSM, NO]
    assert rows([[AB, X, Y], [X, Y]], draws, 4) == [[P, AB, S, Y], [M, X, E, X]]


def test_spm_of_tokens() -> None:
    # P S suffix M prefix middle.
    assert rows([[AB, X, Y]], [YES, (3, 1, 2), SPM], 7) == [[P, S, Y, M, AB, X, E]]


def test_every_buffer_begins_the_draws_again() -> None:
    documents = [[X, Y, AB, X, Y]] * 3
    buffers = [
        [row.tolist() for row in santacoder_finetuning(documents, NumpyDraws(np.random.RandomState(0)), SENTINELS, 6)]
        for _ in range(2)
    ]
    assert buffers[0] == buffers[1] != []


def test_a_document_that_keeps_its_length_gives_its_suffix() -> None:
    # Five tokens cut at 0 and 1: the suffix of four gives three: P S y M x, as long as before.
    assert rows([[X, Y, X, Y, X]], [YES, (5, 0, 1), PSM], 6, truncate_or_pad=True) == [[P, S, Y, M, X, E]]
    # A suffix of three has nothing left to give: no coin of SPM, and the document as it was.
    assert rows([[X, Y, X, Y, X]], [YES, (5, 0, 2)], 6, truncate_or_pad=True) == [[X, Y, X, Y, X, E]]


def test_no_rate_no_draws_no_documents() -> None:
    assert [row.tolist() for row in santacoder_finetuning([[X]], Given([]), SENTINELS, 2, Rates(fim=0))] == [[X, E]]
    assert list(santacoder_finetuning([], Given([]), SENTINELS, 4)) == []


def test_given_draws_are_asked_for_at_their_rates() -> None:
    with pytest.raises(AssertionError):
        treated([X], [FRAGMENT], SENTINELS)
