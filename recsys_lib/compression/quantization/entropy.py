"""Entropy coding of codes: frequent ones in few bits (the third stage of Deep Compression).

The coder is the range coder of ``constriction``. What is here are models of how often codes occur:
tables of frequencies, one for all codes, one a column, or one for each size that a number may have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice, check_shape
from recsys_lib.compression.quantization.uniform import Array, pack_bits
from recsys_lib.compression.tensors import EncodedTensor, check_claim, read_tensor

Arrays = dict[str, Array]
_CONTEXTS = ("tensor", "column", "size", "smallest")
_PER_OCTAVE, _MOST_CONTEXTS = 4, 40  # levels of columns; rows have half as many
# What a byte in a table of counts stands for: 0, then 2**(15 + (byte - 1) / 8). Whole numbers, so
# that a reader on another machine comes to the same frequencies.
_EIGHTHS = (32768, 35734, 38968, 42495, 46341, 50535, 55109, 60097)
_COUNT_OF_BYTE = np.array([0, *(e << o for o in range(32) for e in _EIGHTHS)][:256], np.float64)


@dataclass(frozen=True)
class EntropyCoding:
    """Choices of entropy coding.

    Args:
        contexts: "tensor" counts all codes together; "column" each column of the codes by itself,
            which pays where columns differ and costs a table for each; "size", for signed numbers
            (of :class:`TransformCoding`), has one table for each expected size of a number, which
            is a product of a factor of its row and one of its column; "smallest" tries the first
            two.

    Raises:
        ValueError: another name.

    Source:
        Rissanen & Langdon, *Universal modeling and coding*, IEEE Transactions on Information
        Theory 1981, for the separation into a model of contexts and a coder.
    """

    contexts: str = "smallest"

    def __post_init__(self) -> None:
        check_choice("contexts", self.contexts, _CONTEXTS)

    def encode(self, tensor: EncodedTensor) -> EntropyCodedTensor:
        """Return another stored form of the same array, whose codes are entropy coded, not packed.

        Args:
            tensor: a stored form with integer codes: its ``codes``, of which the last axis is the
                column, and its ``arrays()["codes"]``, packed where ``header()`` has ``bits``.

        Raises:
            TypeError: a stored form without codes, or "size" for one without signed numbers.

        Example:
            >>> from recsys_lib.compression.quantization.codebooks import CodebookTensor
            >>> codes = np.zeros((2000, 4), np.uint8)
            >>> codes[:100] = 15
            >>> inner = CodebookTensor(codes, np.linspace(0, 1, 16)[None].astype("float16"), bits=4)
            >>> coded = EntropyCoding("tensor").encode(inner)
            >>> inner.arrays()["codes"].nbytes, coded.arrays()["coded"].nbytes
            (4000, 288)
            >>> bool((coded.decode() == inner.decode()).all())
            True
        """
        if not hasattr(tensor, "codes") or "codes" not in tensor.arrays():
            raise TypeError(f"tensor is stored as {tensor.kind!r}: expected a form with codes")
        if self.contexts == "size" and not hasattr(tensor, "whole"):
            raise TypeError(f"contexts is 'size' for {tensor.kind!r}: expected signed numbers")
        names = ["tensor", "column"] if self.contexts == "smallest" else [self.contexts]
        tries = [EntropyCodedTensor(tensor, name, _encode(tensor, name)) for name in names]
        return min(tries, key=lambda coded: coded.nbytes)


class EntropyCodedTensor(EncodedTensor):
    """Another stored form, whose codes are entropy coded; made by :meth:`EntropyCoding.encode`.

    Args:
        inner: the stored form.
        contexts: which codes share a table of frequencies.
        coded: what is stored in the place of ``codes``.
    """

    kind = "entropy"
    settings = ("contexts", "inner", "inner_header", "codes_shape")

    def __init__(self, inner: Any, contexts: str, coded: Arrays) -> None:
        self.inner, self.contexts = inner, contexts
        header = {"contexts": contexts, "inner": inner.kind, "inner_header": inner.header()}
        if inner.codes.shape != inner.shape:
            header["codes_shape"] = list(inner.codes.shape)
        others = {name: array for name, array in inner.arrays().items() if name != "codes"}
        self._header, self._arrays, self.shape = header, others | coded, inner.shape

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: Arrays) -> Self:
        """Decode the codes and return the tensor from its header and arrays."""
        contexts, settings = header["contexts"], header["inner_header"]
        codes = _decode(arrays, header.get("codes_shape", settings["shape"]), contexts)
        coded = {name: array for name, array in arrays.items() if name.startswith("coded")}
        others = {name: array for name, array in arrays.items() if name not in coded}
        others["codes"] = pack_bits(codes, settings["bits"]) if "bits" in settings else codes
        return cls(read_tensor(header["inner"], settings, others), contexts, coded)

    def decode(self) -> NDArray[np.float32]:
        """Return the array."""
        return self.inner.decode()

    def decode_codes(self) -> NDArray[np.uint16]:
        """Read the codes out of the stream, in their shape: what loading a file has to do."""
        return _decode(self._arrays, list(self.inner.codes.shape), self.contexts)


def entropy_bits(codes: ArrayLike, contexts: str = "tensor") -> float:
    """Return the least number of bits for codes that come independently: their entropy.

    Args:
        codes: non-negative integers; the last axis is the column.
        contexts: "tensor" or "column", see :class:`EntropyCoding`.

    Returns:
        ``-sum over codes of log2(share of the code in its context)``, without any table.

    Source:
        Shannon, *A Mathematical Theory of Communication*, 1948.

    Example:
        >>> round(entropy_bits([0, 0, 1, 0]), 3)  # 3 log2(4/3) + log2(4)
        3.245
    """
    check_choice("contexts", contexts, ("tensor", "column"))
    symbols = np.asarray(codes)
    counts = _count(symbols.ravel(), _by_place(symbols.shape, contexts)).astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(-(counts[counts > 0] * np.log2(shares[counts > 0])).sum())


def fit_spread(whole: NDArray[Any], *, by_row: bool = True) -> tuple[Array, Array]:
    """Fit the mean absolute value of a table by a product of one factor a row and one a column.

    Args:
        whole: (rows, columns) numbers.
        by_row: without it all rows have the factor 1.

    Returns:
        Positive factors of rows and of columns, also where one is all zeros.

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
    return rows, columns


