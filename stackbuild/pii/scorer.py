"""How much a value that is given to a name looks like a secret: one number from the words and shapes about it.

fastText's classifier with two classes is a linear function of the mean of a text's features, whatever its dimension; so the
model here is just that: a weight for each hashed feature, added up (logistic regression). Features are words of the name, of
the line and of the value, and the value's shape, most of them also crossed with what the name calls the value. The model
lies beside this module; `stackbuild/pii/scorer_training.py` makes it.
"""

from __future__ import annotations

import hashlib
import math
import re
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.errors import InputError
from stackbuild.pii.assignments import KINDS, Candidates
from stackbuild.pii.secrets import entropy, wordiness
from stackbuild.pii.spans import Texts

MODEL_FILE: Final = Path(__file__).with_name("scorer.bin")
MAGIC: Final = b"stackbuild scorer 1\n"
BUCKETS: Final = 1 << 15
LINE_BYTES: Final = 160  # of a line on either side of name and value

_WORDS = re.compile(rb"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_RUNS = re.compile(rb"[A-Za-z]{3,}")
_SHAPES = ((re.compile(rb"[a-z\x80-\xff]+"), b"a"), (re.compile(rb"[A-Z]+"), b"A"), (re.compile(rb"[0-9]+"), b"0"))
_HEX = re.compile(rb"[0-9a-f]+|[0-9A-F]+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")
_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DOTTED = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)+")
_IDENTIFIER = re.compile(rb"[A-Za-z_]+(?:[-_][A-Za-z]+)*")
_TEMPLATE = re.compile(
    rb"\$\{|\{\{|%[sd({]|<[^>]*>|\$\(|\$[A-Za-z_]|#\{|\{[A-Za-z0-9_]*\}|%[A-Za-z_]+%|\[[A-Za-z_ ]+\]"
)
_PATH = re.compile(rb"(?:[a-z]+:/)?/|\.{1,2}/|~/|[A-Za-z]:\\")
# What a name calls its value: the first that its words hold.
_CALLS: Final = (
    ("password", (b"passw", b"pwd", b"pass", b"pswd")),
    ("public", (b"public", b"publish")),
    ("salt", (b"salt", b"nonce", b"seed", b"iv")),
    ("secret", (b"secret", b"private")),
    ("token", (b"token", b"jwt", b"bearer")),
    ("api_key", (b"apikey", b"api_key", b"api-key", b"access_key", b"accesskey", b"access-key", b"appkey", b"authkey", b"auth_key")),
    ("auth", (b"auth", b"cred", b"sign")),
    ("key", (b"key",)),
)  # fmt: skip
_LENGTHS: Final = (6, 7, 8, 9, 10, 12, 14, 16, 17, 20, 21, 24, 25, 32, 33, 36, 37, 40, 41, 64, 65, 100)


class Scored(NamedTuple):
    """A candidate: number among the candidates, what its name calls it, and its score from 0 to 1."""

    number: int
    called: str
    score: float


class Scorer:
    """The model. `weights`: float32 (BUCKETS,); `digest`: SHA-256 of its file."""

    def __init__(self, weights: npt.NDArray[np.float32], bias: float, digest: str):
        self.weights, self.bias, self.digest = weights, bias, digest

    def scores(self, texts: Texts, found: Candidates) -> Iterator[Scored]:
        """Each candidate of a batch with its score."""
        for number, (called, features) in enumerate(features_of(texts, found)):
            total = self.bias + float(self.weights[features].sum())
            yield Scored(number, called, 1 / (1 + math.exp(-max(-30.0, min(30.0, total)))))


@cache
def load(path: Path = MODEL_FILE) -> Scorer:
    """Read a model; InputError if the file is none."""
    raw = path.read_bytes()
    head, body = raw[: len(MAGIC)], raw[len(MAGIC) :]
    if head != MAGIC or len(body) != 2 * (BUCKETS + 1):
        raise InputError(f"{path.name} is no model of the context scorer; install stackbuild again.")
    values = np.frombuffer(body, "<f2").astype(np.float32)
    if not np.isfinite(values).all():
        raise InputError(f"{path.name} has weights that are no numbers; install stackbuild again.")
    return Scorer(values[1:], float(values[0]), hashlib.sha256(raw).hexdigest())


