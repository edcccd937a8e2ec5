"""Measured speeds of a machine, what a model asks of it, and the time that the two imply."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number

_DEFAULT_BYTES = 1 << 28
# Instruction sets that matter for small models, as the kernel names them, and as people do.
_FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "asimddp": "dot product"}

# Layers that move numbers, or forget them, without arithmetic on them.
_FREE = {
    "InputLayer", "Embedding", "Concatenate", "Reshape", "Flatten", "Dropout", "Identity",
    "GaussianNoise", "Lookup", "Squeeze", "ExpandDims", "Permute",
}  # fmt: skip
# Operations for each number of the output.
_PER_OUTPUT = {"Activation": 1, "ReLU": 1, "Rescaling": 2, "BatchNormalization": 2}
_BETWEEN_INPUTS = {"Add", "Multiply", "Subtract", "Average", "Maximum", "Minimum"}


@dataclass(frozen=True)
class Machine:
    """Measured speeds of a machine: a reference for programs that do the same work.

    Args:
        read_bytes_per_s: of one thread, out of memory.
        flops_per_s: of a float32 matrix product, with the threads NumPy uses.
        hardware: in words.

    Example:
        >>> Machine(1e10, 1e11, "a processor")
        Machine(reads 10.0 GB/s, multiplies 100 GFLOP/s; a processor)
    """

    read_bytes_per_s: float
    flops_per_s: float
    hardware: str

    def __repr__(self) -> str:
        gigabytes, gigaflops = self.read_bytes_per_s / 1e9, self.flops_per_s / 1e9
        done = f"reads {gigabytes:.1f} GB/s, multiplies {gigaflops:,.0f} GFLOP/s"
        return f"Machine({done}; {self.hardware})"


@dataclass(frozen=True)
class Roofline:
    """Reference time of a job: reading its bytes or doing its arithmetic, whichever is longer.

    Args:
        memory_s: for the bytes, at the measured speed.
        compute_s: for the arithmetic, at the measured speed.

    Attributes:
        seconds: the longer of the two.
        limit: which one that is: "memory" or "compute".
    """

    memory_s: float
    compute_s: float

    seconds = property(lambda self: max(self.memory_s, self.compute_s))
    limit = property(lambda self: "memory" if self.memory_s >= self.compute_s else "compute")


def read_bandwidth(table: NDArray[Any] | None = None, *, repeats: int = 20) -> float:
    """Return how many bytes of an array one thread reads a second, in its fastest reading.

    What is timed is ``numpy.bitwise_or.reduce`` over 8-byte words: one load and one instruction for
    each vector register, so that memory decides. It is a reference, and another program may read a
    little faster; a table that fits into a cache is read at the cache's speed.

    Args:
        table: a contiguous array of a multiple of 8 bytes; None for 256 MB.
        repeats: how often, after two readings that are not timed.

    Raises:
        TypeError: repeats is not an integer.
        ValueError: table is empty, not contiguous or of another number of bytes; repeats below 1.

    Example:
        >>> read_bandwidth(np.zeros((1000, 64), np.float32)) > 1e6
        True
    """
    repeats = check_number("repeats", repeats, 1, integer=True)
    if table is None:
        table = np.ones(_DEFAULT_BYTES // 8, np.int64)
    if table.nbytes == 0 or table.nbytes % 8 or not table.flags.c_contiguous:
        raise ValueError(f"table has {table.nbytes} bytes: expected a contiguous multiple of 8")
    words = table.reshape(-1).view(np.int64)
    return table.nbytes / _best_seconds(lambda: np.bitwise_or.reduce(words), repeats)


def measure_machine(*, repeats: int = 10, num_bytes: int = _DEFAULT_BYTES) -> Machine:
    """Measure what :func:`roofline` needs: about half a second.

    Args:
        repeats: how often each.
        num_bytes: how much to read; well above the cache.

    Example:
        >>> measure_machine(repeats=1, num_bytes=1 << 16).flops_per_s > 0
        True
    """
    read = read_bandwidth(np.ones(max(1, num_bytes // 8), np.int64), repeats=repeats)
    size = 1024
    matrix = np.ones((size, size), np.float32)
    product = _best_seconds(lambda: matrix @ matrix, repeats)
    return Machine(read, 2 * size**3 / product, hardware_line())


def roofline(num_bytes: float, num_flops: float = 0.0, *, machine: Machine) -> Roofline:
    """Return the time of a job at the measured speeds of a machine: a reference, not a bound.

    A program whose data stay in a cache, or whose arithmetic is done by better code than that of
    NumPy's matrix product, is sooner.

    Args:
        num_bytes: that come out of memory.
        num_flops: that are done.
        machine: its speeds, see :func:`measure_machine`.

    Raises:
        TypeError: not a number.
        ValueError: negative.

    Source:
        Williams, Waterman & Patterson, *Roofline: an insightful visual performance model for
        multicore architectures*, CACM 2009.

    Example:
        >>> roofline(1e9, 1e9, machine=Machine(1e10, 1e11, "a processor"))
        Roofline(memory_s=0.1, compute_s=0.01)
    """
    num_bytes = check_number("num_bytes", num_bytes, 0)
    num_flops = check_number("num_flops", num_flops, 0)
    return Roofline(num_bytes / machine.read_bytes_per_s, num_flops / machine.flops_per_s)


def hardware_line() -> str:
    """Describe processor, cores and instruction sets in one line.

    Example:
        >>> "core" in hardware_line()
        True
    """
    model, flags = platform.processor() or platform.machine(), ""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip().lower() in ("flags", "features"):
                flags = value
    known = [name for flag, name in _FLAGS.items() if flag in flags.split()]
    affinity = getattr(os, "sched_getaffinity", None)  # of this process, where that can be asked
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return ", ".join([model, f"{cores} core{'s' if cores > 1 else ''}", *known])


def count_flops(model: Any) -> int:
    """Count the arithmetic of scoring one user-item pair with a functional Keras model.

    A multiplication and an addition are two; looking up an embedding is none.

    Args:
        model: a functional model, each of whose layers is used once.

    Raises:
        TypeError: not a functional model.
        ValueError: a layer whose arithmetic is not known here; the message names it.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> config = RatingModelConfig("dot_product", num_users=9, num_items=9, embedding_dim=4)
        >>> count_flops(build_rating_model(config)) >= 2 * 4
        True
    """
    layers = getattr(model, "layers", None)
    if layers is None:
        raise TypeError(f"model is a {type(model).__name__}: expected a functional Keras model")
    return sum(map(_layer_flops, layers))


def _layer_flops(layer: Any) -> int:
    kind = type(layer).__name__
    if kind in _FREE:
        return 0
    outputs = int(np.prod(layer.output.shape[1:], dtype=np.int64))  # numbers for one pair
    inputs = layer.input if isinstance(layer.input, list) else [layer.input]
    if kind == "Dense":
        activation = getattr(layer.activation, "__name__", "linear")
        extra = int(layer.use_bias) + (activation != "linear")
        return outputs * (2 * int(inputs[0].shape[-1]) + extra)
    if kind == "Dot":
        return 2 * int(np.prod(inputs[0].shape[1:], dtype=np.int64))
    if kind in _BETWEEN_INPUTS:
        return outputs * (len(inputs) - 1)
    if kind in _PER_OUTPUT:
        return outputs * _PER_OUTPUT[kind]
    known = {"Dense", "Dot"} | _BETWEEN_INPUTS | _PER_OUTPUT.keys() | _FREE
    raise ValueError(f"layer {layer.name!r} is a {kind}: expected one of {sorted(known)}")


def _best_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the shortest time of a call, after two that are not timed."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter_ns()
        function()
        times.append(max(time.perf_counter_ns() - start, 1) / 1e9)
    return min(times[2:])
