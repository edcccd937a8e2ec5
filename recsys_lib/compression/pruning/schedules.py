"""How sparsity grows while a model is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from recsys_lib.checks import check_number, check_sparsity


class Schedule(Protocol):
    """Gives the sparsity after ``step`` steps on the way to ``final_sparsity``."""

    def __call__(self, step: int, final_sparsity: float) -> float:
        """Give the sparsity after ``step`` steps."""
        ...


@dataclass(frozen=True)
class ConstantSchedule:
    """All at once: no zeros before a step, the final sparsity from it on.

    Args:
        begin_step: first step with the final sparsity.

    Raises:
        ValueError: a step below 0.

    Example:
        >>> schedule = ConstantSchedule(begin_step=2)
        >>> [schedule(step, 0.9) for step in range(4)]
        [0.0, 0.0, 0.9, 0.9]
    """

    begin_step: int = 0

    def __post_init__(self) -> None:
        check_number("begin_step", self.begin_step, 0, integer=True)

    def __call__(self, step: int, final_sparsity: float) -> float:
        """Give the sparsity after ``step`` steps."""
        final_sparsity = check_sparsity(final_sparsity, "final_sparsity")
        return final_sparsity if step >= self.begin_step else 0.0


@dataclass(frozen=True)
class PolynomialSchedule:
    """Much at first, while there is plenty to remove, then ever less.

    With ``p = (step - begin_step) / (end_step - begin_step)`` between 0 and 1::

        sparsity = final + (initial - final) * (1 - p) ** power

    No weight is removed before ``begin_step``. A final sparsity below the initial one is reached
    at once.

    Args:
        end_step: first step with the final sparsity, above ``begin_step``.
        begin_step: first step with the initial sparsity.
        initial_sparsity: in [0, 1).
        power: 3 in the paper; 1 grows evenly.

    Raises:
        ValueError: an argument out of range.

    Source:
        Zhu & Gupta, *To prune, or not to prune*, 2017, equation 1.

    Example:
        >>> schedule = PolynomialSchedule(end_step=4)
        >>> [round(schedule(step, 0.8), 3) for step in range(6)]
        [0.0, 0.463, 0.7, 0.788, 0.8, 0.8]
    """

    end_step: int
    begin_step: int = 0
    initial_sparsity: float = 0.0
    power: float = 3.0

    def __post_init__(self) -> None:
        check_number("begin_step", self.begin_step, 0, integer=True)
        check_number("end_step", self.end_step, 0, integer=True)
        if self.end_step <= self.begin_step:
            raise ValueError(
                f"end_step is {self.end_step}: expected more than begin_step, {self.begin_step}"
            )
        check_sparsity(self.initial_sparsity, "initial_sparsity")
        check_number("power", self.power, 0, include_low=False)

    def __call__(self, step: int, final_sparsity: float) -> float:
        """Give the sparsity after ``step`` steps."""
        final_sparsity = check_sparsity(final_sparsity, "final_sparsity")
        if step < self.begin_step:
            return 0.0
        progress = (step - self.begin_step) / (self.end_step - self.begin_step)
        missing = max(final_sparsity - self.initial_sparsity, 0.0)
        return final_sparsity - missing * (1 - min(progress, 1.0)) ** self.power
