"""Whole numbers of steps, each coded with the frequencies of numbers of about its size."""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_shape
from recsys_lib.compression.quantization.rans import (
    quantize_frequencies,
    rans_decode,
    rans_encode,
)
from recsys_lib.compression.tensors import EncodedTensor

_PER_OCTAVE = 4  # levels of columns; rows have half as many
_CONTEXTS = 40
_MOST = 2000  # largest number of steps: signed, less than the 4096 symbols of the coder
# What a byte in a table of counts stands for; whole numbers, equal on every machine.
_COUNT_OF_BYTE = np.array([0, *(round(64 * 2 ** (byte / 8)) for byte in range(255))], np.int64)
_ROW_NAMES = {"row_words": "words", "row_states": "states", "row_counts": "counts"}


class Spread(NamedTuple):
    """How large numbers are on average: ``rows[i] * columns[j]``."""

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]


def fit_spread(whole: NDArray[Any], *, by_row: bool = True) -> Spread:
    """Fit the mean absolute value of a table by a product of one factor a row and one a column.

    Args:
        whole: (rows, columns) numbers.
        by_row: without it all rows have the factor 1.

    Returns:
        Positive factors, also where a row or a column is all zeros.

    Example:
        >>> rows, columns = fit_spread(np.array([[4, 2], [8, 4], [4, 2]]))
        >>> round(float(rows[1] / rows[0]), 1), round(float(columns[0] / columns[1]), 1)
        (1.8, 2.0)
    """
    size = np.abs(whole).astype(np.float64)
    rows, columns = np.ones(len(size)), size.mean(axis=0) + 1e-3
    for _ in range(6 if by_row else 0):
        prior = columns.mean() / 2  # as if each row held half a number of usual size more
        rows = (size.sum(axis=1) + prior) / (columns.sum() + prior)
        columns = (size / rows[:, None]).mean(axis=0) + 1e-3
    return Spread(rows, columns)


class ContextCodedTensor(EncodedTensor):
    """Signed whole numbers times a step for each column, entropy coded by how large they may be.

    Columns differ in size, and so do rows: a popular item has large numbers in all its columns.
    The coder therefore keeps one table of frequencies for each expected size, which is the product
    of a factor of the row and one of the column, in steps of a quarter of an octave. The factors
    are stored as levels, one byte a column, and entropy coded for the rows; where row factors cost
    more than they save, they are left out. Levels are added as integers, so that every machine
    reads the same contexts.

    Args:
        whole: (rows, columns) integers from -2000 to 2000.
        steps: (columns,) positive numbers; stored as float16 of the largest.
        row_scale: (rows,) positive numbers, stored in 8 bits each, or None for 1.

    Raises:
        TypeError: ``whole`` is not of integers.
        ValueError: a number beyond that, a step that is not above 0, or other shapes than these.

    Source:
        Rissanen & Langdon, *Universal modeling and coding*, IEEE Transactions on Information
        Theory 1981, for the separation into a model of contexts and a coder.

    Example:
        >>> tensor = ContextCodedTensor(np.array([[0, -2], [1, 0]]), np.array([1.0, 0.5]))
        >>> tensor.decode().tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """

    kind = "context"

    def __init__(
        self,
        whole: NDArray[np.integer],
        steps: NDArray[np.floating],
        row_scale: NDArray[np.floating] | None = None,
    ) -> None:
        if whole.dtype.kind not in "iu":
            raise TypeError(f"whole is of type {whole.dtype}: expected integers")
        if whole.ndim != 2 or whole.size == 0:
            raise ValueError(f"whole has shape {whole.shape}: expected (rows, columns)")
        check_shape("steps", steps, (whole.shape[1],))
        if np.abs(whole).max() > _MOST:
            raise ValueError(
                f"whole reaches {np.abs(whole).max()}: expected at most {_MOST} steps; allow larger"
            )
        if not (np.isfinite(steps).all() and (steps > 0).all()):
            raise ValueError(f"steps has {steps.min()}: expected finite numbers above 0")
        self.shape: tuple[int, ...] = whole.shape
        self.whole: NDArray[np.int16] = whole.astype(np.int16)
        self._unit = float(steps.max())
        tries = [_encode(self.whole, by_row=by_row) for by_row in (False, True)]
        coded = min(tries, key=lambda parts: sum(array.nbytes for array in parts.values()))
        self._arrays = coded | {"steps": (steps / self._unit).astype(np.float16)}
        self._scale_range = [0.0, 0.0]
        if row_scale is not None:
            check_shape("row_scale", row_scale, (len(whole),))
            self._arrays["row_scale"], self._scale_range = scale_codes(row_scale)

    def header(self) -> dict[str, Any]:
        """Give the shape, the largest step, and the range of row scales if there are any."""
        header = {"shape": list(self.shape), "unit": self._unit}
        return header | {"scale_range": self._scale_range} if self._has_scale else header

    @property
    def _has_scale(self) -> bool:
        return "row_scale" in self._arrays

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give streams, counts, levels, steps and row scales."""
        return dict(self._arrays)

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Read the streams; ValueError where they are damaged."""
        rows, columns = header["shape"]
        result = cls.__new__(cls)
        result.shape, result._unit = (rows, columns), header["unit"]
        result._arrays = dict(arrays)
        result._scale_range = list(header.get("scale_range", [0.0, 0.0]))
        check_shape("steps", arrays["steps"], (columns,))
        if result._has_scale:
            check_shape("row_scale", arrays["row_scale"], (rows,))
        result.whole = _decode(arrays, rows, columns)
        return result

    def decode(self) -> NDArray[np.float32]:
        """Multiply whole numbers by steps and row scales."""
        steps = self._arrays["steps"].astype(np.float32) * np.float32(self._unit)
        values = self.whole.astype(np.float32) * steps
        return values * self.row_scale[:, None] if self._has_scale else values

    @property
    def row_scale(self) -> NDArray[np.float32]:
        """The scales of rows as they are stored, (rows,); ones if there are none."""
        if not self._has_scale:
            return np.ones(self.shape[0], np.float32)
        return scales_of_codes(self._arrays["row_scale"], self._scale_range)


