"""One pass over a batch of texts that says where a rule may apply: expressions then see only the bytes around there.

Every rule has something that each of its matches holds: a literal (a key's prefix, the name before a secret) or a
shape (a dot between digits, an "@" between letters). The pass walks Arrow's buffer once. At each byte it looks the
last three up among the rarest triples of all literals, which nearly never are one; where they are, a trie tells which
literals go on from there, without regard to case. The shapes are tested beside it. A hit is tested on the spot as far
as it costs a bounded number of steps: the literal's case, the byte before it, whether enough bytes of the rule's alphabet follow.
What remains is rare in source code.

A gate never decides: all that it drops could not match (tests compare it with the rules over whole files).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.pii.shapes import FLAGS, HEX, MARKS, WORD, shape_at
from stackbuild.pii.spans import I64, U8, Texts
from stackbuild.pii.triples import rarest


@dataclass(frozen=True)
class Anchor:
    """A literal of a rule: `run` bytes of `alphabet` (bool, 256) begin within `within` bytes after it, on its line.

    `bounded`: no byte of [A-Za-z0-9_] stands before it, unless it ends an escape (\\n, %3D). `once`: its first place in a
    text is enough.
    """

    literal: bytes
    rule: int
    ignore_case: bool = False
    bounded: bool = False
    alphabet: npt.NDArray[np.bool_] | None = None
    run: int = 0
    within: int = 0
    once: bool = False


class Automaton(NamedTuple):
    """The literals of all rules as arrays.

    A literal is looked for from its rarest triple on, which stands `skip` bytes behind its start. `grams` marks the
    hash of every three bytes that may stand there (bool, GRAMS). The trie holds the literals from there on: after state s
    comes delta[s, classes[byte]], 0 where no literal goes on; the literals that end in s are the anchors
    out[out_at[s]:out_at[s + 1]]. Anchor a is literals[literal_at[a]:literal_at[a + 1]] with gates[a] = (rule,
    ignore_case, bounded, run, within, alphabet, once, skip), the alphabet a row of `alphabets`.
    """

    grams: npt.NDArray[np.bool_]
    classes: U8
    delta: I64
    out_at: I64
    out: I64
    literals: U8
    literal_at: I64
    gates: I64
    alphabets: npt.NDArray[np.bool_]


GRAMS = 1 << 16
_GRAM_FACTOR, _8, _16 = np.uint64(0x9E3779B1), np.uint64(8), np.uint64(16)
_16_BITS, _24_BITS = np.uint64(GRAMS - 1), np.uint64((1 << 24) - 1)


def automaton(anchors: Sequence[Anchor]) -> Automaton:
    """Build the trie over the literals, folded to lower case, and the table of their beginnings."""
    skips = [rarest(anchor.literal) for anchor in anchors]
    folded = [anchor.literal.lower() for anchor in anchors]
    used = sorted({byte for literal in folded for byte in literal})
    classes = np.zeros(256, np.uint8)
    for number, byte in enumerate(used):
        classes[byte] = number + 1
        classes[ord(chr(byte).upper()) if byte < 128 else byte] = number + 1
    trie: list[dict[int, int]] = [{}]
    ends: list[list[int]] = [[]]
    for number, literal in enumerate(folded):
        state = 0
        for byte in literal[skips[number] :]:
            symbol = int(classes[byte])
            if symbol not in trie[state]:
                trie.append({})
                ends.append([])
                trie[state][symbol] = len(trie) - 1
            state = trie[state][symbol]
        ends[state].append(number)
    delta = np.zeros((len(trie), len(used) + 1), np.int64)
    for state, following in enumerate(trie):
        for symbol, target in following.items():
            delta[state, symbol] = target
    alphabets = [np.zeros(256, np.bool_)]
    gates = []
    for anchor, skip in zip(anchors, skips, strict=True):
        row = 0
        if anchor.alphabet is not None and anchor.run:
            row = len(alphabets)
            alphabets.append(anchor.alphabet)
        run = anchor.run if row else 0
        gates.append((anchor.rule, anchor.ignore_case, anchor.bounded, run, anchor.within, row, anchor.once, skip))
    grams = np.zeros(GRAMS, np.bool_)
    for anchor, skip in zip(anchors, skips, strict=True):
        for first, second, third in _triples(anchor, skip):
            grams[(first << 16 | second << 8 | third) * int(_GRAM_FACTOR) >> 16 & GRAMS - 1] = True
    return Automaton(
        grams,
        classes,
        delta,
        np.concatenate([[0], np.cumsum([len(e) for e in ends])]).astype(np.int64),
        np.array([number for e in ends for number in e], np.int64),
        np.frombuffer(b"".join(anchor.literal for anchor in anchors), np.uint8),
        np.concatenate([[0], np.cumsum([len(anchor.literal) for anchor in anchors])]).astype(np.int64),
        np.array(gates, np.int64).reshape(-1, 8),
        np.array(alphabets),
    )


def _triples(anchor: Anchor, skip: int) -> Iterator[tuple[int, ...]]:
    """Three bytes from `skip` on where an anchor's literal stands: its own in each case that counts, then what follows."""
    places: list[Sequence[int]] = []
    for byte in anchor.literal[skip : skip + 3]:
        letter = bytes([byte])
        places.append(sorted({*letter.lower(), *letter.upper()}) if anchor.ignore_case else [byte])
    while len(places) < 3:
        follows = not anchor.within and len(places) - len(anchor.literal) < anchor.run
        alphabet = anchor.alphabet if follows else None
        places.append(range(256) if alphabet is None else np.flatnonzero(alphabet).tolist())
    return product(*places)