def _encode(tensor: Any, contexts: str) -> Arrays:
    if contexts != "size":
        return _write(tensor.codes.ravel(), _by_place(tensor.codes.shape, contexts))
    tries = []
    for by_row in (False, True):  # where factors of rows cost more than they save, without
        row_size, column_size = fit_spread(tensor.whole, by_row=by_row)
        columns = np.rint(np.log2(column_size) * _PER_OCTAVE).astype(np.int64)
        columns = np.minimum(columns - columns.min(), 255).astype(np.uint8)
        rows = np.rint(np.log2(row_size) * _PER_OCTAVE / 2).astype(np.int64)
        rows -= rows.min()
        parts = _write(tensor.codes.ravel(), _by_size(rows, columns)) | {"coded_columns": columns}
        if by_row:
            levels = _write(rows, np.zeros(len(rows), np.int64))
            parts |= {name.replace("coded", "coded_rows"): a for name, a in levels.items()}
        tries.append(parts)
    return min(tries, key=lambda parts: sum(array.nbytes for array in parts.values()))


def _decode(coded: Arrays, shape: list[int], contexts: str) -> NDArray[np.uint16]:
    shape = check_claim(shape, coded)
    if contexts != "size":
        return _read(coded, _by_place(tuple(shape), contexts)).reshape(shape)
    check_shape("coded_columns", coded["coded_columns"], (shape[1],))
    rows = np.zeros(shape[0], np.int64)
    if "coded_rows" in coded:
        levels = {n.replace("coded_rows", "coded"): a for n, a in coded.items() if "rows" in n}
        rows = _read(levels, rows).astype(np.int64)
    return _read(coded, _by_size(rows, coded["coded_columns"])).reshape(shape)


