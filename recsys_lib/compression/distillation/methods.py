"""What a student learns from its teacher, as frozen settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys_lib.checks import check_choice, check_number

SOFT_LOSSES = ("listwise", "binary", "regression")


@dataclass(frozen=True)
class Method:
    """What all methods share.

    Args:
        weight: share of the teacher in the loss, in [0, 1]; the labels have the rest.
    """

    weight: float = 0.5

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)

    def _check(self, low: float, *names: str, integer: bool = True, above: bool = False) -> None:
        for name in names:
            value = getattr(self, name)
            check_number(name, value, low, integer=integer, include_low=not above)


@dataclass(frozen=True)
class SoftLabels(Method):
    """The student is to say what the teacher says: scores in place of labels.

    With the teacher's scores ``t``, the student's ``s`` and temperature T, for each of some users:

    - "listwise": ``T² KL(softmax(t / T) || softmax(s / T))`` over the candidates;
    - "binary": ``T²`` times the cross entropy of ``sigmoid(t / T)`` and ``sigmoid(s / T)``, as the
      mean over the candidates;
    - "regression": ``(t - s)²``, as the mean over the candidates; it has no temperature.

    Args:
        weight: share of the teacher, in [0, 1].
        loss: one of the three names.
        temperature: T, above 0. Divides logits; the larger, the more the lower ranks count.
        num_candidates: None for the whole catalogue; else so many items per user, half of them the
            teacher's best, the others drawn once from the rest. 2 or more.
        standardize: subtract the mean of each user's teacher scores and divide by their standard
            deviation, so that one temperature suits teachers of any scale.
        users_per_update: users drawn for each update.
        items_per_update: None, or so many items of the catalogue, drawn anew for each update and
            the same for all its users. An update then takes so much less time, and every item has
            its turn, where ``num_candidates`` stays with one choice. 2 or more.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range, or both ``num_candidates`` and
            ``items_per_update`` are given.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015, section 2.

    Example:
        >>> SoftLabels(weight=1.5)
        Traceback (most recent call last):
        ValueError: weight is 1.5: expected a number in [0, 1]
    """

    loss: str = "listwise"
    temperature: float = 1.0
    num_candidates: int | None = None
    standardize: bool = False
    users_per_update: int = 64
    items_per_update: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("loss", self.loss, SOFT_LOSSES)
        self._check(0, "temperature", integer=False, above=True)
        self._check(1, "users_per_update")
        for name in ("num_candidates", "items_per_update"):
            count = getattr(self, name)
            if count is None:
                continue
            self._check(1, name)
            if count < 2:
                raise ValueError(
                    f"{name} is {count}: a softmax over one item is always 1 and teaches nothing; "
                    "expected 2 or more"
                )
        if None not in (self.num_candidates, self.items_per_update):
            raise ValueError(
                f"items_per_update is {self.items_per_update} beside num_candidates: expected one "
                "of them, since the candidates are drawn once"
            )


@dataclass(frozen=True)
class RankingDistillation(Method):
    """The teacher's best unseen items count as liked, the first most of all.

    For each of some users, with the teacher's list ``i_1 .. i_K`` of items that the user has not
    met: ``- sum over r of w_r log sigmoid(s(i_r))``. The weights ``w_r`` sum to 1 and follow
    ``exp(-r / decay) * tanh(max(mu * (rank(i_r) - r), 0))``: important are items high in the
    teacher's list that the student ranks lower. The student's rank is estimated from
    ``num_sampled`` drawn items; with 0 of them the second factor is left out.

    Args:
        weight: share of the teacher, in [0, 1].
        num_items: K, length of the list.
        decay: ranks after which a position's importance has fallen to 1/e.
        mu: sharpness of the second factor.
        num_sampled: items drawn to estimate the student's rank.
        users_per_update: users drawn for each update.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range.

    Source:
        Tang & Wang, *Ranking Distillation*, KDD 2018, equations 5 to 9.

    Example:
        >>> RankingDistillation(num_items=10).decay
        10.0
    """

    num_items: int = 10
    decay: float = 10.0
    mu: float = 0.1
    num_sampled: int = 100
    users_per_update: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(1, "num_items", "users_per_update")
        self._check(0, "decay", "mu", integer=False, above=True)
        self._check(0, "num_sampled")


@dataclass(frozen=True)
class CollaborativeDistillation(Method):
    """Soft labels on unseen items that are drawn by the teacher's rank, anew for each epoch.

    An item at rank r of the teacher's ``pool`` best unseen ones is drawn in proportion to
    ``exp(-r / decay)``, without replacement. The loss is the cross entropy of
    ``sigmoid(t / T)`` and ``sigmoid(s / T)``, times T², as the mean over the drawn items.

    Args:
        weight: share of the teacher, in [0, 1].
        num_items: items drawn per user.
        decay: ranks after which the chance of being drawn has fallen to 1/e.
        pool: how far down the list items can be drawn.
        temperature: T, above 0.
        users_per_update: users drawn for each update.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range.

    Source:
        Lee et al., *Collaborative Distillation for Top-N Recommendation*, ICDM 2019, in its form
        guided by the teacher.

    Example:
        >>> CollaborativeDistillation(num_items=50, pool=20)
        Traceback (most recent call last):
        ValueError: pool is 20: expected at least num_items, 50
    """

    num_items: int = 40
    decay: float = 20.0
    pool: int = 200
    temperature: float = 1.0
    users_per_update: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(1, "num_items", "pool", "users_per_update")
        self._check(0, "decay", "temperature", integer=False, above=True)
        _check_pool(self.pool, self.num_items, "num_items")


@dataclass(frozen=True)
class RelaxedRankingDistillation(Method):
    """The order of interesting items, above all uninteresting ones, whose order does not matter.

    For each user and epoch, K *interesting* items are drawn from the teacher's ``pool`` best unseen
    ones, rank r in proportion to ``exp(-r / decay)``, and L *uninteresting* ones uniformly from
    the rest. What is maximised is the likelihood of the teacher's order of the first, given that
    the second come below; the loss is divided by K.

    Args:
        weight: share of the teacher, in [0, 1].
        num_interesting: K.
        num_uninteresting: L.
        decay: ranks after which the chance of being drawn has fallen to 1/e (T in the paper).
        pool: how far down the list interesting items are drawn from.
        users_per_update: users drawn for each update.

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range.

    Source:
        Kang et al., *DE-RRD: A Knowledge Distillation Framework for Recommender System*, CIKM
        2020, section 3.2, equations 6 to 8.

    Example:
        >>> RelaxedRankingDistillation().num_interesting
        40
    """

    num_interesting: int = 40
    num_uninteresting: int = 40
    decay: float = 10.0
    pool: int = 200
    users_per_update: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        names = "num_interesting", "num_uninteresting", "pool", "users_per_update"
        self._check(1, *names)
        self._check(0, "decay", integer=False, above=True)
        _check_pool(self.pool, self.num_interesting, "num_interesting")


@dataclass(frozen=True)
class DistillationExperts(Method):
    """The teacher's hidden vectors are to be readable from the student's.

    For the users and the items of a batch, experts (small networks, one hidden layer) rebuild the
    teacher's vector from the student's; a gate reads the teacher's vector and picks the expert. The
    loss is the squared distance, as the mean over the numbers of a vector. The choice is soft at
    first and hard at the end: Gumbel noise, and a temperature that falls from 1 to
    ``last_temperature`` over the epochs. Experts and gates are thrown away after training.

    Args:
        weight: share of the teacher, in [0, 1].
        num_experts: for users, and as many for items.
        rows_per_update: rows of the batch that are looked at: so many users, and twice as many
            items (those met and, with an objective that draws, one drawn for each).
        last_temperature: of the gate in the last epoch, in (0, 1].

    Raises:
        TypeError: an argument is not of the type named.
        ValueError: an argument is out of range.

    Source:
        Kang et al., *DE-RRD*, CIKM 2020, section 3.1, equations 1 to 5.

    Example:
        >>> DistillationExperts(num_experts=5).num_experts
        5
    """

    num_experts: int = 5
    rows_per_update: int = 128
    last_temperature: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(1, "num_experts", "rows_per_update")
        self._check(0, "last_temperature", integer=False, above=True)
        if self.last_temperature > 1:
            raise ValueError(
                f"last_temperature is {self.last_temperature}: expected a number in (0, 1]"
            )


def check_weight(name: str, weight: Any) -> float:
    """Give a share in [0, 1].

    Example:
        >>> check_weight("weight", -0.1)
        Traceback (most recent call last):
        ValueError: weight is -0.1: expected a number in [0, 1]
    """
    if isinstance(weight, int | float) and not isinstance(weight, bool) and not 0 <= weight <= 1:
        raise ValueError(f"{name} is {weight}: expected a number in [0, 1]")
    return float(check_number(name, weight, 0))


def _check_pool(pool: int, count: int, name: str) -> None:
    if pool < count:
        raise ValueError(f"pool is {pool}: expected at least {name}, {count}")
