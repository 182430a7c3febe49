"""Random numbers that are functions of what they are for, and of nothing else: Philox-4x32-10, a counter-based generator.

Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011); the tests hold the vectors of its
Random123 library. A draw is the first 64 bits of the block at the counter

    document, low 32 bits | document, high 32 bits | fragment | epoch << 8 | field

under a key of 64 bits, low word first. So a decision about a fragment is the same whoever makes it, in whatever order.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from stackbuild import hashing
from stackbuild.kernels import kernel

# What a draw is for. A number is never given to another use.
DOCUMENT_COIN: Final = 0  # whether any fragment of a document is treated
FRAGMENT_COIN: Final = 1  # whether this one is
SPM_COIN: Final = 2
FIRST_CUT: Final = 3
SECOND_CUT: Final = 4
AST_COIN: Final = 5

EPOCHS, FRAGMENTS, FIELDS = 1 << 24, 1 << 32, 1 << 8

U64 = npt.NDArray[np.uint64]
_LOW, _32, _8, _11 = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(8), np.uint64(11)
_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_UNIT = 2.0**-53


@kernel
def philox(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    """The four words of a block of Philox-4x32-10, each in a uint64 as are its counter and key."""
    for _ in range(10):
        left, right = c0 * _M0, c2 * _M1
        c0, c1, c2, c3 = (right >> _32) ^ c1 ^ k0, right & _LOW, (left >> _32) ^ c3 ^ k1, left & _LOW
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@kernel
def draw_bits(key: Any, epoch: Any, document: Any, fragment: Any, field: Any) -> Any:
    """One draw, for other kernels: all arguments and the result are uint64, within the bounds that `bits` checks."""
    c0, c1, _, _ = philox(
        document & _LOW, document >> _32, fragment & _LOW, ((epoch << _8) | field) & _LOW, key & _LOW, key >> _32
    )
    return c0 | (c1 << _32)


@kernel
def below_bits(bits: Any, count: Any) -> Any:
    """A number from 0 to `count` - 1 (uint64): the high half of bits * count, off uniform by at most count / 2^64."""
    low, high = bits & _LOW, bits >> _32
    count_low, count_high = count & _LOW, count >> _32
    middle = high * count_low + ((low * count_low) >> _32)
    return high * count_high + (middle >> _32) + ((low * count_high + (middle & _LOW)) >> _32)


@kernel
def _fill(key: Any, epoch: Any, document: Any, fragment: Any, field: Any, steps: Any, out: Any) -> None:
    of_epoch, of_document, of_fragment, of_field = steps
    for k in range(len(out)):
        out[k] = draw_bits(
            key, epoch[k * of_epoch], document[k * of_document], fragment[k * of_fragment], field[k * of_field]
        )


@kernel
def _fill_below(bits: Any, count: Any, step: Any, out: Any) -> None:
    for k in range(len(out)):
        out[k] = below_bits(bits[k], count[k * step])


def key_of(seed: int, *names: bytes | str) -> int:
    """The key of a use: a uint64 by hash of the seed and the names, for example of "fim" and of a source."""
    return hashing.draw(seed, *names)


def bits(key: int, epoch: Any, document: Any, fragment: Any, field: Any) -> U64:
    """Uniform uint64 of the shape to which the arguments broadcast.

    `epoch` below 2^24, `document` below 2^64 (a number within a source, or a hash), `fragment` below 2^32, `field` one of
    the constants above; each an integer or an array of them. ValueError beyond these bounds.
    """
    given = [_checked("epoch", epoch, EPOCHS), _checked("document", document, 1 << 64)]
    given += [_checked("fragment", fragment, FRAGMENTS), _checked("field", field, FIELDS)]
    shape = np.broadcast_shapes(*(array.shape for array in given))
    flat = [_flat(array, shape) for array in given]
    out = np.empty(int(np.prod(shape, dtype=np.int64)), np.uint64)
    epochs, documents, fragments, fields = flat
    steps = tuple(np.int64(len(array) > 1) for array in flat)
    _fill(np.uint64(key), epochs, documents, fragments, fields, steps, out)
    return out.reshape(shape)


def below(bits: U64, count: Any) -> U64:
    """From draws, numbers from 0 to `count` - 1, uint64: `count` is an integer above 0, or an array of them of the same shape."""
    counts = np.asarray(count, np.uint64)
    out = np.empty(bits.size, np.uint64)
    flat = _flat(counts, bits.shape)
    _fill_below(_flat(bits, bits.shape), flat, np.int64(len(flat) > 1), out)
    return out.reshape(bits.shape)


def happens(bits: U64, probability: float | npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """From draws, whether what has this probability happens: never at 0, always at 1."""
    happened: npt.NDArray[np.bool_] = (bits >> _11) * _UNIT < probability
    return happened


def _checked(name: str, values: Any, bound: int) -> npt.NDArray[np.uint64]:
    array = np.asarray(values)
    if array.dtype != np.uint64:
        if array.size and (array.dtype.kind not in "iu" or int(array.min()) < 0):
            raise ValueError(f"{name}: a number from 0 to {bound - 1:,}")
        array = array.astype(np.uint64)
    if bound < 1 << 64 and array.size and int(array.max()) >= bound:
        raise ValueError(f"{name}: a number from 0 to {bound - 1:,}, not {int(array.max()):,}")
    return array


def _flat(array: U64, shape: tuple[int, ...]) -> U64:
    """One value for all, or one for each, in one piece; of one type, so that kernels are compiled once."""
    one = array if array.size == 1 else np.broadcast_to(array, shape)
    flat = np.ascontiguousarray(one, np.uint64).reshape(-1).view()
    flat.flags.writeable = False
    return flat
