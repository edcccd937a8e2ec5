"""Entropy coders: what goes in comes out, in as many bits as the entropy and hardly more."""

from __future__ import annotations

import itertools
import lzma
import time
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from recsys_lib.compression.quantization.huffman import (
    canonical_codes,
    code_lengths,
    huffman_decode,
    huffman_encode,
)
from recsys_lib.compression.quantization.rans import (
    quantize_frequencies,
    rans_decode,
    rans_encode,
)

from recsys_lib.compression import DenseTensor, read_tensor
from recsys_lib.compression.quantization.codebooks import CodebookQuantization, quantize_codebook
from recsys_lib.compression.quantization.entropy import (
    EntropyCodedTensor,
    EntropyCoding,
    entropy_bits,
)
from recsys_lib.compression.quantization.uniform import UniformQuantization, quantize_uniform

CODERS = ["rans", "huffman"]


def bell(count: int, spread: float, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(0, spread, count)
    return np.clip(np.rint(drawn) + 128, 0, 255).astype(np.int64)


def table(rows: int = 3000, columns: int = 16) -> np.ndarray:
    spread = np.linspace(0.2, 2, columns)
    return (np.random.default_rng(0).normal(size=(rows, columns)) * spread).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 20), max_size=300),
    st.integers(1, 30),
    st.sampled_from([None, 1, 3]),
)
def test_both_coders_give_back_what_they_took(
    symbols: list[int], repeats: int, num_contexts: int | None
) -> None:
    text = np.array(symbols * repeats, np.int64)  # up to several lanes
    rows = None if num_contexts is None else np.arange(len(text)) % num_contexts
    counts = np.zeros((num_contexts or 1, 21), np.int64)
    np.add.at(counts, (0 if rows is None else rows, text), 1)
    frequencies = quantize_frequencies(counts)
    words, states = rans_encode(text, frequencies, rows)
    decoded = rans_decode(words, states, len(text), frequencies, rows)
    np.testing.assert_array_equal(decoded, text)
    lengths = np.stack([code_lengths(row) for row in counts])
    stream, starts = huffman_encode(text, lengths, rows)
    np.testing.assert_array_equal(huffman_decode(stream, starts, len(text), lengths, rows), text)


@pytest.mark.parametrize("spread", [0.4, 1.0, 5.0, 40.0])
def test_the_range_coder_reaches_the_entropy(spread: float) -> None:
    text = bell(200_000, spread)
    frequencies = quantize_frequencies(np.bincount(text)[None])
    words, states = rans_encode(text, frequencies)
    stored = 8 * (words.nbytes + states.nbytes)
    assert entropy_bits(text) <= stored <= 1.01 * entropy_bits(text)


@pytest.mark.parametrize("spread", [0.4, 1.0, 5.0, 40.0])
def test_huffman_is_within_its_bounds_and_the_range_coder_never_behind(spread: float) -> None:
    text = bell(100_000, spread)
    counts = np.bincount(text)
    lengths = code_lengths(counts)
    bits = int((counts * lengths).sum())
    assert entropy_bits(text) <= bits < entropy_bits(text) + len(text)  # Huffman's theorem
    words, states = rans_encode(text, quantize_frequencies(counts[None]))
    assert 8 * (words.nbytes + states.nbytes) <= bits * 1.002


def test_code_lengths_are_those_of_the_textbook() -> None:
    # Cormen et al., Introduction to Algorithms: frequencies of a to f cost 224,000 bits in all.
    counts = np.array([45, 13, 12, 16, 9, 5])
    assert code_lengths(counts).tolist() == [1, 3, 3, 3, 4, 4]
    assert (counts * code_lengths(counts)).sum() == 224


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=300))
def test_codes_are_prefix_free_and_not_too_long(counts: list[int]) -> None:
    lengths = code_lengths(np.array(counts))
    assert ((lengths > 0) == (np.array(counts) > 0)).all() and lengths.max() <= 12
    codes = canonical_codes(lengths)
    words = sorted(
        f"{code:0{length}b}" for code, length in zip(codes, lengths, strict=True) if length
    )
    assert not any(b.startswith(a) for a, b in itertools.pairwise(words))


