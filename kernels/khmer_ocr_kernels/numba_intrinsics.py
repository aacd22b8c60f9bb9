"""What numba leaves out, as intrinsics: eight bytes at a time from any address, memory of others, C functions.

Nothing here checks bounds or addresses: the caller has checked them.
"""

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_WORD = ir.IntType(64)


def _word_at(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(cgutils.gep_inbounds(builder, data, index), _WORD.as_pointer())


@intrinsic
def load_u64(typing_context: Any, array: Any, index: Any) -> Any:
    """Little-endian word made of bytes[i : i + 8]."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(_word_at(context, builder, signature.args[0], *arguments))
        word.align = 1
        return word

    return types.uint64(array, types.int64), generate


@intrinsic
def store_u64(typing_context: Any, array: Any, index: Any, word: Any) -> Any:
    """Bytes[i : i + 8] become the word, little end first."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        store = builder.store(arguments[2], _word_at(context, builder, signature.args[0], *arguments[:2]))
        store.align = 1
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


@intrinsic
def trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Number of zero bits below the lowest set one; 64 for zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), generate


@intrinsic
def bytes_at(typing_context: Any, address: Any) -> Any:
    """Pointer to the bytes at an address, for `numba.carray`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.CPointer(types.uint8)(types.int64), generate


@intrinsic
def call(typing_context: Any, address: Any, arguments: Any) -> Any:
    """Call the C function at an address with a tuple of 64-bit integers or pointers; returns its 32-bit integer."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        words = cgutils.unpack_tuple(builder, values[1])
        function = ir.FunctionType(ir.IntType(32), [_WORD] * len(words))
        return builder.call(builder.inttoptr(values[0], function.as_pointer()), words)

    return types.int32(types.int64, types.UniTuple(types.int64, len(arguments))), generate