def hits(texts: Texts, built: Automaton) -> I64:
    """All places where a rule may apply: int64 (k, 3) of rule, start, end, ascending by start within each rule.

    For a literal start to end is the literal; for IPV4 and IPV6 the whole run that may be an address; for EMAIL the
    "@"; for DOTTED the first dot; for USERINFO the "://".
    """
    data, offsets = texts.data.view(), texts.offsets.view()
    data.flags.writeable = offsets.flags.writeable = False  # always, so that the pass is compiled once
    found: I64 = _scan(data, offsets, FLAGS, MARKS, *built)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


@kernel
def _scan(
    data: Any,
    offsets: Any,
    flags: Any,
    shapes: Any,
    grams: Any,
    classes: Any,
    delta: Any,
    out_at: Any,
    out: Any,
    literals: Any,
    literal_at: Any,
    gates: Any,
    alphabets: Any,
) -> Any:
    found = np.empty((1024 + len(gates), 3), np.int64)
    seen = np.full(len(gates), -1, np.int64)  # the last text with an anchor
    k = 0
    for text in range(len(offsets) - 1):
        at = low = offsets[text]
        while True:
            at, k = _scan_text(
                data, low, at, offsets[text + 1], flags, shapes, grams, classes, delta, out_at, out, literals,
                literal_at, gates, alphabets, found, k, seen, text,
            )  # fmt: skip
            if at < 0:
                break
            longer = np.empty((2 * len(found), 3), np.int64)
            longer[:k] = found[:k]
            found = longer
    return found[:k].copy()


@kernel
def _scan_text(
    data: Any,
    low: int,
    at: int,
    high: int,
    flags: Any,
    shapes: Any,
    grams: Any,
    classes: Any,
    delta: Any,
    out_at: Any,
    out: Any,
    literals: Any,
    literal_at: Any,
    gates: Any,
    alphabets: Any,
    found: Any,
    k: int,
    seen: Any,
    text: int,
) -> tuple[int, int]:
    """Write the hits of a text from `at` on to found[k:]: (where to go on when `found` is longer, -1 at the end; k)."""
    while True:
        at = _next(data, low, at, high, grams, shapes)
        if at >= high + 2:
            return -1, k
        if k + len(gates) >= len(found):  # as many as may be at one place
            return at, k
        start = at - 2
        if start >= low:
            state = 0
            for last in range(start, high):
                state = delta[state, classes[data[last]]]
                if not state:
                    break
                for o in range(out_at[state], out_at[state + 1]):
                    anchor = out[o]
                    if gates[anchor, 6] and seen[anchor] == text:
                        continue
                    if _follows(data, low, high, last, flags, anchor, literals, literal_at, gates, alphabets, classes):
                        found[k, 0], found[k, 1], found[k, 2] = gates[anchor, 0], start - gates[anchor, 7], last + 1
                        k += 1
                        seen[anchor] = text
        if at < high and shapes[data[at]]:
            code, begin, end = shape_at(data, low, high, at, flags)
            if code:
                found[k, 0], found[k, 1], found[k, 2] = code, begin, end
                k += 1
        at += 1


@kernel
def _next(data: Any, low: int, at: int, high: int, grams: Any, shapes: Any) -> int:
    """The first byte from `at` on that has a shape, or is the third from where a literal may begin.

    The two places beyond the text count as such: a literal of one or two bytes may end it. `high` + 2 if there is none.
    """
    three = np.uint64(0)
    for before in range(max(low, at - 2), min(at, high)):
        three = three << _8 | np.uint64(data[before])
    for here in range(at, high):
        byte = data[here]
        three = (three << _8 | np.uint64(byte)) & _24_BITS
        if grams[three * _GRAM_FACTOR >> _16 & _16_BITS] | shapes[byte]:
            return here
    return max(at, high)


@kernel
def _follows(
    data: Any,
    low: int,
    high: int,
    last: int,
    flags: Any,
    anchor: int,
    literals: Any,
    literal_at: Any,
    gates: Any,
    alphabets: Any,
    classes: Any,
) -> bool:
    """The literal that ends at `last` is whole, has its case, its boundary and the run that its rule wants after it."""
    size = literal_at[anchor + 1] - literal_at[anchor]
    start = last + 1 - size
    if start < low:
        return False
    for i in range(gates[anchor, 7]):  # what the trie has not seen; a class is a byte without its case
        if classes[data[start + i]] != classes[literals[literal_at[anchor] + i]]:
            return False
    if not gates[anchor, 1]:
        for i in range(size):
            if data[start + i] != literals[literal_at[anchor] + i]:
                return False
    if gates[anchor, 2] and start > low and flags[data[start - 1]] & WORD and not _escape(data, low, start, flags):
        return False
    run, row = gates[anchor, 3], gates[anchor, 5]
    if not run:
        return True
    have = 0
    for at in range(last + 1, min(high, last + 1 + gates[anchor, 4] + run)):
        byte = data[at]
        if alphabets[row, byte]:
            have += 1
            if have >= run:
                return True
        elif byte == 10 or at - last > gates[anchor, 4]:
            return False
        else:
            have = 0
    return False


@kernel
def _escape(data: Any, low: int, start: int, flags: Any) -> bool:
    """What stands before `start` is an escape of a string (a backslash and one of n, r, t) or of a URL (%3D)."""
    if start - low >= 2 and data[start - 2] == 92:
        return data[start - 1] in (110, 114, 116)
    return start - low >= 3 and data[start - 3] == 37 and flags[data[start - 2]] & HEX and flags[data[start - 1]] & HEX