def test_a_long_tail_is_cut_to_twelve_bits() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    counts = np.array(fibonacci)
    lengths = code_lengths(counts)
    bits = entropy_bits(np.repeat(np.arange(30), counts)) if counts.sum() < 5e6 else None
    assert lengths.max() == 12
    assert bits is None or (counts * lengths).sum() < 1.1 * bits


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=400))
def test_frequencies_add_up_and_forget_nobody(counts: list[int]) -> None:
    found = quantize_frequencies(np.array([counts]))[0]
    assert found.sum(dtype=int) == 4096
    assert (found[np.array(counts) > 0] > 0).all()
    if any(counts):
        assert (found[np.array(counts) == 0] == 0).all()


@pytest.mark.parametrize("coder", CODERS)
@pytest.mark.parametrize("contexts", ["tensor", "column", "smallest"])
def test_a_coded_tensor_decodes_as_before_from_its_parts(coder: str, contexts: str) -> None:
    inner = quantize_uniform(table(), UniformQuantization(4, granularity="tensor"))
    coded = EntropyCodedTensor(inner, EntropyCoding(coder, contexts))
    np.testing.assert_array_equal(coded.decode(), inner.decode())
    np.testing.assert_array_equal(coded.decode_codes(), inner.codes)
    again = read_tensor(coded.kind, coded.header(), coded.arrays())
    np.testing.assert_array_equal(again.decode(), inner.decode())
    assert again.nbytes == coded.nbytes < inner.nbytes
    assert "codes" not in coded.arrays()


def test_columns_as_contexts_pay_where_columns_differ() -> None:
    codes = quantize_uniform(table(), UniformQuantization(4, granularity="tensor"))
    sizes = {c: EntropyCodedTensor(codes, EntropyCoding(contexts=c)).nbytes
             for c in ("tensor", "column", "smallest")}  # fmt: skip
    assert sizes["column"] < 0.93 * sizes["tensor"]
    assert sizes["smallest"] == sizes["column"]
    same = quantize_codebook(table(40, 16), CodebookQuantization(4, 1))
    assert EntropyCodedTensor(same).contexts == "tensor"


def test_stored_bytes_with_tables_are_near_the_entropy_and_below_general_coders() -> None:
    inner = quantize_codebook(table(20_000, 8), CodebookQuantization(3))
    coded = EntropyCodedTensor(inner, EntropyCoding(contexts="column"))
    assert 8 * coded.nbytes <= 1.02 * entropy_bits(inner.codes, "column")
    packed, loose = inner.arrays()["codes"].tobytes(), inner.codes.tobytes()
    general = min(
        len(compress(data))
        for data in (packed, loose)
        for compress in (lambda x: zlib.compress(x, 9), lzma.compress)
    )
    assert coded.nbytes < 0.95 * general


def test_reading_is_quick() -> None:
    text = bell(700_000, 3.0)
    frequencies = quantize_frequencies(np.bincount(text)[None])
    words, states = rans_encode(text, frequencies)
    start = time.perf_counter()
    rans_decode(words, states, len(text), frequencies)
    assert time.perf_counter() - start < 5  # 0.07 on a quiet machine


def test_damage_is_noticed() -> None:
    text = bell(20_000, 2.0)
    frequencies = quantize_frequencies(np.bincount(text)[None])
    words, states = rans_encode(text, frequencies)
    for damaged in (words[:-3], np.r_[words, words[:2]], words ^ np.uint16(5)):
        with pytest.raises(ValueError, match="damaged"):
            rans_decode(damaged, states, len(text), frequencies)
    with pytest.raises(ValueError, match="lanes"):
        rans_decode(words, states[:-1], len(text), frequencies)
    lengths = code_lengths(np.bincount(text))[None]
    stream, starts = huffman_encode(text, lengths)
    with pytest.raises(ValueError, match="damaged"):
        huffman_decode(stream[:-9], starts, len(text), lengths)
    with pytest.raises(ValueError, match="prefix code"):
        huffman_decode(stream, starts, len(text), np.ones_like(lengths))


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="coder is 'zip'"):
        EntropyCoding("zip")
    with pytest.raises(ValueError, match="contexts is 'row'"):
        EntropyCoding(contexts="row")
    with pytest.raises(TypeError, match="inner is stored as 'dense'"):
        EntropyCodedTensor(DenseTensor(np.ones(3)))
    with pytest.raises(ValueError, match="symbol 2 has frequency 0"):
        rans_encode(np.array([0, 2]), quantize_frequencies(np.array([[1, 1, 0]])))
    with pytest.raises(ValueError, match="symbol 1 has no code"):
        huffman_encode(np.array([0, 1]), np.array([[1, 0]], np.uint8))
