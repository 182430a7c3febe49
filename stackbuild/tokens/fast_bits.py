"""Machine operations that Python has no word for, for the kernels of the fast tokenizer.

They are written in LLVM's terms, not in one processor's: the values are the same on every machine of little-endian order.
Those that look at 64 bytes return a uint64 in which bit i speaks of `data[at + i]`; none checks bounds.
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


def _bits(test: Callable[[Any, Any], Any]) -> Any:
    """The code of an operation on 64 bytes: `test(builder, bytes)` gives a vector of 64 bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(test(builder, _load(context, builder, signature, arguments, _BYTES)), _I64)

    return codegen


def _within(builder: Any, byte: Any, first: str, count: int) -> Any:
    return builder.icmp_unsigned("<", builder.sub(byte, _all(ord(first))), _all(count))


@_operation
def eight_bytes(_: Any, data: Any, at: Any) -> Any:
    """eight_bytes(data, at): `data[at:at + 8]` of a uint8 array as uint64, the first byte lowest."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(context, builder, signature, arguments, _I64)

    return types.uint64(data, types.int64), codegen


@_operation
def put_eight_bytes(_: Any, data: Any, at: Any, value: Any) -> Any:
    """put_eight_bytes(data, at, value): the reverse of `eight_bytes`, into an array that can be written to."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, bits = arguments
        into = context.make_array(signature.args[0])(context, builder, array).data
        store = builder.store(bits, builder.bitcast(builder.gep(into, [place]), _I64.as_pointer()))
        store.align = 1
        return context.get_dummy_value()

    return types.void(data, types.int64, types.uint64), codegen


@_operation
def ascii_letters(_: Any, data: Any, at: Any) -> Any:
    """Where are A-Z and a-z?"""
    test = _bits(lambda builder, byte: _within(builder, builder.or_(byte, _all(32)), "a", 26))
    return types.uint64(data, types.int64), test


@_operation
def ascii_digits(_: Any, data: Any, at: Any) -> Any:
    """Where are 0-9?"""
    return types.uint64(data, types.int64), _bits(lambda builder, byte: _within(builder, byte, "0", 10))


@_operation
def ascii_spaces(_: Any, data: Any, at: Any) -> Any:
    """Where are the six white-space characters of ASCII?"""
    test = _bits(
        lambda builder, byte: builder.or_(
            _within(builder, byte, "\t", 5), builder.icmp_unsigned("==", byte, _all(ord(" ")))
        )
    )
    return types.uint64(data, types.int64), test


@_operation
def blanks(_: Any, data: Any, at: Any) -> Any:
    """Where is U+0020?"""
    test = _bits(lambda builder, byte: builder.icmp_unsigned("==", byte, _all(ord(" "))))
    return types.uint64(data, types.int64), test


@_operation
def apostrophes(_: Any, data: Any, at: Any) -> Any:
    """Where is U+0027?"""
    test = _bits(lambda builder, byte: builder.icmp_unsigned("==", byte, _all(ord("'"))))
    return types.uint64(data, types.int64), test


@_operation
def above_ascii(_: Any, data: Any, at: Any) -> Any:
    """Where are bytes above 127?"""
    test = _bits(lambda builder, byte: builder.icmp_signed("<", byte, _all(0)))
    return types.uint64(data, types.int64), test


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
