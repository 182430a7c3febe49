"""Which backend encodes a run: chosen once, after the fast one was compared with `tokenizers`, and recorded.

Compared are the class of every code point, by the words that the library's own pre-tokenizer makes of them; then the ids
of every code point, of hostile strings and of texts of the run. What differs, or cannot be taken, is encoded by
`tokenizers`, and the record says why.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from stackbuild.errors import InputError
from stackbuild.tokens.bpe import Vocabulary, in_one_thread, sample_texts
from stackbuild.tokens.fast import NAME, FastEncoder, supports
from stackbuild.tokens.fast_classes import DIGIT, LETTER, NUMBER, OTHER, SPACE, classes

Backend = Literal["auto", "fast", "tokenizers"]
POINTS = 0x110000
COMPARED = 2_000_000  # bytes of texts that are compared
LONGEST = 200_000  # bytes of one of them; the library takes long on more
_SURROGATES = range(0xD800, 0xE000)
_BLOCK = 4096
HOSTILE = (
    "",
    " ",
    "\n",
    "'",
    "''s 's'S 't're've'm'll'd'lx'l' \n't\t'll3's've'",
    "don't we're they'll\u2019s I'd'd x''d",
    "  a   b\n\n  c \r\n\r\nd\t\te \t\n f\x0b\x0cg   ",
    "a\u3000\u3000b \u3000c\u3000 d\u00a0\u0085\u2028e\u2029 f\u180eg\u200b ",
    "0123456789 12.5e-3 \u0661\u0662 \u00b2\u00bd\u2167\u4e09\u3007 x1y22z333",
    "<fim_prefix>a<|endoftext|> <file_sep><repo_name><EMAIL>",
    "e\u0301\u0323 \u1100\u1161\u11a8 \u0e33 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
    "\ufeffint main;\x00\x01\x7f\x80\x9f \ufffd\uffff\U0010ffff \ud7ff\ue000",
    "\u0130\u0131\u017f\u1e9e\ufb01\uff21 na\u00efve \u6570\u636e\u5904\u7406",
    " " * 70 + "x" + "\t" * 70 + "\n" + "=" * 300 + "\n" + "a" * 1000 + "\n" * 40,
    "ab" * 300 + "1" * 100 + "ab1" * 100 + "'s" * 200 + "\u4e2d" * 300 + "\U0001f600" * 90,
)


def backend_name() -> str:
    """What the library is called in the record."""
    return f"tokenizers-{version('tokenizers')}"


def _runs(points: int) -> Iterator[tuple[int, str]]:
    """Runs of code points of one class: the class, and the characters."""
    kinds = classes()[:points]
    ends = [*np.flatnonzero(np.diff(kinds)).tolist(), len(kinds) - 1]
    start = 0
    for end in ends:
        yield int(kinds[start]), "".join(chr(point) for point in range(start, end + 1) if point not in _SURROGATES)
        start = end + 1


def _wrong_class(vocabulary: Vocabulary, points: int) -> str | None:
    """The first run of code points of which the library makes other words, or None.

    A run joins a character before it that is of its class, and nothing else; what `Digits` cuts out stands alone.
    """
    cut = vocabulary.tokenizer.pre_tokenizer.pre_tokenize_str
    apart = len(cut("11")) == 2
    for kind, run in _runs(points):
        alone = apart and kind & DIGIT
        before = {LETTER: "a", NUMBER: "1", SPACE: "\n", OTHER: "+"}[kind & ~DIGIT]
        if len(cut(before + run)) != (1 + len(run) if alone else 1):
            return f"U+{ord(run[0]):04X} to U+{ord(run[-1]):04X}"
    return None


def _probes(points: int) -> Iterator[str]:
    yield from HOSTILE
    for start in range(0, points, _BLOCK):
        yield "".join(chr(point) for point in range(start, min(start + _BLOCK, points)) if point not in _SURROGATES)


def verify(
    vocabulary: Vocabulary, texts: Iterable[str] = (), *, encoder: FastEncoder | None = None, points: int = POINTS
) -> str | None:
    """What differs between the fast backend and `tokenizers`, in words, or None.

    `points`: code points that are compared; those from 0x33480 on are all of one kind so far. `encoder`: of the same
    vocabulary. ValueError for a vocabulary that `supports` does not take.
    """
    in_one_thread()
    encoder = encoder or FastEncoder(vocabulary)
    wrong = _wrong_class(vocabulary, points)
    if wrong is not None:
        return f"the installed tokenizers library cuts words otherwise at {wrong}: it is of another version of Unicode"
    for number, text in enumerate((*_probes(points), *texts)):
        ids, _ = encoder.encode(pa.array([text], pa.large_string()))
        if vocabulary.tokenizer.encode(text, add_special_tokens=False).ids != ids.tolist():
            return f"other ids for text {number} of those compared, which begins with {text[:40]!r}"
    return None


def compared_texts(samples: Sequence[Any], size: int = COMPARED) -> Iterator[str]:
    """Texts of a sample (`job.sample`), of so many bytes in all."""
    left = size
    for path in samples:
        for batch in sample_texts(path, 64):
            for text in batch:
                if left <= 0:
                    return
                if len(text) <= LONGEST:
                    left -= len(text)
                    yield text


def choose(vocabulary: Vocabulary, backend: Backend, samples: Sequence[Any] = ()) -> dict[str, Any]:
    """The record of a choice: {"backend": name, "reason": why not the fast one, or None}.

    `auto` takes the fast one where it gives the same ids, `fast` insists on it: InputError with the reason.
    """
    reason: str | None = "the recipe asks for tokenizers"
    if backend != "tokenizers":
        reason = supports(vocabulary)
        if reason is None:
            reason = verify(vocabulary, compared_texts(samples))
        if reason is not None and backend == "fast":
            raise InputError(f'{vocabulary.path}: backend = "fast" cannot encode with this tokenizer: {reason}')
    return {"backend": NAME if reason is None else backend_name(), "reason": reason}
