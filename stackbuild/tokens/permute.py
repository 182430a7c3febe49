"""A permutation of 0 .. n - 1 of which any element is computed alone: an order of a corpus that is never held.

A number is split into two digits, left * b + right with left < a and right < b, where a and b are about the root of n.
To each digit in turn a hash of the other one is added, modulo a or b: a balanced Feistel network over digits, which is
a bijection of [0, a b) (Black & Rogaway 2002, "generalized Feistel"; Luby & Rackoff 1988). A number that falls outside
[0, n) is put through again until it falls inside (cycle walking); a b is below n + 2 a, so that this is rare. With an
even a, odd permutations come about as often as even ones, which networks over bits never make.

    order = Permutation(n, seed, "documents", source, str(epoch))
    order[i]; order.of(array); order.slice(start, stop)         where order.inverse(order.of(array)) equals array
"""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np
import numpy.typing as npt

from stackbuild.hashing import draw
from stackbuild.kernels import kernel

Ints = npt.NDArray[np.int64]

LARGEST = 2**62
ROUNDS = 6
SMALL, ROUNDS_OF_SMALL = 4096, 24  # with few elements a round changes little

# The multipliers of MurmurHash3's finalizer: every bit of the input changes every bit of the result about half the time.
_FIRST, _SECOND = np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53)
_32, _33 = np.uint64(32), np.uint64(33)


class Permutation:
    """A bijection of [0, n) that depends on n, the seed and the names alone, 0 <= n <= 2^62.

    Another n, seed or name gives another, unrelated permutation. ValueError for an n outside the range, IndexError for
    an element outside [0, n).
    """

    def __init__(self, n: int, seed: int, *names: bytes | str):
        if not 0 <= n <= LARGEST:
            raise ValueError(f"a permutation has 0 to 2^62 elements, not {n:,}")
        self.n = n
        rounds = ROUNDS if n > SMALL else ROUNDS_OF_SMALL
        keys = [draw(seed, "permutation", *names, str(n), str(number)) for number in range(rounds)]
        self._keys = np.array(keys, np.uint64)
        root = isqrt(max(n, 1) - 1) + 1  # rounded up
        self._left = root + root % 2
        self._right = max(-(-n // self._left), 1)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, element: int) -> int:
        """Where one element goes."""
        return int(self.of(np.array([element], np.int64))[0])

    def of(self, elements: npt.ArrayLike) -> Ints:
        """Where elements go. `elements`: integers of any shape, each in [0, n). Returns int64 of that shape."""
        return self._apply(elements, _permute)

    def inverse(self, elements: npt.ArrayLike) -> Ints:
        """What goes to `elements`: `inverse(of(x))` is x. Shapes as in `of`."""
        return self._apply(elements, _restore)

    def slice(self, start: int, stop: int) -> Ints:
        """Where the elements start .. stop - 1 go: int64 of shape (stop - start,)."""
        if not 0 <= start <= stop <= self.n:
            raise IndexError(f"a permutation of {self.n:,} elements has no elements {start:,} to {stop:,}")
        return self.of(np.arange(start, stop, dtype=np.int64))

    def _apply(self, elements: npt.ArrayLike, function: Callable[..., Ints]) -> Ints:
        given = np.asarray(elements)
        if given.size and given.dtype.kind not in "iu":
            raise IndexError(f"elements of a permutation are integers, not {given.dtype}")
        flat = np.ascontiguousarray(given, np.int64).reshape(-1)
        if flat.size and not 0 <= int(given.min()) <= int(given.max()) < self.n:
            wrong = int(given.min()) if int(given.min()) < 0 else int(given.max())
            raise IndexError(f"a permutation of {self.n:,} elements has no element {wrong:,}")
        moved = function(flat, self.n, self._keys, self._left, self._right)
        return moved.reshape(given.shape)


@kernel
def _below(limit: np.uint64, digit: np.uint64, key: np.uint64) -> np.uint64:
    """A hash of a digit under the key of a round, in [0, limit); limit < 2^32."""
    mixed = (digit ^ key) * _FIRST
    mixed = (mixed ^ (mixed >> _33)) * _SECOND
    return ((mixed >> _32) * limit) >> _32


@kernel
def _permute(elements: Ints, n: int, keys: npt.NDArray[np.uint64], lefts: int, rights: int) -> Ints:
    moved = np.empty(len(elements), np.int64)
    a, b, limit = np.uint64(lefts), np.uint64(rights), np.uint64(n)
    for number in range(len(elements)):
        value = np.uint64(elements[number])
        while True:
            left = value // b
            right = value - left * b
            for at in range(0, len(keys), 2):
                left += _below(a, right, keys[at])
                left = left - a if left >= a else left
                right += _below(b, left, keys[at + 1])
                right = right - b if right >= b else right
            value = left * b + right
            if value < limit:
                break
        moved[number] = np.int64(value)
    return moved


@kernel
def _restore(elements: Ints, n: int, keys: npt.NDArray[np.uint64], lefts: int, rights: int) -> Ints:
    """`_permute` backwards."""
    moved = np.empty(len(elements), np.int64)
    a, b, limit = np.uint64(lefts), np.uint64(rights), np.uint64(n)
    for number in range(len(elements)):
        value = np.uint64(elements[number])
        while True:
            left = value // b
            right = value - left * b
            for at in range(len(keys) - 2, -1, -2):
                right += b - _below(b, left, keys[at + 1])
                right = right - b if right >= b else right
                left += a - _below(a, right, keys[at])
                left = left - a if left >= a else left
            value = left * b + right
            if value < limit:
                break
        moved[number] = np.int64(value)
    return moved
