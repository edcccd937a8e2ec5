"""Entropy coding of codes: frequent ones in few bits (the third stage of Deep Compression)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_choice
from recsys_lib.compression.quantization.huffman import (
    code_lengths,
    huffman_decode,
    huffman_encode,
)
from recsys_lib.compression.quantization.packing import pack_bits
from recsys_lib.compression.quantization.rans import (
    quantize_frequencies,
    rans_decode,
    rans_encode,
)
from recsys_lib.compression.tensors import EncodedTensor, read_tensor

_CODERS = ("rans", "huffman")
_CONTEXTS = ("tensor", "column", "smallest")
_ADDED = ("coded_stream", "coded_lanes", "coded_tables", "coded_widths")


@dataclass(frozen=True)
class EntropyCoding:
    """Choices of entropy coding.

    Args:
        coder: "rans" (a range coder; reaches the entropy) or "huffman" (whole bits, so at least
            one bit for each code).
        contexts: "tensor" counts all codes together, "column" each column of the codes by itself,
            which pays where columns differ and costs a table for each; "smallest" tries both.

    Raises:
        ValueError: another name.
    """

    coder: str = "rans"
    contexts: str = "smallest"

    def __post_init__(self) -> None:
        check_choice("coder", self.coder, _CODERS)
        check_choice("contexts", self.contexts, _CONTEXTS)


class EntropyCodedTensor(EncodedTensor):
    """Another stored form, whose codes are entropy coded instead of packed.

    Args:
        inner: a stored form with integer codes: its ``codes``, of which the last axis is the
            column, its ``header()["bits"]``, and its packed ``arrays()["codes"]`` (uint16 as they
            are for more than 8 bits).
        config: choices.

    Raises:
        TypeError: a stored form without codes.

    Example:
        >>> from recsys_lib.compression.quantization.codebooks import CodebookTensor
        >>> codes = np.zeros((2000, 4), np.uint8)
        >>> codes[:100] = 15
        >>> inner = CodebookTensor(codes, np.linspace(0, 1, 16)[None].astype("float16"), bits=4)
        >>> coded = EntropyCodedTensor(inner, EntropyCoding(contexts="tensor"))
        >>> inner.arrays()["codes"].nbytes, coded.arrays()["coded_stream"].nbytes
        (4000, 286)
        >>> bool((coded.decode() == inner.decode()).all())
        True
    """

    kind = "entropy"

    def __init__(self, inner: EncodedTensor, config: EntropyCoding | None = None) -> None:
        config = config or EntropyCoding()
        if not hasattr(inner, "codes") or "codes" not in inner.arrays():
            raise TypeError(
                f"inner is stored as {inner.kind!r}: expected a form with codes, such as a "
                "quantized one"
            )
        tries = [config.contexts] if config.contexts != "smallest" else ["tensor", "column"]
        stored = [(name, _encode(inner.codes, config.coder, name)) for name in tries]
        contexts, self._coded = min(stored, key=lambda s: sum(a.nbytes for a in s[1].values()))
        self.inner, self.shape = inner, inner.shape
        self.coder, self.contexts = config.coder, contexts

    def header(self) -> dict[str, Any]:
        """Give the coder, and the header of the inner form."""
        return {
            "coder": self.coder,
            "contexts": self.contexts,
            "codes_shape": list(self.inner.codes.shape),
            "inner": self.inner.kind,
            "inner_header": self.inner.header(),
            "shape": list(self.shape),
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Give the coded codes, and the other arrays of the inner form."""
        others = {name: array for name, array in self.inner.arrays().items() if name != "codes"}
        return others | self._coded

    @classmethod
    def from_parts(cls, header: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        """Decode the codes and put header and arrays together again."""
        coder, contexts = header["coder"], header["contexts"]
        config = EntropyCoding(coder, contexts)
        coded = {name: arrays[name] for name in _ADDED}
        codes = _decode(coded, header["codes_shape"], coder, contexts)
        others = {name: array for name, array in arrays.items() if name not in _ADDED}
        bits = header["inner_header"]["bits"]
        others["codes"] = pack_bits(codes, bits) if bits <= 8 else codes.ravel()
        return cls(read_tensor(header["inner"], header["inner_header"], others), config)

    def decode(self) -> NDArray[np.float32]:
        """Give the array."""
        return self.inner.decode()

    def decode_codes(self) -> NDArray[np.uint16]:
        """Read the codes out of the stream, in their shape: what loading a file has to do."""
        shape = self.header()["codes_shape"]
        return _decode(self._coded, shape, self.coder, self.contexts)


def entropy_bits(codes: ArrayLike, contexts: str = "tensor") -> float:
    """Give the least number of bits for codes that come independently: their entropy.

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
    symbols, rows = _flat(np.asarray(codes), contexts)
    counts = _counts(symbols, rows).astype(np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return float(-(counts[counts > 0] * np.log2(shares[counts > 0])).sum())


def _encode(codes: NDArray[np.integer], coder: str, contexts: str) -> dict[str, NDArray[Any]]:
    symbols, rows = _flat(codes, contexts)
    counts = _counts(symbols, rows)
    stream: NDArray[Any]
    if coder == "huffman":
        tables = np.stack([code_lengths(row) for row in counts])
        stream, lanes = huffman_encode(symbols, tables, rows)
    else:
        tables = _short_counts(counts)
        stream, lanes = rans_encode(symbols, quantize_frequencies(_long_counts(tables)), rows)
    # A context's table ends with the last symbol that occurs in it.
    widths = [np.flatnonzero(row)[-1] + 1 if row.any() else 0 for row in tables]
    kept = np.concatenate([row[:width] for row, width in zip(tables, widths, strict=True)])
    parts = (stream, lanes, kept, np.array(widths, np.uint16))
    return dict(zip(_ADDED, parts, strict=True))


def _decode(
    coded: dict[str, NDArray[Any]], shape: list[int], coder: str, contexts: str
) -> NDArray[np.uint16]:
    stream, lanes, kept, widths = (coded[name] for name in _ADDED)
    inside = np.arange(int(widths.max())) < widths[:, None]  # (contexts, symbols)
    tables = np.zeros(inside.shape, np.uint8)
    tables[inside] = kept
    size = int(np.prod(shape))
    rows = np.arange(size) % shape[-1] if contexts == "column" else None
    if coder == "huffman":
        symbols = huffman_decode(stream, lanes, size, tables, rows)
    else:
        frequencies = quantize_frequencies(_long_counts(tables))
        symbols = rans_decode(stream, lanes, size, frequencies, rows)
    return symbols.reshape(shape)


def _flat(
    codes: NDArray[np.integer], contexts: str
) -> tuple[NDArray[np.integer], NDArray[np.int64] | None]:
    """Give codes one after the other, and the column of each where columns are contexts."""
    columns = codes.shape[-1] if codes.ndim else 1
    return codes.ravel(), np.arange(codes.size) % columns if contexts == "column" else None


def _counts(symbols: NDArray[np.integer], rows: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Count symbols in each context, (contexts, symbols)."""
    width = int(symbols.max()) + 1
    if rows is None:
        return np.bincount(symbols, minlength=width)[None]
    contexts = int(rows.max()) + 1
    return np.bincount(rows * width + symbols, minlength=contexts * width).reshape(contexts, width)


def _short_counts(counts: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Store a count in one byte, as 1 + 8 log2(count): 4 % off at most, which costs .05 % bits."""
    return np.where(counts > 0, 1 + np.rint(8 * np.log2(np.maximum(counts, 1))), 0).astype(np.uint8)


# What a byte stands for, scaled so that neighbours differ; whole numbers, equal on every machine.
_COUNT_OF_BYTE = np.array([0, *(round(64 * 2 ** (byte / 8)) for byte in range(255))], np.int64)


def _long_counts(stored: NDArray[np.uint8]) -> NDArray[np.int64]:
    return _COUNT_OF_BYTE[stored]
