"""Checks of what callers hand in. Each names the argument, what came and what was expected.

A public function calls them once, at its entry; what it calls trusts what it gets. Where a check
returns something, that is what to go on with: one array type, one kind of number.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
# Folder, files of limit and use, and what of the use is cache that can be freed: versions 2 and 1.
_CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "inactive_file"),
)


def check_number(
    name: str,
    value: Any,
    low: float,
    high: float = np.inf,
    *,
    include_low: bool = True,
    integer: bool = False,
) -> Any:
    """Return a finite number from ``low`` to ``high`` as int or float; NumPy scalars are fine.

    Args:
        name: of the argument, for the error.
        value: what came.
        low: lowest value that is allowed; not itself, without ``include_low``.
        high: highest value that is allowed.
        include_low: see ``low``.
        integer: whether it has to be whole; a float such as 3.0 is then refused.

    Raises:
        TypeError: no number, or True or False, or not whole.
        ValueError: out of range, NaN or infinite.

    Example:
        >>> check_number("embedding_dim", 0, 1, integer=True)
        Traceback (most recent call last):
        ValueError: embedding_dim is 0: expected an integer of at least 1
    """
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    kind = "an integer" if integer else "a finite number"
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise TypeError(f"{name} is {value!r}: expected {kind}")
    if not low <= value <= high or abs(value) == np.inf or (value == low and not include_low):
        bound = f"from {low:g} to {high:g}" if high < np.inf else f"of at least {low:g}"
        bound = bound if include_low else f"above {low:g}" + f" up to {high:g}" * (high < np.inf)
        raise ValueError(f"{name} is {value}: expected {kind} {bound}")
    return int(value) if integer else float(value)


def store(config: Any, **values: Any) -> None:
    """Set fields of a frozen dataclass while it is made: NumPy's numbers become Python's."""
    for name, value in values.items():
        object.__setattr__(config, name, value)


def store_numbers(config: Any, low: float, *names: str, high: float = np.inf, **how: bool) -> None:
    """Check numbers of a frozen dataclass, see ``check_number``, and keep them as int or float."""
    for name in names:
        store(config, **{name: check_number(name, getattr(config, name), low, high, **how)})


def store_flags(config: Any, *names: str) -> None:
    """Check that fields of a frozen dataclass are True or False, and keep them as bool."""
    for name in names:
        value = getattr(config, name)
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} is {value!r}: expected True or False")
        store(config, **{name: bool(value)})


def check_k(k: Any) -> int:
    """Return the length of a list, an integer of at least 1."""
    return check_number("k", k, 1, integer=True)


def check_bits(bits: Any, name: str = "bits", *, low: int = 2, high: int = 8) -> int:
    """Return a whole number of bits.

    Example:
        >>> check_bits(9)
        Traceback (most recent call last):
        ValueError: bits is 9: expected an integer from 2 to 8
    """
    return check_number(name, bits, low, high, integer=True)


def check_sparsity(sparsity: Any, name: str = "sparsity") -> float:
    """Return a fraction of zeros in [0, 1).

    Example:
        >>> check_sparsity(1.0)
        Traceback (most recent call last):
        ValueError: sparsity is 1.0: expected a number in [0, 1)
    """
    value = check_number(name, sparsity, 0)
    if value >= 1:
        raise ValueError(f"{name} is {sparsity}: expected a number in [0, 1)")
    return value


def store_shares(config: Any, *names: str) -> None:
    """Check fractions in [0, 1) of a frozen dataclass, see ``check_sparsity``, and keep them."""
    for name in names:
        store(config, **{name: check_sparsity(getattr(config, name), name)})


def check_choice(name: str, value: Any, choices: Collection[str]) -> str:
    """Return one of several names.

    Example:
        >>> check_choice("granularity", "column", ("tensor", "row"))
        Traceback (most recent call last):
        ValueError: granularity is 'column': expected one of tensor, row
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} is {value!r}: expected one of {', '.join(choices)}")
    return value


