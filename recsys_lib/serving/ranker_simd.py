"""Vector instructions for Numba: the steps of a dense network on bytes, for 16 rows at once.

Written like :mod:`recsys_lib.serving.simd`: LLVM instructions that are built in Python, so that
loops over rows and vectors are unrolled. The largest value of each row, which its scale depends on,
is kept on the way as 16 numbers, one for each lane of a vector.

All arrays are contiguous; the caller keeps every place that is named inside of them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsys_lib.serving.ranker_products import (
    COLUMNS,
    LANES,
    ROWS,
    emit_amx,
    emit_vectors,
    splat,
    uses_amx,
)

_TINY = 1e-30
_BYTE, _WORD, _REAL = ir.IntType(8), ir.IntType(32), ir.FloatType()
_WORDS, _REALS = ir.VectorType(_WORD, LANES), ir.VectorType(_REAL, LANES)
_FEW_BYTES = ir.VectorType(_BYTE, LANES)
_UNROLLED = 4


class _Memory:
    """An array argument of an intrinsic: read and written by element number."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        array = context.make_array(kind)(context, builder, value)
        self.builder, self.data = builder, array.data
        self.width = cgutils.unpack_tuple(builder, array.shape)[-1]

    def bytes_from(self, at: Any) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [at]), _BYTE.as_pointer())

    def row(self, row: Any, first: Any) -> Any:
        return self.builder.add(self.builder.mul(self.width, row), first)

    def load(self, at: Any, kind: ir.Type) -> Any:
        return self.builder.load(self._pointer(at, kind), align=1)

    def store(self, value: Any, at: Any) -> None:
        self.builder.store(value, self._pointer(at, value.type), align=1)

    def _pointer(self, at: Any, kind: ir.Type) -> Any:
        return self.builder.bitcast(self.builder.gep(self.data, [at]), kind.as_pointer())


def _memories(context: Any, builder: Any, signature: Any, args: Any, places: Any) -> list[_Memory]:
    return [_Memory(context, builder, signature.args[k], args[k]) for k in places]


def _loop(builder: Any, stop: Any, step: int) -> Any:
    stop = cgutils.intp_t(stop) if isinstance(stop, int) else stop
    return cgutils.for_range_slice(builder, cgutils.intp_t(0), stop, cgutils.intp_t(step))


def _zeros() -> Any:
    return ir.Constant(_REALS, [0.0] * LANES)


