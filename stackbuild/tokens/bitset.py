"""A set of small integers, of which the least one that is not below a number is found in a few steps.

A tree of 64-bit words: bit i of a level says whether word i of the level below has any bit. Functions of compiled code:

    words, starts = bitset(size)          for numbers 0 .. size - 1
    add(words, starts, number)
    discard(words, starts, number)
    least(words, starts, number)          -1 if all are below
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stackbuild.kernels import kernel
from stackbuild.tokens.fast_bits import lowest_bit

Words = npt.NDArray[np.uint64]
Starts = npt.NDArray[np.int64]

_ONE = np.uint64(1)


@kernel
def bitset(size: int) -> tuple[Words, Starts]:
    """An empty set: the words of all levels (uint64), and where each level starts in them (int64)."""
    levels, words, count = 0, 0, size
    while levels == 0 or count > 1:
        count = (count + 63) >> 6
        words += count + 1  # a word of no bits ends each level, so that a search need not look whether it has ended
        levels += 1
    starts = np.empty(levels, np.int64)
    at, count = 0, size
    for level in range(levels):
        starts[level] = at
        count = (count + 63) >> 6
        at += count + 1
    return np.zeros(words, np.uint64), starts


@kernel
def add(words: Words, starts: Starts, number: int) -> None:
    """Put a number into the set."""
    for level in range(len(starts)):
        at = starts[level] + (number >> 6)
        was = words[at]
        words[at] = was | (_ONE << np.uint64(number & 63))
        if was:
            return
        number >>= 6


@kernel
def discard(words: Words, starts: Starts, number: int) -> None:
    """Take a number out of the set."""
    for level in range(len(starts)):
        at = starts[level] + (number >> 6)
        words[at] &= ~(_ONE << np.uint64(number & 63))
        if words[at]:
            return
        number >>= 6


@kernel
def least(words: Words, starts: Starts, number: int) -> int:
    """The least member that is >= `number` (0 .. size), or -1."""
    level = 0
    while True:
        word = number >> 6
        rest = words[starts[level] + word] >> np.uint64(number & 63)
        if rest:
            number += lowest_bit(rest)
            break
        number = word + 1
        level += 1
        if level == len(starts):
            return -1
    while level:
        level -= 1
        number = (number << 6) | lowest_bit(words[starts[level] + number])
    return number