def check_names(name: str, given: Collection[str], known: Collection[str]) -> None:
    """Raise ValueError unless all names are known ones.

    Example:
        >>> check_names("bits", {"user_table": 4}, ["user_vectors", "item_vectors"])
        Traceback (most recent call last):
        ValueError: bits names 'user_table': expected some of ['item_vectors', 'user_vectors']
    """
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{name} names {unknown[0]!r}: expected some of {sorted(known)}")


def check_type(name: str, value: Any, kinds: tuple[type, ...], hint: str = "") -> None:
    """Raise TypeError unless the value is of one of the types; ``hint`` ends the message.

    Example:
        >>> check_type("interactions", [1], (dict,))
        Traceback (most recent call last):
        TypeError: interactions is of type list: expected dict
    """
    if not isinstance(value, kinds):
        expected = ", ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} is of type {type(value).__name__}: expected {expected}{hint}")


def as_array(name: str, values: Any) -> NDArray[Any]:
    """Return an array; the same where it is one.

    Raises:
        ValueError: entries of a masked array are masked: below the mask lies anything.

    Example:
        >>> as_array("ratings", np.ma.array([5, 9], mask=[0, 1]))
        Traceback (most recent call last):
        ValueError: ratings has 1 masked entries: expected none
    """
    if isinstance(values, np.ma.MaskedArray) and (masked := np.ma.count_masked(values)):
        raise ValueError(f"{name} has {masked} masked entries: expected none")
    return np.asarray(values)


def check_range(name: str, ids: NDArray[Any], count: int) -> None:
    """Raise ValueError unless all ids are in [0, count)."""
    if ids.size and (ids.min() < 0 or ids.max() >= count):
        bad = ids[(ids < 0) | (ids >= count)].flat[0]
        raise ValueError(f"{name} holds {bad}: expected ids in [0, {count})")


def check_ids(name: str, values: ArrayLike | None, count: int) -> Ids:
    """Return (n,) integer ids in [0, count) as int64.

    Raises:
        TypeError: the ids are not integers.
        ValueError: not one dimension, or an id that is not known.

    Example:
        >>> check_ids("user_ids", [0, 7], count=5)
        Traceback (most recent call last):
        ValueError: user_ids holds 7: expected ids in [0, 5)
    """
    ids = as_array(name, values)
    if ids.ndim != 1:
        raise ValueError(f"{name} has shape {ids.shape}: expected one dimension, (n,)")
    if ids.size and ids.dtype.kind not in "iu":
        raise TypeError(f"{name} is of type {ids.dtype}: expected integers")
    check_range(name, ids, count)
    return ids.astype(np.int64)


def check_pairs(user_ids: ArrayLike, item_ids: ArrayLike, *counts: int) -> tuple[Ids, Ids]:
    """Return the ids of (n,) users and as many items as int64; errors as :func:`check_ids`."""
    users, items = check_ids("user_ids", user_ids, counts[0]), as_array("item_ids", item_ids)
    check_shape("item_ids", items, users.shape)
    return users, check_ids("item_ids", items, counts[1])


def check_weights(name: str, values: ArrayLike, *, ndim: int | None = None) -> Floats:
    """Return a finite float32 array that is not empty; a view where it is one already.

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
    array = as_array(name, values)
    if array.dtype.kind != "f":
        raise TypeError(f"{name} is of type {array.dtype}: expected floating-point numbers")
    if array.size == 0 or ndim not in (None, array.ndim):
        wanted = f"at least one number{f' in {ndim} dimensions' if ndim else ''}"
        raise ValueError(f"{name} has shape {array.shape}: expected {wanted}")
    if bad := array.size - int(np.isfinite(array).sum()):
        what = f"{bad} NaN or infinite values of {array.size}"
        raise ValueError(f"{name} holds {what}: expected finite numbers")
    return np.asarray(array, np.float32)


_forked = False


def _note_fork() -> None:
    global _forked
    tensorflow = sys.modules.get("tensorflow.python.eager.context")
    _forked = tensorflow is not None and getattr(tensorflow.context(), "_initialized", True)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def exact_numbers(label: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return int64 if all are whole, else float64; nothing is rounded.

    Raises:
        ValueError: NaN, infinite, or beyond int64; a float32 too large for whole numbers.

    Example:
        >>> exact_numbers("timestamps", np.array([2.0, 5.0])), exact_numbers("t", np.array([.5]))
        (array([2, 5]), array([0.5]))
    """
    if values.dtype.kind != "i":
        bad = np.flatnonzero(~((values < 2**63) & (values >= -(2**63))))
        if len(bad):
            value = values[bad[0]]
            raise ValueError(f"{label}: row {bad[0]} holds {value}: expected less than 2 ** 63")
        if values.dtype in (np.float16, np.float32) and np.abs(values).max() >= 2**24:
            raise ValueError(f"{label} is of type {values.dtype}, which rounds: expected float64")
    if values.dtype.kind == "f" and (values != np.floor(values)).any():
        return values.astype(np.float64)
    return values.astype(np.int64)


