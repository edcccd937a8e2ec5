"""Products of 16 rows of bytes with 64 columns of weights, as LLVM instructions, in two ways.

With AMX, a processor multiplies 16 rows of 64 bytes by 64 rows of 16 columns in one instruction, on
eight tile registers. Elsewhere the byte dot product of :mod:`recsys_lib.serving.simd` does four
rows at a time. Both sum whole numbers in 32 bits: results are the same.

Weights lie in memory as both need them: for 4 inputs after 4 inputs, for each of 64 columns, the 4
weights. Which way is compiled is decided by the type of the ``tiles`` argument: uint8 for AMX.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from recsys_lib.serving import simd

ROWS, COLUMNS = 16, 64
LANES = simd.NUM_LANES  # numbers in a vector
_GROUP = 4  # rows at a time without AMX: 16 sums stay in registers
_ROW_BYTES = 4 * COLUMNS  # of four inputs' weights, and of a row of sums
_BYTE, _WORD, _LONG = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_POINTER, _NOTHING = _BYTE.as_pointer(), ir.VoidType()
_BYTES, _WORDS = ir.VectorType(_BYTE, 4 * LANES), ir.VectorType(_WORD, LANES)
_emit_dot4 = simd.dot4_vnni if simd.has_byte_dot_product() else simd.dot4_portable
# Linux hands the tile registers out on request: arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA).
_SYSCALL_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18


def has_amx() -> bool:
    """Tell whether this processor has AMX for bytes and this process may use it."""
    if not sys.platform.startswith("linux") or platform.machine() != "x86_64":
        return False
    try:
        features = binding.get_host_cpu_features()
    except RuntimeError:
        return False
    if not (features.get("amx-tile") and features.get("amx-int8")):
        return False
    return ctypes.CDLL(None).syscall(_SYSCALL_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0


def tile_shapes(amx: bool) -> NDArray[Any]:
    """Give the ``tiles`` argument: eight tiles of 16 rows of 64 bytes, or nothing of note.

    Example:
        >>> tile_shapes(amx=True).dtype, tile_shapes(amx=False).dtype
        (dtype('uint8'), dtype('int8'))
    """
    if not amx:
        return np.zeros(1, np.int8)
    shapes = np.zeros(64, np.uint8)
    shapes[0] = 1  # the one palette that there is
    shapes[16:32:2] = 64  # bytes of a row, 16-bit numbers
    shapes[48:56] = 16  # rows
    return shapes


def uses_amx(tiles: Any) -> bool:
    """Tell which way the Numba type of a ``tiles`` argument asks for."""
    return tiles.dtype == types.uint8


@intrinsic
def open_tiles(typing_context: Any, tiles: Any) -> Any:
    """Set the tile registers up, where there are such."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if uses_amx(signature.args[0]):
            array = context.make_array(signature.args[0])(context, builder, args[0])
            _call(builder, "ldtilecfg", builder.bitcast(array.data, _POINTER))
        return context.get_dummy_value()

    return types.void(tiles), generate


@intrinsic
def close_tiles(typing_context: Any, tiles: Any) -> Any:
    """Give the tile registers back."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if uses_amx(signature.args[0]):
            _call(builder, "tilerelease")
        return context.get_dummy_value()

    return types.void(tiles), generate


def emit_amx(
    builder: Any, codes: Any, width: Any, weights: Any, num_inputs: Any, sums: Any
) -> None:
    """Emit the products with AMX; see :func:`emit_vectors`."""
    num_tiles = COLUMNS // LANES
    for tile in range(num_tiles):
        _call(builder, "tilezero", _number(tile))
    steps = cgutils.for_range_slice(builder, cgutils.intp_t(0), num_inputs, cgutils.intp_t(64))
    with steps as (at, _):
        first = builder.gep(codes, [at])
        _call(builder, "tileloadd64", _number(num_tiles), first, width)
        start = builder.mul(at, cgutils.intp_t(COLUMNS))
        for tile in range(num_tiles):
            column = builder.gep(weights, [builder.add(start, cgutils.intp_t(64 * tile))])
            other = _number(num_tiles + 1 + tile % (7 - num_tiles))
            _call(builder, "tileloadd64", other, column, cgutils.intp_t(_ROW_BYTES))
            _call(builder, "tdpbusd", _number(tile), _number(num_tiles), other)
    for tile in range(num_tiles):
        place = builder.gep(sums, [cgutils.intp_t(64 * tile)])
        _call(builder, "tilestored64", _number(tile), place, cgutils.intp_t(_ROW_BYTES))


def emit_vectors(
    builder: Any, codes: Any, width: Any, weights: Any, num_inputs: Any, sums: Any
) -> None:
    """Emit the products with byte dot products.

    Args:
        builder: of LLVM instructions.
        codes: pointer to 16 rows of unsigned bytes.
        width: bytes from one row to the next.
        weights: pointer to the weights of 64 columns.
        num_inputs: how many inputs, a multiple of 64.
        sums: pointer to (16, 64) 32-bit integers, which are set.
    """
    num_vectors = COLUMNS // LANES
    one, step = cgutils.intp_t(1), cgutils.intp_t(_GROUP)
    with cgutils.for_range_slice(builder, cgutils.intp_t(0), cgutils.intp_t(ROWS), step) as (
        first_row,
        _,
    ):
        nothing = ir.Constant(_WORDS, None)
        totals = [
            [cgutils.alloca_once_value(builder, nothing) for _ in range(num_vectors)]
            for _ in range(_GROUP)
        ]
        rows = [builder.add(first_row, cgutils.intp_t(row)) for row in range(_GROUP)]
        starts = [builder.gep(codes, [builder.mul(row, width)]) for row in rows]
        groups = builder.sdiv(num_inputs, cgutils.intp_t(4))
        with cgutils.for_range_slice(builder, cgutils.intp_t(0), groups, one) as (group, _):
            at = builder.mul(group, cgutils.intp_t(_ROW_BYTES))
            columns = [
                _load(builder, weights, builder.add(at, cgutils.intp_t(4 * LANES * v)), _BYTES)
                for v in range(num_vectors)
            ]
            for start, own in zip(starts, totals, strict=True):
                four = _load(builder, start, builder.mul(group, cgutils.intp_t(4)), _WORD)
                repeated = builder.bitcast(splat(builder, four, _WORDS), _BYTES)
                for total, column in zip(own, columns, strict=True):
                    result = _emit_dot4(builder, builder.load(total), repeated, column)
                    builder.store(result, total)
        for row, own in zip(rows, totals, strict=True):
            for v, total in enumerate(own):
                at = builder.mul(row, cgutils.intp_t(_ROW_BYTES))
                at = builder.add(at, cgutils.intp_t(4 * LANES * v))
                pointer = builder.bitcast(builder.gep(sums, [at]), _WORDS.as_pointer())
                builder.store(builder.load(total), pointer, align=4)


def splat(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    """Repeat a number to a vector."""
    undefined = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(undefined, value, ir.Constant(_WORD, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(_WORDS, [0] * LANES))


def _load(builder: Any, pointer: Any, at: Any, kind: ir.Type) -> Any:
    place = builder.bitcast(builder.gep(pointer, [at]), kind.as_pointer())
    return builder.load(place, align=1)


def _number(tile: int) -> Any:
    return ir.Constant(_BYTE, tile)


def _call(builder: Any, name: str, *args: Any) -> None:
    kind = ir.FunctionType(_NOTHING, [value.type for value in args])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.x86.{name}"), args)
