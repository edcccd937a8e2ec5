"""What this machine can do at best: reading memory, multiplying, and the time these imply."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number

if TYPE_CHECKING:
    import pandas as pd

_DEFAULT_BYTES = 1 << 28
# Instruction sets that matter for small models, as the kernel names them, and as people do.
_FLAGS = {"avx2": "AVX2", "avx512f": "AVX-512", "avx512_vnni": "VNNI", "asimddp": "dot product"}


@dataclass(frozen=True)
class ReadBandwidth:
    """How fast one thread reads memory.

    Args:
        num_bytes: size of what was read.
        p50_s: median time of reading all of it once.
        best_s: shortest time.

    Example:
        >>> ReadBandwidth(num_bytes=10**9, p50_s=0.1, best_s=0.08)
        ReadBandwidth(1,000.0 MB in 100,000 us p50, 10.0 GB/s)
    """

    num_bytes: int
    p50_s: float
    best_s: float

    @property
    def bytes_per_s(self) -> float:
        """Bytes a second at the median."""
        return self.num_bytes / self.p50_s

    def __repr__(self) -> str:
        return (
            f"ReadBandwidth({self.num_bytes / 1e6:,.1f} MB in {self.p50_s * 1e6:,.0f} us p50, "
            f"{self.bytes_per_s / 1e9:.1f} GB/s)"
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row."""
        return _one_row(self, bytes_per_s=self.bytes_per_s)


@dataclass(frozen=True)
class Machine:
    """Limits of a machine.

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
        return (
            f"Machine(reads {self.read_bytes_per_s / 1e9:.1f} GB/s, "
            f"multiplies {self.flops_per_s / 1e9:,.0f} GFLOP/s; {self.hardware})"
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row."""
        return _one_row(self)


@dataclass(frozen=True)
class Roofline:
    """The least time a job takes: reading its bytes or doing its arithmetic, whichever is longer.

    Args:
        num_bytes: read.
        num_flops: done; a multiplication and an addition are two.
        memory_s: for the bytes.
        compute_s: for the arithmetic.
    """

    num_bytes: float
    num_flops: float
    memory_s: float
    compute_s: float

    @property
    def seconds(self) -> float:
        """The bound."""
        return max(self.memory_s, self.compute_s)

    @property
    def limit(self) -> str:
        """What it is bound by: "memory" or "compute"."""
        return "memory" if self.memory_s >= self.compute_s else "compute"

    def __repr__(self) -> str:
        return (
            f"Roofline(at least {self.seconds * 1e6:,.1f} us, bound by {self.limit}: "
            f"memory {self.memory_s * 1e6:,.1f} us, compute {self.compute_s * 1e6:,.1f} us)"
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row."""
        return _one_row(self, seconds=self.seconds, limit=self.limit)


def read_bandwidth(table: NDArray[Any] | None = None, *, repeats: int = 20) -> ReadBandwidth:
    """Time the reading of an array, once through, by one thread.

    What is timed is ``numpy.bitwise_or.reduce`` over 8-byte words: one load and one instruction for
    each vector register, so that nothing but the memory limits it. No program that looks at all of
    the table once can be faster; a table that fits into a cache is read at the cache's speed.

    Args:
        table: a contiguous array of a multiple of 8 bytes; None for 256 MB of zeros.
        repeats: how often, after two readings that are not timed.

    Raises:
        TypeError: repeats is not an integer.
        ValueError: table is empty, not contiguous or of another number of bytes; repeats below 1.

    Example:
        >>> result = read_bandwidth(np.zeros((1000, 64), np.float32))
        >>> result.num_bytes, result.best_s <= result.p50_s
        (256000, True)
    """
    check_number("repeats", repeats, 1, integer=True)
    if table is None:
        table = np.ones(_DEFAULT_BYTES // 8, np.int64)
    if table.nbytes == 0 or table.nbytes % 8 or not table.flags.c_contiguous:
        raise ValueError(
            f"table has {table.nbytes} bytes: expected a contiguous array of a multiple of 8 bytes"
        )
    words = table.reshape(-1).view(np.int64)
    times = _seconds(lambda: np.bitwise_or.reduce(words), repeats)
    return ReadBandwidth(table.nbytes, float(np.median(times)), float(times.min()))


def measure_machine(*, repeats: int = 10, num_bytes: int = _DEFAULT_BYTES) -> Machine:
    """Measure what :func:`roofline` needs: about half a second.

    Args:
        repeats: how often each.
        num_bytes: how much to read; well above the cache.

    Example:
        >>> measure_machine(repeats=1, num_bytes=1 << 16).flops_per_s > 0
        True
    """
    table = np.ones(max(1, num_bytes // 8), np.int64)
    read = read_bandwidth(table, repeats=repeats)
    size = 1024
    matrix = np.ones((size, size), np.float32)
    product = _seconds(lambda: matrix @ matrix, repeats).min()
    return Machine(read.num_bytes / read.best_s, 2 * size**3 / float(product), hardware_line())


def roofline(
    num_bytes: float, num_flops: float = 0.0, *, machine: Machine | None = None
) -> Roofline:
    """Give the time that no implementation on this machine can beat.

    Args:
        num_bytes: that must come out of memory.
        num_flops: that must be done.
        machine: its limits; measured when None.

    Raises:
        TypeError: not a number.
        ValueError: negative.

    Source:
        Williams, Waterman & Patterson, *Roofline: an insightful visual performance model for
        multicore architectures*, CACM 2009.

    Example:
        >>> roofline(1e9, 1e9, machine=Machine(1e10, 1e11, "a processor"))
        Roofline(at least 100,000.0 us, bound by memory: memory 100,000.0 us, compute 10,000.0 us)
    """
    check_number("num_bytes", num_bytes, 0)
    check_number("num_flops", num_flops, 0)
    machine = measure_machine() if machine is None else machine
    memory, compute = num_bytes / machine.read_bytes_per_s, num_flops / machine.flops_per_s
    return Roofline(num_bytes, num_flops, memory, compute)


def available_cores() -> int:
    """Give the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
    cores = available_cores()
    return ", ".join([model, f"{cores} core{'s' if cores > 1 else ''}", *known])


def _seconds(function: Any, repeats: int) -> NDArray[np.float64]:
    for _ in range(2):
        function()
    times = np.empty(repeats)
    for repeat in range(repeats):
        start = time.perf_counter_ns()
        function()
        times[repeat] = max(time.perf_counter_ns() - start, 1) / 1e9
    return times


def _one_row(result: Any, **more: Any) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([vars(result) | more])
