"""Checks that all compression methods share; each names the argument and what was expected."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.models.checks import check_number


def check_sparsity(sparsity: float, name: str = "sparsity") -> float:
    """Give a fraction of zeros in [0, 1).

    Example:
        >>> check_sparsity(1.0)
        Traceback (most recent call last):
        ValueError: sparsity is 1.0: expected a number in [0, 1)
    """
    value = check_number(name, sparsity, 0)
    if value >= 1:
        raise ValueError(f"{name} is {sparsity}: expected a number in [0, 1)")
    return value


def check_bits(bits: int, name: str = "bits", *, low: int = 2, high: int = 8) -> int:
    """Give a whole number of bits.

    Example:
        >>> check_bits(9)
        Traceback (most recent call last):
        ValueError: bits is 9: expected an integer from 2 to 8
    """
    value = check_number(name, bits, 0, integer=True)
    if not low <= value <= high:
        raise ValueError(f"{name} is {bits}: expected an integer from {low} to {high}")
    return value


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Give one of several names.

    Example:
        >>> check_choice("granularity", "column", ("tensor", "row"))
        Traceback (most recent call last):
        ValueError: granularity is 'column': expected one of tensor, row
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(choices)}")
    return value


def check_weights(name: str, values: ArrayLike, *, ndim: int | None = None) -> NDArray[np.float32]:
    """Give a finite float32 array that is not empty; a view where it is one already.

    Args:
        name: of the argument, for the error.
        values: numbers.
        ndim: number of dimensions, None for any.

    Raises:
        TypeError: not floating-point numbers.
        ValueError: empty, of another number of dimensions, or NaN or infinity in it.

    Example:
        >>> check_weights("kernel", [[1.0, float("nan")]])
        Traceback (most recent call last):
        ValueError: kernel holds 1 NaN or infinite values of 2: expected finite numbers
    """
    array = np.asarray(values)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} is of type {array.dtype}: expected floating-point numbers")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}: expected at least one number")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} has shape {array.shape}: expected {ndim} dimensions")
    bad = array.size - int(np.isfinite(array).sum())
    if bad:
        raise ValueError(
            f"{name} holds {bad} NaN or infinite values of {array.size}: expected finite numbers"
        )
    return np.asarray(array, np.float32)


def check_names(
    name: str, given: Mapping[str, Any] | Collection[str], known: Collection[str]
) -> None:
    """Raise ValueError unless all names are known ones.

    Example:
        >>> check_names("bits", {"user_table": 4}, ["user_vectors", "item_vectors"])
        Traceback (most recent call last):
        ValueError: bits names 'user_table': expected some of item_vectors, user_vectors
    """
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise ValueError(
            f"{name} names {unknown[0]!r}: expected some of {', '.join(sorted(known))}"
        )