def features_of(texts: Texts, found: Candidates) -> Iterator[tuple[str, npt.NDArray[np.int64]]]:
    """For each candidate what its name calls it and its features (int64, numbers below BUCKETS)."""
    columns = [column.tolist() for column in found]
    files = np.searchsorted(texts.offsets, found.value_start, side="right") - 1
    lows, highs = texts.offsets[files].tolist(), texts.offsets[files + 1].tolist()
    for name_start, name_end, start, end, kind, low, high in zip(*columns, lows, highs, strict=True):
        before = texts.read(max(low, name_start - LINE_BYTES), name_start)
        after = texts.read(end, min(high, end + LINE_BYTES))
        name, value = texts.read(name_start, name_end), texts.read(start, end)
        told = list(described(name, value, KINDS[kind], before[before.rfind(b"\n") + 1 :], after.partition(b"\n")[0]))
        called = called_by(name)
        words = told + [f"{called} {word}" for word in told if word[0] in "LSWHEDkfvx"]
        yield (
            called,
            np.array([zlib.crc32(word.encode("latin-1")) % BUCKETS for word in dict.fromkeys(words)], np.int64),
        )


def called_by(name: bytes) -> str:
    """What a name calls its value."""
    lower = name.lower()
    return next((called for called, words in _CALLS if any(word in lower for word in words)), "other")


def described(name: bytes, value: bytes, kind: str, before: bytes, after: bytes) -> Iterator[str]:
    """The features of a value in words; the first letter says of what kind they are."""
    yield f"k{kind}"
    words = [word.lower() for word in _WORDS.findall(name)]
    yield from (f"n{_text(word)}" for word in words[-6:])
    yield f"N{_text(b'_'.join(words[-2:]))}"
    yield f"q{_text(before[-1:])}{_text(after[:1])}"
    yield from (f"l{_text(word.lower())}" for word in _WORDS.findall(before)[-6:])
    yield from (f"r{_text(word.lower())}" for word in _WORDS.findall(after)[:3])
    lead = before.lstrip()[:2]
    if lead[:1] in (b"#", b"*", b";") or lead in (b"//", b"/*", b"--"):
        yield "comment"
    yield from _shape(value)
    lower = value.lower()
    runs = [run.lower() for run in _RUNS.findall(value)]
    yield from (f"v{_text(run)}" for run in runs[:6] if len(run) <= 16)
    if any(word in lower for word in words if len(word) > 3):
        yield "xname"
    if _TEMPLATE.search(value):
        yield "xtemplate"
    if _PATH.match(value):
        yield "xpath"
    if _DOTTED.fullmatch(value):
        yield "xdotted"
    if _IDENTIFIER.fullmatch(value):
        yield "xidentifier"


def _shape(value: bytes) -> Iterator[str]:
    """Length, characters, entropy, how much of it reads like words."""
    size = len(value)
    length = sum(size >= limit for limit in _LENGTHS)
    yield f"L{length}"
    kinds = "".join(mark for mark, there in _alphabets(value) if there)
    yield f"S{kinds}"
    yield f"S{kinds} {length // 3}"
    form = value
    for pattern, mark in _SHAPES:
        form = pattern.sub(mark, form)
    yield f"H{_text(form[:12])}"
    yield f"f{_text(form[:2])}"
    bits = entropy(value)
    yield f"E{int(bits * 2)}"
    yield f"E{int(8 * bits / math.log2(size))} {length // 3}"
    seen, common = (0, 0.0) if size > 200 else wordiness(value, _pairs())
    digits = sum(48 <= byte < 58 for byte in value)
    reads = "none" if seen < 3 else str(int(common * 10))
    yield f"W{reads}"
    yield f"W{reads} {min(digits, 6)}"
    yield f"D{min(digits, 8)}"
    changes = len(form) / size
    yield f"H~{int(changes * 8)}"
    if _HEX.fullmatch(value):
        yield f"xhex {size if size in (16, 20, 24, 32, 40, 48, 56, 64, 96, 128) else 'odd' if size % 2 else 'even'}"
    elif _UUID.fullmatch(value):
        yield "xuuid"
    elif _BASE64.fullmatch(value):
        yield f"xbase64 {size % 4 == 0}"
    yield f"distinct {min(8, len(set(value)))}"


def _alphabets(value: bytes) -> Iterator[tuple[str, bool]]:
    letters = set(value)
    yield "a", any(97 <= byte < 123 for byte in letters)
    yield "A", any(65 <= byte < 91 for byte in letters)
    yield "0", any(48 <= byte < 58 for byte in letters)
    yield "-", bool(letters & set(b"-_."))
    yield "/", bool(letters & set(b"/+="))
    yield "!", bool(letters - set(b"-_./+=") - set(range(48, 58)) - set(range(65, 91)) - set(range(97, 123)))


@cache
def _pairs() -> frozenset[bytes]:
    from stackbuild.pii.rules import load as load_rules

    return load_rules().secrets.word_pairs


def _text(raw: bytes) -> str:
    return raw.decode("latin-1")


def written(weights: npt.NDArray[Any], bias: float) -> bytes:
    """The file of a model."""
    return MAGIC + np.concatenate([[bias], weights]).astype("<f2").tobytes()