def _by_place(shape: tuple[int, ...], contexts: str) -> NDArray[np.int64]:
    """Return the context of each code: its column, or 0 for all."""
    size = int(np.prod(shape))
    return np.arange(size) % shape[-1] if contexts == "column" else np.zeros(size, np.int64)


def _by_size(rows: NDArray[np.int64], columns: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Add levels, as integers; the smallest sizes share context 0."""
    levels = 2 * rows[:, None] + columns.astype(np.int64)
    return np.maximum(levels - max(int(levels.max()) - _MOST_CONTEXTS + 1, 0), 0).ravel()


def _count(symbols: NDArray[np.integer], contexts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Count symbols in each context, (contexts, symbols)."""
    shape = int(contexts.max()) + 1, int(symbols.max()) + 1
    flat = np.bincount(contexts * shape[1] + symbols, minlength=shape[0] * shape[1])
    return flat.reshape(shape)


def _write(symbols: NDArray[np.integer], contexts: NDArray[np.int64]) -> Arrays:
    """Code symbols, context by context.

    A count is stored in one byte, as 1 + 8 log2(count): 4 % off at most, which costs .05 % of the
    bits. The table of a context ends with its last symbol.
    """
    from constriction import stream

    counts = _count(symbols, contexts)
    tables = np.where(counts > 0, 1 + np.rint(8 * np.log2(np.maximum(counts, 1))), 0)
    widths = ((tables > 0) * np.arange(1, tables.shape[1] + 1)).max(axis=1)
    inside = np.arange(tables.shape[1]) < widths[:, None]
    kept = tables[inside].astype(np.uint8)
    encoder = stream.queue.RangeEncoder()
    ordered = symbols[_by_context(contexts, len(counts))].astype(np.int32)
    runs = np.split(ordered, np.cumsum(counts.sum(axis=1))[:-1])
    for run, model in zip(runs, _models(kept, widths), strict=True):
        if len(run):
            encoder.encode(run, model)
    facts = {"coded_counts": kept, "coded_widths": widths.astype(np.uint16)}
    return {"coded": encoder.get_compressed(), **facts}


def _by_context(contexts: NDArray[np.int64], number: int) -> NDArray[np.int64]:
    return np.argsort(contexts.astype(np.min_scalar_type(number)), kind="stable")  # small: by radix


def _read(coded: Arrays, contexts: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Return the symbols that :func:`_write` coded."""
    from constriction import stream

    kept, widths = coded["coded_counts"], coded["coded_widths"].astype(np.int64)
    numbers = np.bincount(contexts, minlength=len(widths))
    if int(widths.sum()) != len(kept) or len(numbers) > len(widths) or numbers[widths == 0].any():
        raise ValueError("coded_counts and coded_widths do not fit together: they are damaged")
    decoder = stream.queue.RangeDecoder(coded["coded"].astype(np.uint32))
    symbols = np.zeros(len(contexts), np.uint16)
    order, first = _by_context(contexts, len(widths)), 0
    try:
        for number, model in zip(numbers.tolist(), _models(kept, widths), strict=True):
            if number:
                symbols[order[first : first + number]] = decoder.decode(model, number)
                first += number
    except AssertionError as error:
        raise ValueError(f"coded is damaged: {error}") from error
    if not decoder.maybe_exhausted():
        raise ValueError("coded is damaged or does not belong to these counts")
    return symbols


def _models(kept: NDArray[np.uint8], widths: NDArray[np.integer]) -> list[Any]:
    """Return the frequencies of each context as the coder takes them; None without symbols."""
    from constriction import stream

    tables = np.split(_COUNT_OF_BYTE[kept], np.cumsum(widths)[:-1])
    # Two symbols at least: the coder has no number for a certain one.
    padded = [np.append(table, 0.0) if len(table) == 1 else table for table in tables]
    family = stream.model.Categorical
    return [family(table, perfect=False) if len(table) else None for table in padded]