def scale_codes(row_scale: NDArray[np.floating]) -> tuple[NDArray[np.uint8], list[float]]:
    """Round logarithms of positive numbers to 256 levels: codes, lowest logarithm and step.

    Example:
        >>> codes, span = scale_codes(np.array([0.5, 1.0, 2.0]))
        >>> codes.tolist(), scales_of_codes(codes, span)[[0, 2]].tolist()
        ([0, 128, 255], [0.5, 2.0])
    """
    logs = np.log2(row_scale)
    span = [float(logs.min()), float(np.ptp(logs)) / 255]
    return np.rint((logs - span[0]) / max(span[1], 1e-30)).astype(np.uint8), span


def scales_of_codes(codes: NDArray[np.uint8], span: list[float]) -> NDArray[np.float32]:
    """Give what :func:`scale_codes` rounded."""
    return np.exp2(span[0] + span[1] * codes).astype(np.float32)


def _encode(whole: NDArray[np.int16], *, by_row: bool) -> dict[str, NDArray[Any]]:
    spread = fit_spread(whole, by_row=by_row)
    columns = np.rint(np.log2(spread.columns) * _PER_OCTAVE).astype(np.int64)
    columns = np.minimum(columns - columns.min(), 255).astype(np.uint8)
    rows = np.rint(np.log2(spread.rows) * _PER_OCTAVE / 2).astype(np.int64)
    rows -= rows.min()
    stored: dict[str, NDArray[Any]] = {"columns": columns}
    if by_row:
        parts = _write(rows, np.zeros(len(rows), np.int64))
        stored |= {name: parts[short] for name, short in _ROW_NAMES.items()}
    numbers = whole.astype(np.int64)
    zigzag = 2 * np.abs(numbers) - (numbers < 0)  # 0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ...
    return stored | _write(zigzag.ravel(), _contexts(rows, columns))


def _decode(arrays: dict[str, NDArray[Any]], rows: int, columns: int) -> NDArray[np.int16]:
    check_shape("columns", arrays["columns"], (columns,))
    levels = np.zeros(rows, np.int64)
    if "row_words" in arrays:
        row_arrays = {short: arrays[name] for name, short in _ROW_NAMES.items()}
        row_arrays["widths"] = np.array([len(row_arrays["counts"])])
        levels = _read(row_arrays, np.zeros(rows, np.int64))
    zigzag = _read(arrays, _contexts(levels, arrays["columns"])).reshape(rows, columns)
    return np.where(zigzag % 2, -(zigzag + 1) // 2, zigzag // 2).astype(np.int16)


def _contexts(rows: NDArray[np.int64], columns: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Add levels; the smallest sizes share context 0."""
    levels = 2 * rows[:, None] + columns.astype(np.int64)
    return np.maximum(levels - max(int(levels.max()) - _CONTEXTS + 1, 0), 0).ravel()


def _write(symbols: NDArray[np.int64], contexts: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """Code symbols; a count takes one byte, and a context's table ends with its last symbol."""
    shape = (int(contexts.max()) + 1, int(symbols.max()) + 1)
    counts = np.bincount(contexts * shape[1] + symbols, minlength=shape[0] * shape[1])
    logs = 1 + np.rint(8 * np.log2(np.maximum(counts, 1)))
    tables = np.where(counts > 0, logs, 0).astype(np.uint8).reshape(shape)
    words, states = rans_encode(symbols, quantize_frequencies(_COUNT_OF_BYTE[tables]), contexts)
    widths = [np.flatnonzero(table)[-1] + 1 if table.any() else 0 for table in tables]
    kept = np.concatenate([table[:width] for table, width in zip(tables, widths, strict=True)])
    return {"words": words, "states": states, "counts": kept, "widths": np.array(widths, np.uint16)}


def _read(arrays: dict[str, NDArray[Any]], contexts: NDArray[np.int64]) -> NDArray[np.int64]:
    widths = arrays["widths"]
    inside = np.arange(int(widths.max())) < widths[:, None]  # (contexts, symbols)
    if int(inside.sum()) != len(arrays["counts"]) or int(contexts.max()) >= len(widths):
        raise ValueError("counts and widths do not fit together: the parts are damaged")
    tables = np.zeros(inside.shape, np.uint8)
    tables[inside] = arrays["counts"]
    frequencies = quantize_frequencies(_COUNT_OF_BYTE[tables])
    symbols = rans_decode(arrays["words"], arrays["states"], len(contexts), frequencies, contexts)
    return symbols.astype(np.int64)
