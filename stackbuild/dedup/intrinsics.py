"""Five machine operations that Python has no word for, for the kernels that read text.

They are written in LLVM's terms, not in one processor's: LLVM makes the best instructions that a machine has, and the
values are the same on every machine of little-endian order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

_I1, _I8, _I64, _I128 = (ir.IntType(bits) for bits in (1, 8, 64, 128))
_BYTES = ir.VectorType(_I8, 64)


def _operation(build: Callable[..., Any]) -> Callable[..., Any]:
    """numba's intrinsic, by whose own type a call would pass the typing context too."""
    operation: Callable[..., Any] = intrinsic(build)
    return operation


def _load(context: Any, builder: Any, signature: Any, arguments: Any, what: Any) -> Any:
    """What stands at a byte of an array, wherever that is: no alignment is asked for."""
    array, at = arguments
    data = context.make_array(signature.args[0])(context, builder, array).data
    value = builder.load(builder.bitcast(builder.gep(data, [at]), what.as_pointer()))
    value.align = 1
    return value


def _all(byte: int) -> Any:
    return ir.Constant(_BYTES, [byte] * 64)


@_operation
def eight_bytes(_: Any, data: Any, at: Any) -> Any:
    """eight_bytes(data, at): `data[at:at + 8]` of a uint8 array as uint64, the first byte lowest. Not bounds-checked."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(context, builder, signature, arguments, _I64)

    return types.uint64(data, types.int64), codegen


@_operation
def ascii_words(_: Any, data: Any, at: Any) -> Any:
    """ascii_words(data, at): uint64, bit i of which says whether `data[at + i]` is one of A-Z a-z 0-9 _; `data[at:at + 64]` is
    read, not bounds-checked.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = _load(context, builder, signature, arguments, _BYTES)
        letter = builder.icmp_unsigned("<", builder.sub(builder.or_(byte, _all(32)), _all(97)), _all(26))
        digit = builder.icmp_unsigned("<", builder.sub(byte, _all(48)), _all(10))
        line = builder.icmp_unsigned("==", byte, _all(95))
        return builder.bitcast(builder.or_(builder.or_(letter, digit), line), _I64)

    return types.uint64(data, types.int64), codegen


@_operation
def above_ascii(_: Any, data: Any, at: Any) -> Any:
    """above_ascii(data, at): uint64, bit i of which says whether `data[at + i]` is above 127; read as by `ascii_words`."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        byte = _load(context, builder, signature, arguments, _BYTES)
        return builder.bitcast(builder.icmp_signed("<", byte, _all(0)), _I64)

    return types.uint64(data, types.int64), codegen


@_operation
def lowest_bit(_: Any, bits: Any) -> Any:
    """lowest_bit(bits): int64, the number of the lowest bit of a uint64 that is set; 64 if none is."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(_I1, 0))

    return types.int64(types.uint64), codegen


@_operation
def fold_product(_: Any, left: Any, right: Any) -> Any:
    """fold_product(left, right): the high half of the 128-bit product of two uint64, xor the low half."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        product = builder.mul(*(builder.zext(factor, _I128) for factor in arguments))
        high = builder.lshr(product, ir.Constant(_I128, 64))
        return builder.xor(builder.trunc(product, _I64), builder.trunc(high, _I64))

    return types.uint64(types.uint64, types.uint64), codegen
