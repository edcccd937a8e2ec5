"""What a measurement of latency gives back: small, frozen, and with the single times behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, repr=False)
class Latency:
    """How long calls of one function took.

    Args:
        name: what was called.
        times_us: (n,) microseconds of each call, in the order in which they were made.
        items_per_call: how many things (users, pairs, ...) one call serves.
        busy_cores: CPU time of the process divided by wall time: how many cores were at work.
        hardware: the machine, in words.

    Attributes:
        p50_us, p90_us, p99_us: percentiles. The 99th of fewer than 100 calls is about their
            maximum.
        spread: distance from the 10th to the 90th percentile, as a share of the median.
        throughput: items a second at the median.

    Example:
        >>> Latency("toy", np.array([10.0, 10.0, 20.0]), 5, 1.0, "a machine")
        toy: p50 10.0 us, p90 18.0, p99 19.8, spread 0.80; 500,000 items/s; 3 calls, 1.0 cores busy
    """

    name: str
    times_us: NDArray[np.float64]
    items_per_call: int
    busy_cores: float
    hardware: str

    @property
    def p50_us(self) -> float:  # noqa: D102 (described in the class)
        return float(np.percentile(self.times_us, 50))

    @property
    def p90_us(self) -> float:  # noqa: D102
        return float(np.percentile(self.times_us, 90))

    @property
    def p99_us(self) -> float:  # noqa: D102
        return float(np.percentile(self.times_us, 99))

    @property
    def spread(self) -> float:  # noqa: D102
        low, middle, high = np.percentile(self.times_us, [10, 50, 90])
        return float((high - low) / middle)

    @property
    def throughput(self) -> float:  # noqa: D102
        return self.items_per_call / self.p50_us * 1e6

    def __repr__(self) -> str:
        return (
            f"{self.name}: p50 {self.p50_us:,.1f} us, p90 {self.p90_us:,.1f}, "
            f"p99 {self.p99_us:,.1f}, spread {self.spread:.2f}; {self.throughput:,.0f} items/s; "
            f"{len(self.times_us)} calls, {self.busy_cores:.1f} cores busy"
        )

    def to_frame(self) -> pd.DataFrame:
        """Give one row with everything but the single times."""
        import pandas as pd

        names = ("p50_us", "p90_us", "p99_us", "spread", "throughput", "busy_cores", "hardware")
        row = {name: getattr(self, name) for name in names} | {"repeats": len(self.times_us)}
        return pd.DataFrame([row], index=pd.Index([self.name], name="name"))


@dataclass(frozen=True, eq=False, repr=False)
class LatencyComparison:
    """Functions timed in turns, each as a ratio to one of them.

    Args:
        latencies: of each function, by name.
        ratios: (rounds,) of each: its median in a round divided by the baseline's in that round.
        baseline: name of the function the others are compared with.

    Example:
        >>> toy = {name: Latency(name, np.full(2, us), 1, 1.0, "") for name, us in
        ...        [("slow", 30.0), ("fast", 10.0)]}
        >>> comparison = LatencyComparison(
        ...     toy, {"slow": np.array([3.0, 3.0]), "fast": np.ones(2)}, "fast")
        >>> comparison.ratio("slow")
        3.0
        >>> comparison
        slow  3.00x fast [3.00, 3.00]  p50 30.0 us  p99 30.0 us
        fast  1.00x fast [1.00, 1.00]  p50 10.0 us  p99 10.0 us
    """

    latencies: Mapping[str, Latency]
    ratios: Mapping[str, NDArray[np.float64]]
    baseline: str

    def ratio(self, name: str) -> float:
        """Give the median over rounds of time divided by the baseline's time."""
        return float(np.median(self.ratios[name]))

    def ratio_interval(self, name: str) -> tuple[float, float]:
        """Give the 10th and 90th percentile of the ratio over rounds."""
        low, high = np.percentile(self.ratios[name], [10, 90])
        return float(low), float(high)

    def __repr__(self) -> str:
        width = max(map(len, self.latencies))
        lines = []
        for name, latency in self.latencies.items():
            low, high = self.ratio_interval(name)
            lines.append(
                f"{name:<{width}}  {self.ratio(name):.2f}x {self.baseline} [{low:.2f}, {high:.2f}]"
                f"  p50 {latency.p50_us:,.1f} us  p99 {latency.p99_us:,.1f} us"
            )
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """Give one row a function: its latency, its ratio and the ratio's 10th to 90th."""
        import pandas as pd

        frame = pd.concat([latency.to_frame() for latency in self.latencies.values()])
        frame["ratio"] = [self.ratio(name) for name in self.latencies]
        intervals = [self.ratio_interval(name) for name in self.latencies]
        frame["ratio_p10"], frame["ratio_p90"] = zip(*intervals, strict=True)
        return frame