def _multiply_add(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return builder.fadd(builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _largest_of(builder: Any, values: Any) -> Any:
    """Give the largest of 16 numbers, and never 0."""
    undefined = ir.Constant(_REALS, ir.Undefined)
    for distance in (8, 4, 2, 1):
        turned = [(lane + distance) % LANES for lane in range(LANES)]
        other = builder.shuffle_vector(values, undefined, ir.Constant(_WORDS, turned))
        values = _larger(builder, values, other)
    top = builder.extract_element(values, ir.Constant(_WORD, 0))
    return _larger(builder, top, ir.Constant(_REAL, _TINY))


@intrinsic
def add_relu(
    typing_context: Any, items: Any, item: Any, users: Any, user: Any,
    values: Any, row: Any, largest: Any,
) -> Any:  # fmt: skip
    """Set ``values[row, :n] = relu(items[item] + users[user])``, and the row of ``largest``.

    ``items``, ``users`` (..., n), ``values`` (16, n or more) and ``largest`` (16, 16) are float32.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        i, u, out, top = _memories(context, builder, signature, args, (0, 2, 4, 6))
        _, item, _, user, _, row, _ = args
        most = cgutils.alloca_once_value(builder, _zeros())
        with _loop(builder, i.width, LANES) as (at, _):
            a, b = i.load(i.row(item, at), _REALS), u.load(u.row(user, at), _REALS)
            value = _larger(builder, builder.fadd(a, b), _zeros())
            out.store(value, out.row(row, at))
            builder.store(_larger(builder, value, builder.load(most)), most)
        top.store(builder.load(most), top.row(row, cgutils.intp_t(0)))
        return context.get_dummy_value()

    size = types.intp
    return types.void(items, size, users, size, values, size, largest), generate


@intrinsic
def to_bytes(
    typing_context: Any, values: Any, num_values: Any, codes: Any, row_scales: Any, largest: Any
) -> Any:
    """Round ``values[:, :num_values]``, 0 and more, to codes: 255 is the largest of the row.

    ``values`` (16, width) float32, ``codes`` (16, width) uint8, ``num_values`` a multiple of 16;
    sets ``row_scales`` (16,) to what one step of a code is worth, and ``largest`` to zero.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, target, scales, top = _memories(context, builder, signature, args, (0, 2, 3, 4))
        half = ir.Constant(_REALS, [0.5] * LANES)
        with _loop(builder, ROWS, _UNROLLED) as (first, _):
            rows = [builder.add(first, cgutils.intp_t(row)) for row in range(_UNROLLED)]
            factors = []
            for row in rows:
                lanes = top.row(row, cgutils.intp_t(0))
                most = _largest_of(builder, top.load(lanes, _REALS))
                top.store(_zeros(), lanes)
                scales.store(builder.fmul(most, ir.Constant(_REAL, 1 / 255)), row)
                factor = builder.fdiv(ir.Constant(_REAL, 255.0), most)
                factors.append(splat(builder, factor, _REALS))
            with _loop(builder, args[1], LANES) as (at, _):
                for row, factor in zip(rows, factors, strict=True):
                    value = source.load(source.row(row, at), _REALS)
                    value = _multiply_add(builder, value, factor, half)
                    code = builder.trunc(builder.fptosi(value, _WORDS), _FEW_BYTES)
                    target.store(code, target.row(row, at))
        return context.get_dummy_value()

    return types.void(values, types.intp, codes, row_scales, largest), generate


@intrinsic
def dense_relu(
    typing_context: Any, tiles: Any, codes: Any, weights: Any, first_weight: Any, num_inputs: Any,
    sums: Any, row_scales: Any, scales: Any, biases: Any, first_scale: Any, values: Any,
    first_value: Any, largest: Any,
) -> Any:  # fmt: skip
    """Set 64 outputs of a layer, ``relu((codes @ weights) * row_scales * scales + biases)``.

    ``codes`` are (16, width) uint8, ``sums`` (16, 64) int32 is changed, ``row_scales`` (16,),
    ``values`` (16, outputs) float32; the weights of these outputs start at ``first_weight``, their
    scales and biases at ``first_scale``, and results go to ``values[:, first_value:]``.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        places = (1, 2, 5, 6, 7, 8, 10, 12)
        a, w, t, s, c, b, out, top = _memories(context, builder, signature, args, places)
        first_weight, num_inputs, first_scale, first_value = (args[k] for k in (3, 4, 9, 11))
        zero = cgutils.intp_t(0)
        emit = emit_amx if uses_amx(signature.args[0]) else emit_vectors
        start = w.bytes_from(first_weight)
        emit(builder, a.bytes_from(zero), a.width, start, num_inputs, t.bytes_from(zero))
        offsets = [cgutils.intp_t(LANES * v) for v in range(COLUMNS // LANES)]
        with _loop(builder, ROWS, 1) as (row, _):
            row_scale = splat(builder, s.load(row, _REAL), _REALS)
            lanes = top.row(row, zero)
            most = top.load(lanes, _REALS)
            for offset in offsets:
                at = builder.add(first_scale, offset)
                scale = builder.fmul(row_scale, c.load(at, _REALS))
                value = builder.sitofp(t.load(t.row(row, offset), _WORDS), _REALS)
                value = _multiply_add(builder, value, scale, b.load(at, _REALS))
                value = _larger(builder, value, _zeros())
                out.store(value, out.row(row, builder.add(first_value, offset)))
                most = _larger(builder, value, most)
            top.store(most, lanes)
        return context.get_dummy_value()

    size = types.intp
    arguments = (tiles, codes, weights, size, size, sums, row_scales, scales, biases, size)
    return types.void(*arguments, values, size, largest), generate
