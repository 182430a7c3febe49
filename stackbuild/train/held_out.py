"""Spans of held-out files that a model is to fill in: validation of fill-in-the-middle.

StarCoder2-15B was trained with broken infilling and nothing in its validation told (its scores lie below those of StarCoderBase). So a
run measures it as users will use it: a span within a line of a file of the `valid` split is taken out, and the model is asked for it
after the same sentinels as in training.

    PSM   <fim_prefix> prefix <fim_suffix> suffix <fim_middle>                  middle <end>
    SPM   <fim_prefix> <fim_suffix> suffix <fim_middle> prefix                  middle <end>      prefix and middle are one text

Which document, file, line and span: hashes of (seed, number), so that every run of a corpus is asked the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np

from stackbuild.hashing import draw
from stackbuild.render.sentinels import END_OF_TEXT, FILE_SEP
from stackbuild.tokens.bpe import Vocabulary
from stackbuild.tokens.dataset import Document, TokensDataset
from stackbuild.tokens.encode import LIBRARY, Encoder
from stackbuild.tokens.fim import sentinel_ids, token_table

SPLIT: Final = "valid"
LEAST: Final = 40  # characters of a file that is asked about
LONGEST: Final = 64  # characters of a span
TRIES: Final = 8  # draws for each span that is wanted


class Infilling(NamedTuple):
    """The tokens of one question in both orders, and the answer.

    `psm`, `spm`: all of it, with the answer and the token that ends it. `psm_middle`: where the answer begins in `psm`; `spm_middle`: in
    `spm` the first token that holds a byte of it. `middle`: the answer as text.
    """

    psm: list[int]
    spm: list[int]
    psm_middle: int
    spm_middle: int
    middle: str

    @property
    def prompt(self) -> list[int]:
        """What a model is given in PSM."""
        return self.psm[: self.psm_middle]

    @property
    def room(self) -> int:
        """How many tokens a model may answer with."""
        return 16 + 2 * (len(self.psm) - 1 - self.psm_middle)


class Questions(NamedTuple):
    """Questions, and the ids that end an answer."""

    spans: list[Infilling]
    stop: frozenset[int]
    vocabulary: Vocabulary


def questions(dataset: TokensDataset, source: str, count: int, seed: int, length: int) -> Questions:
    """At most `count` questions of at most `length` tokens, with room for a wrong answer, from the held-out files of a source.

    There are fewer where the source has few files that are long enough. InputError: a tokenizer without the sentinels.
    """
    vocabulary = Vocabulary(dataset.tokenizer, checked=True)
    known = dataset.manifest.tokenizer_backend.startswith("stackbuild-")
    encoder = Encoder(vocabulary, dataset.manifest.tokenizer_backend if known else LIBRARY)
    sentinels = sentinel_ids(vocabulary)
    end = vocabulary.sentinels.get(FILE_SEP, vocabulary.sentinels[END_OF_TEXT])
    sizes, _, _ = token_table(vocabulary)
    spans: list[Infilling] = []
    for number, text in _files(dataset, source, vocabulary, TRIES * count, seed):
        cut = _cut(text, seed, number)
        made = None if cut is None else _asked(text, *cut, encoder, sentinels, end, sizes, length)
        if made is not None:
            spans.append(made)
        if len(spans) == count:
            break
    return Questions(spans, frozenset(vocabulary.sentinels.values()), vocabulary)


def _files(
    dataset: TokensDataset, source: str, vocabulary: Vocabulary, tries: int, seed: int
) -> Iterator[tuple[int, str]]:
    """Texts of files that are drawn, with the number of the draw; those that were removed or are too short are left out."""
    documents = dataset.documents(source, SPLIT)
    seen: set[tuple[int, int]] = set()
    for number in range(tries if documents else 0):
        which = draw(seed, "infill-document", source, str(number)) % documents
        document = dataset.document(source, SPLIT, which)
        files = document.row["files"] or []
        if not files:
            continue
        place = draw(seed, "infill-file", source, str(number)) % len(files)
        start, end = int(files[place]["start"]), int(files[place]["end"])
        if (which, place) in seen or not document.mask[start:end].all():
            continue
        seen.add((which, place))
        text = _text(document, start, end, vocabulary)
        if len(text) >= LEAST:
            yield number, text


def _text(document: Document, start: int, end: int, vocabulary: Vocabulary) -> str:
    return vocabulary.decode(document.tokens[start:end].tolist())


def _cut(text: str, seed: int, number: int) -> tuple[int, int] | None:
    """Where the span begins and ends: within a line that holds more than white space, from any of its characters on; None if the
    drawn line holds none."""
    lines = text.split("\n")
    which = draw(seed, "infill-line", str(number)) % len(lines)
    line = lines[which]
    first = len(line) - len(line.lstrip())
    if first == len(line):
        return None
    begin = first + draw(seed, "infill-begin", str(number)) % (len(line) - first)
    longest = min(LONGEST, len(line) - begin)
    end = begin + 1 + draw(seed, "infill-end", str(number)) % longest
    at = sum(len(before) + 1 for before in lines[:which])
    return at + begin, at + end


def _asked(
    text: str,
    begin: int,
    end: int,
    encoder: Encoder,
    sentinels: tuple[int, int, int],
    stop: int,
    sizes: np.ndarray[tuple[int], np.dtype[np.int32]],
    length: int,
) -> Infilling | None:
    """The question of a span, with as much of the text around it as `length` has room for; None if there is room for nothing."""
    before, middle, after = text[:begin], text[begin:end], text[end:]
    pre, suf, mid = sentinels
    around = 4 * length  # characters on each side, at first
    while around:
        p, s = before[max(0, len(before) - around) :], after[:around]
        prefix, answer, suffix, joint = (ids.tolist() for ids in encoder.encode([p, middle, s, p + middle]))
        psm = [pre, *prefix, suf, *suffix, mid, *answer, stop]
        spm = [pre, suf, *suffix, mid, *joint, stop]
        covered = np.cumsum(sizes[joint])
        told = int(np.searchsorted(covered, len(p.encode()), "right"))
        made = Infilling(psm, spm, len(psm) - 1 - len(answer), len(spm) - 1 - len(joint) + told, middle)
        if max(len(psm), len(spm), len(made.prompt) + made.room) <= length:
            return made
        around //= 2
    return None
