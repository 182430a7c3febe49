"""One pass over a batch of texts that says where a rule may apply: expressions then see only the bytes around there.

Every rule has something that each of its matches holds: a literal (a key's prefix, the name before a secret) or a
shape (a dot between digits, an "@" between letters). The pass walks Arrow's buffer once through an Aho-Corasick
automaton over all literals, without regard to case, and tests the shapes beside it. A hit is tested on the spot as
far as it costs a bounded number of steps: the literal's case, the byte before it, whether enough bytes of the rule's
alphabet follow. What remains is rare in source code.

A gate never decides: all that it drops could not match (tests compare it with the rules over whole files).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numba as nb
import numpy as np
import numpy.typing as npt

from stackbuild.pii.spans import I64, U8, Texts

# Shapes, as rule numbers of hits; rules with literals count from 0.
EMAIL, IPV4, IPV6, DOTTED, USERINFO = -1, -2, -3, -4, -5

DOMAIN_BYTES = 253
USERINFO_BYTES = 200
IPV6_BYTES = 47  # a run that is longer is no address

WORD, DIGIT, HEX, LOCAL, DOMAIN, URL = (np.uint8(1 << bit) for bit in range(6))


@dataclass(frozen=True)
class Anchor:
    """A literal of a rule: `run` bytes of `alphabet` (bool, 256) begin within `within` bytes after it, on its line.

    `bounded`: no byte of [A-Za-z0-9_] stands before it.
    """

    literal: bytes
    rule: int
    ignore_case: bool = False
    bounded: bool = False
    alphabet: npt.NDArray[np.bool_] | None = None
    run: int = 0
    within: int = 0


class Automaton(NamedTuple):
    """The literals of all rules as arrays.

    A state is the offset of its row in `delta`, so that the next one is delta[state + classes[byte]]; those in which
    literals end come last, from `first_out`: their anchors are out[out_at[s]:out_at[s + 1]], s counting rows. Anchor
    a is literals[literal_at[a]:literal_at[a + 1]] with gates[a] = (rule, ignore_case, bounded, run, within,
    alphabet), the last a row of `alphabets`.
    """

    classes: U8
    delta: npt.NDArray[np.uint32]
    width: int
    first_out: int
    out_at: I64
    out: I64
    literals: U8
    literal_at: I64
    gates: I64
    alphabets: npt.NDArray[np.bool_]


def automaton(anchors: Sequence[Anchor]) -> Automaton:
    """Build the automaton (Aho and Corasick 1975) over the literals, folded to lower case."""
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
        for byte in literal:
            symbol = int(classes[byte])
            if symbol not in trie[state]:
                trie.append({})
                ends.append([])
                trie[state][symbol] = len(trie) - 1
            state = trie[state][symbol]
        ends[state].append(number)
    delta = np.zeros((len(trie), len(used) + 1), np.int32)
    fall = [0] * len(trie)
    queue = deque([0])
    while queue:
        state = queue.popleft()
        if state:
            delta[state] = delta[fall[state]]
            ends[state] = ends[state] + ends[fall[state]]
        for symbol, target in trie[state].items():
            fall[target] = int(delta[fall[state], symbol]) if state else 0
            queue.append(target)
        for symbol, target in trie[state].items():
            delta[state, symbol] = target
    order = sorted(range(len(trie)), key=lambda state: (bool(ends[state]), state))
    place = np.empty(len(trie), np.int64)
    place[order] = np.arange(len(trie))
    rows, ends = place[delta][order], [ends[state] for state in order]
    width = len(used) + 1
    alphabets = [np.zeros(256, np.bool_)]
    gates = []
    for anchor in anchors:
        row = 0
        if anchor.alphabet is not None and anchor.run:
            row = len(alphabets)
            alphabets.append(anchor.alphabet)
        gates.append((anchor.rule, anchor.ignore_case, anchor.bounded, anchor.run if row else 0, anchor.within, row))
    return Automaton(
        classes,
        (rows * width).astype(np.uint32).reshape(-1),
        width,
        next((number for number, end in enumerate(ends) if end), len(ends)) * width,
        np.concatenate([[0], np.cumsum([len(e) for e in ends])]).astype(np.int64),
        np.array([number for e in ends for number in e], np.int64),
        np.frombuffer(b"".join(anchor.literal for anchor in anchors), np.uint8),
        np.concatenate([[0], np.cumsum([len(anchor.literal) for anchor in anchors])]).astype(np.int64),
        np.array(gates, np.int64).reshape(-1, 6),
        np.array(alphabets),
    )


def byte_flags() -> U8:
    """Flags of every byte for the shapes; bytes from 0x80 are letters of a name or domain, not of a word."""
    flags = np.zeros(256, np.uint8)
    for byte in range(256):
        char = chr(byte)
        ascii_alnum = byte < 128 and char.isalnum()
        flags[byte] |= WORD if ascii_alnum or char == "_" else 0
        flags[byte] |= DIGIT if char in "0123456789" else 0
        flags[byte] |= HEX if char in "0123456789abcdefABCDEF" else 0
        flags[byte] |= LOCAL if ascii_alnum or char in "._+-" or byte >= 0x80 else 0
        flags[byte] |= DOMAIN if ascii_alnum or char in ".-" or byte >= 0x80 else 0
        flags[byte] |= URL if ascii_alnum or char in "_-" else 0
    return flags


_FLAGS = byte_flags()


def hits(texts: Texts, built: Automaton) -> I64:
    """All places where a rule may apply: int64 (k, 3) of rule, start, end, ascending by start within each rule.

    For a literal start to end is the literal; for IPV4 and IPV6 the whole run that may be an address; for EMAIL the
    "@"; for DOTTED the first dot; for USERINFO the "://".
    """
    found: I64 = _scan(texts.data, texts.offsets, _FLAGS, *built)
    return found[np.lexsort((found[:, 1], found[:, 0]))]


@nb.njit(cache=True, nogil=True)
def _scan(
    data: Any,
    offsets: Any,
    flags: Any,
    classes: Any,
    delta: Any,
    width: int,
    first_out: int,
    out_at: Any,
    out: Any,
    literals: Any,
    literal_at: Any,
    gates: Any,
    alphabets: Any,
) -> Any:
    found = np.empty((1024, 3), np.int64)
    k = 0
    shape = np.zeros(256, np.uint8)
    shape[64], shape[46], shape[58] = 1, 1, 1
    accepting = np.uint32(first_out)
    for text in range(len(offsets) - 1):
        low, high = offsets[text], offsets[text + 1]
        state = np.uint32(0)
        for at in range(low, high):
            byte = data[at]
            state = delta[state + classes[byte]]
            if state < accepting and not shape[byte]:
                continue
            row = state // width
            room = out_at[row + 1] - out_at[row] + 2
            if k + room > len(found):
                bigger = np.empty((2 * len(found) + room, 3), np.int64)
                bigger[:k] = found[:k]
                found = bigger
            for o in range(out_at[row], out_at[row + 1]):
                anchor = out[o]
                if _follows(data, low, high, at, flags, anchor, literals, literal_at, gates, alphabets):
                    found[k, 0], found[k, 1], found[k, 2] = (
                        gates[anchor, 0],
                        at + 1 - (literal_at[anchor + 1] - literal_at[anchor]),
                        at + 1,
                    )
                    k += 1
            code, start, end = _shape(data, low, high, at, flags)
            if code:
                found[k, 0], found[k, 1], found[k, 2] = code, start, end
                k += 1
    return found[:k].copy()


@nb.njit(cache=True, nogil=True)
def _shape(data: Any, low: int, high: int, at: int, flags: Any) -> tuple[int, int, int]:
    """The shape that the byte at `at` is the mark of, with its start and end; 0 for none."""
    byte = data[at]
    if byte == 64:  # @
        if _email(data, low, high, at, flags):
            return EMAIL, at, at + 1
    elif byte == 46:  # .
        start, end = _ipv4(data, low, high, at, flags)
        if end:
            return IPV4, start, end
        if _dotted(data, low, high, at, flags):
            return DOTTED, at, at + 1
    elif byte == 58 and at + 1 < high:  # :
        if data[at + 1] != 47:
            start, end = _ipv6(data, low, high, at, flags)
            if end:
                return IPV6, start, end
        elif at + 2 < high and data[at + 2] == 47 and _userinfo(data, at + 3, high):
            return USERINFO, at, at + 3
    return 0, 0, 0


@nb.njit(cache=True, nogil=True)
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
) -> bool:
    """The literal that ends at `last` has its case, its boundary and the run that its rule wants after it."""
    size = literal_at[anchor + 1] - literal_at[anchor]
    start = last + 1 - size
    if not gates[anchor, 1]:
        for i in range(size):
            if data[start + i] != literals[literal_at[anchor] + i]:
                return False
    if gates[anchor, 2] and start > low and flags[data[start - 1]] & WORD:
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


@nb.njit(cache=True, nogil=True)
def _email(data: Any, low: int, high: int, at: int, flags: Any) -> bool:
    """A byte of a name before the "@", a domain with a dot and a letter behind it. Scans stop at the next "@"."""
    if at == low or at + 3 >= high or not flags[data[at - 1]] & LOCAL or not flags[data[at + 1]] & DOMAIN:
        return False
    for i in range(at + 1, min(high - 1, at + 2 + DOMAIN_BYTES)):
        byte = data[i]
        if not flags[byte] & DOMAIN:
            return False
        if byte == 46 and flags[data[i + 1]] & WORD and not flags[data[i + 1]] & DIGIT:
            return True
    return False


@nb.njit(cache=True, nogil=True)
def _ipv4(data: Any, low: int, high: int, dot: int, flags: Any) -> tuple[int, int]:
    """Start and end of four numbers of up to three digits of which this is the first dot, (0, 0) if it is not."""
    start = dot
    while start > low and dot - start < 4 and flags[data[start - 1]] & DIGIT:
        start -= 1
    if start == dot or dot - start > 3 or (start > low and (flags[data[start - 1]] & WORD or data[start - 1] == 46)):
        return 0, 0
    at = dot
    for _ in range(3):
        if at >= high or data[at] != 46:
            return 0, 0
        at += 1
        digits = 0
        while at < high and digits < 4 and flags[data[at]] & DIGIT:
            at += 1
            digits += 1
        if digits == 0 or digits > 3:
            return 0, 0
    if at < high and (flags[data[at]] & WORD or (data[at] == 46 and at + 1 < high and flags[data[at + 1]] & WORD)):
        return 0, 0
    return start, at


@nb.njit(cache=True, nogil=True)
def _ipv6(data: Any, low: int, high: int, colon: int, flags: Any) -> tuple[int, int]:
    """Start and end of a run that may be an address and of which this is the first colon, (0, 0) if it is not."""
    start = colon
    while start > low and colon - start < 5 and flags[data[start - 1]] & HEX:
        start -= 1
    if colon - start > 4 or (
        start > low and (flags[data[start - 1]] & WORD or data[start - 1] == 58 or data[start - 1] == 46)
    ):
        return 0, 0
    colons, digits, pairs = 0, 0, 0
    at = start
    while at < high and at - start <= IPV6_BYTES:
        byte = data[at]
        if byte == 58:
            colons += 1
            if at > start and data[at - 1] == 58:
                pairs += 1
        elif flags[byte] & DIGIT:
            digits += 1
        elif not (flags[byte] & HEX or byte == 46):
            break
        at += 1
    if at - start > IPV6_BYTES or colons < 2 or digits < 2 or (pairs == 0 and colons < 6) or pairs > 1:
        return 0, 0
    if at < high and flags[data[at]] & WORD:
        return 0, 0
    return start, at


@nb.njit(cache=True, nogil=True)
def _dotted(data: Any, low: int, high: int, dot: int, flags: Any) -> bool:
    """Six bytes of base64url between this dot and the next, and 24 before it."""
    if dot - low < 24 or dot + 8 >= high or data[dot + 7] != 46:
        return False
    for i in range(-24, 7):  # noqa: SIM110  numba has no all() over a generator
        if i and not flags[data[dot + i]] & URL:
            return False
    return True


@nb.njit(cache=True, nogil=True)
def _userinfo(data: Any, start: int, high: int) -> bool:
    """A colon and then an "@" before the first slash, space or quote. Scans stop at the next "://"."""
    colon = False
    for at in range(start, min(high, start + USERINFO_BYTES)):
        byte = data[at]
        if byte == 64:
            return colon
        if byte == 58:
            colon = True
        elif byte <= 32 or byte in (34, 39, 47, 60, 62):
            return False
    return False