def check_process() -> None:
    """Raise RuntimeError in the forked child of a process that has used TensorFlow: it hangs."""
    if _forked:
        raise RuntimeError("TensorFlow hangs after a fork: expected multiprocessing with 'spawn'")


def available_bytes() -> int | None:
    """Return the memory that this process can still take, None where the system does not tell.

    The least of what the machine has free, or can free at once, and what a control group (a
    container, a batch job) leaves.

    Example:
        >>> (available_bytes() or 1) > 0
        True
    """

    def read(path: str) -> str:
        try:
            return Path(path).read_text(encoding="ascii")
        except OSError:  # another system, or no such control group
            return ""

    found = re.findall(r"MemAvailable:\s*(\d+) kB", read("/proc/meminfo"))
    left = [1024 * int(kilobytes) for kilobytes in found]
    if not left:
        with suppress(ImportError):
            left.append(int(importlib.import_module("psutil").virtual_memory().available))
    names = getattr(os, "sysconf_names", {})
    if not left and {"SC_PHYS_PAGES", "SC_PAGE_SIZE"} <= names.keys():
        left.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for folder, limit, used, cache in _CONTROL_GROUPS:
        numbers = read(f"{folder}/{limit}").strip(), read(f"{folder}/{used}").strip()
        if all(number.isdigit() for number in numbers):  # not "max"
            freed = re.findall(rf"^{cache} (\d+)", read(f"{folder}/memory.stat"), re.MULTILINE)
            left.append(int(numbers[0]) - int(numbers[1]) + sum(map(int, freed)))
    return max(0, min(left)) if left else None


def check_memory(what: str, needed_bytes: int, instead: str) -> None:
    """Raise MemoryError, before anything is allocated, where that many bytes are not to be had.

    Example:
        >>> check_memory("a matrix", 10**18, "a smaller one")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        MemoryError: a matrix takes 1,000,000,000.00 GB of memory and ... expected a smaller one
    """
    left = available_bytes()
    if left is not None and needed_bytes > left:
        sizes = f"{needed_bytes / 1e9:,.2f} GB of memory and {left / 1e9:,.2f} GB are available"
        raise MemoryError(f"{what} takes {sizes}: expected {instead}")


def check_counts(name: str, data: Any, expected: tuple[int, int]) -> None:
    """Raise ValueError unless data or a model has so many users and items.

    Example:
        >>> from recsys_lib.data import Interactions
        >>> check_counts("test", Interactions([0], [1]), (5, 2))
        Traceback (most recent call last):
        ValueError: test counts 1 users and 2 items: expected 5 and 2
    """
    if (counts := (data.num_users, data.num_items)) != expected:
        what = f"{counts[0]} users and {counts[1]} items"
        raise ValueError(f"{name} counts {what}: expected {expected[0]} and {expected[1]}")


def check_shape(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raise ValueError unless the array has this shape.

    Example:
        >>> check_shape("user_vectors", np.zeros((3, 2)), (4, 2))
        Traceback (most recent call last):
        ValueError: user_vectors has shape (3, 2): expected (4, 2)
    """
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}: expected {shape}")
