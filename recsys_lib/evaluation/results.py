"""What an evaluation gives back: small, frozen, and with the per-user values behind each mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

METRICS = ("hit_rate", "ndcg", "recall")


@dataclass(frozen=True, eq=False, repr=False)
class RankingResult:
    """Ranking quality: means over users, and the values they are means of.

    Args:
        k: length of the list that was judged.
        protocol: what was ranked against what, in words.
        user_ids: (n,) the user of each value (a user with two test rows in leave-one-out has two).
        hit_rate_per_user: (n,) of 0 and 1.
        ndcg_per_user: (n,) in [0, 1].
        recall_per_user: (n,) in [0, 1].

    Attributes:
        hit_rate: mean of ``hit_rate_per_user``; likewise ``ndcg`` and ``recall``.
        num_users: number of different users.

    Example:
        >>> one = np.array([1.0, 0.0])
        >>> result = RankingResult(10, "toy", np.array([0, 1]), one, one / 2, one)
        >>> result
        RankingResult(HR@10 0.5000, NDCG@10 0.2500, recall@10 0.5000; 2 users; toy)
    """

    k: int
    protocol: str
    user_ids: NDArray[np.int64]
    hit_rate_per_user: NDArray[np.float64]
    ndcg_per_user: NDArray[np.float64]
    recall_per_user: NDArray[np.float64]
    hit_rate: float = field(init=False)
    ndcg: float = field(init=False)
    recall: float = field(init=False)
    num_users: int = field(init=False)

    def __post_init__(self) -> None:
        for metric in METRICS:
            values = getattr(self, f"{metric}_per_user")
            if len(values) != len(self.user_ids):
                raise ValueError(
                    f"{metric}_per_user has {len(values)} values, user_ids {len(self.user_ids)}: "
                    "expected equal lengths"
                )
            object.__setattr__(self, metric, float(np.mean(values)))
        object.__setattr__(self, "num_users", len(np.unique(self.user_ids)))

    def __repr__(self) -> str:
        return (
            f"RankingResult(HR@{self.k} {self.hit_rate:.4f}, NDCG@{self.k} {self.ndcg:.4f}, "
            f"recall@{self.k} {self.recall:.4f}; {self.num_users:,} users; {self.protocol})"
        )

    def confidence_interval(self, metric: str = "ndcg", level: float = 0.95) -> tuple[float, float]:
        """Interval of the mean over users, by the normal approximation.

        Args:
            metric: "hit_rate", "ndcg" or "recall".
            level: probability that the interval covers the true mean, in (0, 1).

        Returns:
            ``mean -+ z * standard error``. It says how far another sample of users would move the
            figure; two models on the same users are compared by their paired differences instead.

        Raises:
            ValueError: unknown metric, level out of range, or fewer than two values.

        Example:
            >>> half = np.array([1.0, 0.0] * 50)
            >>> result = RankingResult(10, "toy", np.arange(100), half, half, half)
            >>> [round(bound, 3) for bound in result.confidence_interval("hit_rate")]
            [0.402, 0.598]
        """
        if metric not in METRICS:
            raise ValueError(f"metric is {metric!r}: expected one of {METRICS}")
        if not 0 < level < 1:
            raise ValueError(f"level is {level}: expected a number in (0, 1)")
        values = getattr(self, f"{metric}_per_user")
        if len(values) < 2:
            raise ValueError("an interval needs the values of two users or more, there is one")
        half = NormalDist().inv_cdf((1 + level) / 2) * values.std(ddof=1) / np.sqrt(len(values))
        mean = float(values.mean())
        return mean - float(half), mean + float(half)


@dataclass(frozen=True)
class RatingResult:
    """Quality of predicted ratings, in units of the rating.

    Args:
        rmse: root of the mean squared error.
        mae: mean absolute error.
        num_ratings: number of ratings judged.

    Example:
        >>> RatingResult(rmse=0.9, mae=0.7, num_ratings=10)
        RatingResult(rmse=0.9, mae=0.7, num_ratings=10)
    """

    rmse: float
    mae: float
    num_ratings: int
