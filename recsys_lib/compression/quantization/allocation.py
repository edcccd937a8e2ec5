"""The best bits for each piece of a model under a budget of bytes: a knapsack, solved exactly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.compression.quantization.mixed import MixedPrecision
from recsys_lib.compression.quantization.sensitivity import SensitivityCurve


@dataclass(frozen=True, eq=False)
class BitAllocation:
    """Bits by piece, and what they take.

    Args:
        config: for :func:`quantize_mixed`; ``config.bits`` has the bits by piece.
        nbytes: stored bytes of the whole model.
        predicted_loss: reference loss plus the sum of what each piece loses by itself. The loss
            of the model need not be that: see chapter 10.
    """

    config: MixedPrecision
    nbytes: int
    predicted_loss: float

    @property
    def bits(self) -> Mapping[str, int]:
        """Bits by piece."""
        return self.config.bits


def allocate_bits(curve: SensitivityCurve, budget_bytes: float) -> BitAllocation:
    """Choose bits for each piece so that the losses sum up to the least within a budget.

    Exact: partial allocations are built piece by piece, and one is dropped only if another is no
    larger and no worse, or if a Lagrangian bound shows that it cannot lead to the best.

    Args:
        curve: of :func:`sensitivity`.
        budget_bytes: of the whole model as stored, with what stays float32.

    Returns:
        The least sum of losses; of equal ones the smallest in bytes.

    Raises:
        ValueError: a budget below the smallest possible, which the error names.

    Source:
        Shoham & Gersho, *Efficient bit allocation for an arbitrary set of quantizers*, IEEE
        Transactions on Acoustics, Speech, and Signal Processing 1988, for the Lagrangian.

    Example:
        >>> curve = SensitivityCurve(("a", "b"), (2, 4), np.array([[5.0, 1.0], [2.0, 1.5]]),
        ...     np.array([[10, 20], [10, 20]]), 1.0, 0, {}, MixedPrecision({}).base)
        >>> dict(allocate_bits(curve, 30).bits)
        {'a': 4, 'b': 2}
    """
    budget = check_number("budget_bytes", budget_bytes, 0)
    smallest = int(curve.nbytes.min(axis=1).sum()) + curve.fixed_bytes
    if budget < smallest:
        raise ValueError(
            f"budget_bytes is {budget_bytes:,}: expected at least {smallest:,}, the smallest "
            f"possible with bits {', '.join(map(str, curve.bits))} "
            f"and {curve.fixed_bytes:,} bytes that stay as they are"
        )
    room = int(budget) - curve.fixed_bytes
    return _allocation(curve, _knapsack(curve.increase, curve.nbytes, room))


def uniform_bits(curve: SensitivityCurve, bits: int) -> BitAllocation:
    """Give the allocation with the same bits for all pieces, to compare with.

    Raises:
        ValueError: bits that were not measured.
    """
    if bits not in curve.bits:
        raise ValueError(f"bits is {bits}: expected one of {', '.join(map(str, curve.bits))}")
    return _allocation(curve, np.full(len(curve.pieces), curve.bits.index(bits)))


def _allocation(curve: SensitivityCurve, choice: NDArray[np.int64]) -> BitAllocation:
    rows = np.arange(len(choice))
    bits = {p: curve.bits[c] for p, c in zip(curve.pieces, choice, strict=True)}
    return BitAllocation(
        MixedPrecision(bits, curve.groups, curve.base),
        int(curve.nbytes[rows, choice].sum()) + curve.fixed_bytes,
        curve.reference + float(curve.increase[rows, choice].sum()),
    )


def _knapsack(cost: NDArray[np.float64], size: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """Choose one column for each row: least cost in sum, with sizes that sum up to at most room."""
    count, rows = len(cost), np.arange(len(cost))
    price, choice = _price(cost, size, room)
    slack = 1e-9 * (1e-300 + np.abs(cost).max())
    best = cost[rows, choice].sum() + slack
    # What the pieces from each one on can add at least: in size, and in cost plus price * size.
    size_left = np.append(np.cumsum(size.min(axis=1)[::-1])[::-1], 0)
    bound_left = np.append(np.cumsum((cost + price * size).min(axis=1)[::-1])[::-1], 0.0)
    costs, sizes = np.zeros(1), np.zeros(1, np.int64)
    steps = []
    for row in range(count):
        new_costs = (costs[:, None] + cost[row]).ravel()
        new_sizes = (sizes[:, None] + size[row]).ravel()
        bound = new_costs + price * (new_sizes - room) + bound_left[row + 1]
        kept = np.flatnonzero((new_sizes + size_left[row + 1] <= room) & (bound <= best))
        kept = kept[np.lexsort((new_costs[kept], new_sizes[kept]))]
        least = np.minimum.accumulate(np.append(np.inf, new_costs[kept]))[:-1]
        kept = kept[new_costs[kept] < least]
        costs, sizes = new_costs[kept], new_sizes[kept]
        steps.append((kept // cost.shape[1], kept % cost.shape[1]))
    state, columns = len(costs) - 1, []  # the largest of the front costs least
    for parents, picks in reversed(steps):
        columns.append(picks[state])
        state = parents[state]
    return np.array(columns[::-1])


def _price(
    cost: NDArray[np.float64], size: NDArray[np.int64], room: int
) -> tuple[float, NDArray[np.int64]]:
    """Give the lowest price of a byte at which the cheapest choice fits, and that choice.

    The choice changes only at prices at which two columns of a row tie.
    """
    saved = size[:, :, None] - size[:, None, :]
    gained = cost[:, None, :] - cost[:, :, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        ties = np.unique(np.append((gained / saved)[(saved > 0) & (gained > 0)], 0.0))
    low, high = 0, len(ties)  # past the last tie the smallest are the cheapest
    while low < high:
        middle = (low + high) // 2
        choice = _cheapest(cost, size, ties[middle])
        if size[np.arange(len(cost)), choice].sum() <= room:
            high = middle
        else:
            low = middle + 1
    price = float(ties[low]) if low < len(ties) else 2 * float(ties[-1]) + 1.0
    return price, _cheapest(cost, size, price)


def _cheapest(
    cost: NDArray[np.float64], size: NDArray[np.int64], price: float
) -> NDArray[np.int64]:
    total = cost + price * size
    near = total <= total.min(axis=1, keepdims=True) + 1e-12 * np.abs(total).max(
        axis=1, keepdims=True
    )
    return np.where(near, size, np.iinfo(np.int64).max).argmin(axis=1)
