"""A few vector instructions for Numba: enough for products of bytes, 16 sums at once.

Numba has no vector type, and no loop that it compiles becomes the byte dot product that processors
have for exactly this job. So two types and some functions are declared here through Numba's
documented extension interface; each is one or two LLVM instructions:

==================  ==========================================================================
``zeros()``         16 sums of 0, 32-bit integers
``load_bytes``      64 consecutive bytes of an array
``splat4``          4 consecutive bytes of an array, repeated 16 times
``dot4``            sums[r] += a[4r]*b[4r] + ... + a[4r+3]*b[4r+3]; a unsigned, b signed bytes
``store``           put 16 sums into an array
``at_least``        16 comparisons with one number, as the bits of an integer
``prefetch``        start to read a row of a table
==================  ==========================================================================

On a processor with AVX-512 VNNI ``dot4`` is one instruction (``vpdpbusd``); elsewhere it is written
out in plain vector arithmetic, which LLVM lowers to what the processor has. Results are the same.

Numba keeps compiled kernels on disk and looks for changes in their own files only: after a change
here, delete the ``__pycache__`` folder beside this file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

NUM_LANES = 16
BYTES_PER_LOAD = 64
CACHE_LINE = 64
_VNNI = "llvm.x86.avx512.vpdpbusd.512"
_BYTE, _WORD = ir.IntType(8), ir.IntType(32)
_BYTES, _WORDS = ir.VectorType(_BYTE, BYTES_PER_LOAD), ir.VectorType(_WORD, NUM_LANES)


class Vector(types.Type):
    """Type of a vector of integers, known to Numba by its name."""

    def __init__(self, bits: int, count: int) -> None:
        self.bits, self.count = bits, count
        super().__init__(name=f"int{bits}x{count}")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.IntType(kind.bits), kind.count))


SUMS, BYTES = Vector(32, NUM_LANES), Vector(8, BYTES_PER_LOAD)


def has_byte_dot_product() -> bool:
    """Tell whether this processor has the byte dot product of AVX-512 VNNI."""
    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot ask this kind of processor
        return False
    return bool(features.get("avx512vnni") and features.get("avx512bw"))


def _pointer(context: Any, builder: Any, signature: Any, args: Any, kind: ir.Type) -> Any:
    data = context.make_array(signature.args[0])(context, builder, args[0]).data
    return builder.bitcast(builder.gep(data, [args[1]]), kind.as_pointer())


def _repeat(builder: Any, word: Any) -> Any:
    undefined, first = ir.Constant(_WORDS, ir.Undefined), ir.Constant(_WORD, 0)
    one = builder.insert_element(undefined, word, first)
    return builder.shuffle_vector(one, undefined, ir.Constant(_WORDS, [0] * NUM_LANES))


def dot4_vnni(builder: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    """Emit ``dot4`` as the one instruction of AVX-512 VNNI."""
    kind = ir.FunctionType(_WORDS, [_WORDS] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, _VNNI)
    words = [builder.bitcast(vector, _WORDS) for vector in (unsigned, signed)]
    return builder.call(function, [sums, *words])


def dot4_portable(builder: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
    """Emit ``dot4`` in vector arithmetic that every processor can be compiled for."""
    undefined = ir.Constant(_BYTES, ir.Undefined)
    for first in range(4):
        every_fourth = ir.Constant(_WORDS, list(range(first, BYTES_PER_LOAD, 4)))
        a = builder.zext(builder.shuffle_vector(unsigned, undefined, every_fourth), _WORDS)
        b = builder.sext(builder.shuffle_vector(signed, undefined, every_fourth), _WORDS)
        sums = builder.add(sums, builder.mul(a, b))
    return sums


def make_dot4(emit: Callable[[Any, Any, Any, Any], Any]) -> Any:
    """Make the Numba function ``dot4(sums, unsigned, signed)`` that emits as told."""

    @intrinsic
    def dot4(typing_context: Any, sums: Any, unsigned: Any, signed: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return emit(builder, *args)

        return SUMS(SUMS, BYTES, BYTES), generate

    return dot4


dot4 = make_dot4(dot4_vnni if has_byte_dot_product() else dot4_portable)


@intrinsic
def zeros(typing_context: Any) -> Any:
    """Return 16 sums of 0."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_WORDS, None)

    return SUMS(), generate


@intrinsic
def load_bytes(typing_context: Any, array: Any, start: Any) -> Any:
    """Return the 64 bytes of ``array`` from ``start`` on; the caller keeps it inside the array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature, args, _BYTES), align=1)

    return BYTES(array, types.intp), generate


@intrinsic
def splat4(typing_context: Any, array: Any, start: Any) -> Any:
    """Return the 4 bytes of ``array`` from ``start`` on, 16 times."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        word = builder.load(_pointer(context, builder, signature, args, _WORD), align=1)
        return builder.bitcast(_repeat(builder, word), _BYTES)

    return BYTES(array, types.intp), generate


@intrinsic
def prefetch(typing_context: Any, table: Any, row: Any) -> Any:
    """Start to read a row of a (n, d) array into the cache, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = _BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, _WORD, _WORD, _WORD])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        row_bytes = cgutils.unpack_tuple(builder, array.strides)[0]
        start = builder.gep(builder.bitcast(array.data, pointer), [builder.mul(args[1], row_bytes)])
        hints = [ir.Constant(_WORD, hint) for hint in (0, 3, 1)]  # to read, to keep, data
        with cgutils.for_range_slice(
            builder, cgutils.intp_t(0), row_bytes, cgutils.intp_t(CACHE_LINE)
        ) as (offset, _):
            builder.call(function, [builder.gep(start, [offset]), *hints])
        return context.get_dummy_value()

    return types.void(table, types.intp), generate


@intrinsic
def at_least(typing_context: Any, sums: Any, bound: Any) -> Any:
    """Return an integer whose bit r is set where ``sums[r] >= bound``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        bits = builder.icmp_signed(">=", args[0], _repeat(builder, args[1]))
        return builder.zext(builder.bitcast(bits, ir.IntType(NUM_LANES)), _WORD)

    return types.uint32(SUMS, types.int32), generate


@intrinsic
def store(typing_context: Any, sums: Any, array: Any, start: Any) -> Any:
    """Put 16 sums into ``array``, of 32-bit integers, from ``start`` on; the caller has room."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[1])(context, builder, args[1]).data
        place = builder.bitcast(builder.gep(data, [args[2]]), _WORDS.as_pointer())
        builder.store(args[0], place, align=4)
        return context.get_dummy_value()

    return types.void(sums, array, types.intp), generate


def compiled(*signature: Any, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile without the interpreter's lock, and keep the code on disk where that is allowed."""

    def decorate(function: Callable[..., Any]) -> Any:
        try:
            return njit(*signature, nogil=True, cache=True, **options)(function)
        except RuntimeError:  # no folder that can be written
            return njit(*signature, nogil=True, **options)(function)

    return decorate
