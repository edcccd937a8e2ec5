"""A seeded generator of interactions that look like the real thing.

It knows what made each row, so that a chapter without a network still has something to learn:
popularity follows a power law, tastes are of low rank, texts name the topics, and time passes.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import Ids, check_choice, store_numbers, store_shares
from recsys_lib.data.interactions import Interactions

_WORDS = tomllib.loads(Path(__file__).with_name("words.toml").read_text("utf-8"))
Preset = Literal["e-commerce", "news", "video", "music"]
Doubles = NDArray[np.float64]
_DAY = 86_400
_YEAR = 365 * _DAY


@dataclass(frozen=True)
class SyntheticConfig:
    """What the generator is told.

    Args:
        domain: whose words the texts use, and which kind of rating the rows have: stars 1 to 5
            ("video"), listening counts ("music"), quantities ("e-commerce"), none ("news").
        num_users: number of users.
        num_items: size of the catalogue.
        mean_items_per_user: mean number of different items a user meets.
        popularity_exponent: share of the r-th most popular item is proportional to
            ``r ** -popularity_exponent`` before tastes come in.
        taste_strength: weight of taste against popularity; 0 leaves popularity alone.
        num_topics: rank of the tastes.
        repeat_fraction: share of rows that repeat an earlier pair of the same user, in [0, 1).
        span_days: length of the record.
        lifetime_days: mean time after its release in which an item is met; None: no such limit.
    """

    domain: Preset
    num_users: int = 1_500
    num_items: int = 1_000
    mean_items_per_user: float = 45.0
    popularity_exponent: float = 0.8
    taste_strength: float = 1.6
    num_topics: int = 8
    repeat_fraction: float = 0.0
    span_days: float = 900.0
    lifetime_days: float | None = None

    def __post_init__(self) -> None:
        check_choice("domain", self.domain, _WORDS["topics"])
        store_numbers(self, 2, "num_users", "num_items", "num_topics", integer=True)
        store_numbers(self, 2, "mean_items_per_user", high=self.num_items / 2)
        store_numbers(self, 0, "popularity_exponent", "taste_strength", "span_days")
        store_shares(self, "repeat_fraction")


PRESETS: dict[str, SyntheticConfig] = {
    "video": SyntheticConfig("video"),
    "music": SyntheticConfig("music", num_items=1_400, mean_items_per_user=40, num_topics=10),
    "news": SyntheticConfig(
        "news",
        num_users=2_000,
        num_items=500,
        mean_items_per_user=20,
        span_days=28,
        lifetime_days=2,
        popularity_exponent=1.0,
    ),
    "e-commerce": SyntheticConfig(
        "e-commerce", mean_items_per_user=30, repeat_fraction=0.2, span_days=365
    ),
}


def make_synthetic(
    preset: Preset | SyntheticConfig = "video", *, seed: int = 0, name: str = "synthetic"
) -> Interactions:
    """Return generated interactions of one domain.

    Taste is an inner product of a user's and an item's topic vector. Each user draws items without
    repeats from ``softmax(taste_strength * taste + log popularity)`` (Gumbel top-k). Rows are in
    order of time.

    Args:
        preset: name of a domain ("e-commerce", "news", "video", "music") or a configuration.
        seed: of everything; the same seed gives the same rows.
        name: name of the data set.

    Returns:
        Interactions with timestamps, names and texts, and with ratings except for news;
        ``is_synthetic`` is True.

    Raises:
        ValueError: the preset is unknown.

    Source:
        Gumbel top-k: Kool et al., *Stochastic Beams and Where to Find Them*, ICML 2019.

    Example:
        >>> data = make_synthetic("news")
        >>> data.num_users, data.num_items, data.is_synthetic
        (2000, 500, True)
    """
    config = PRESETS[check_choice("preset", preset, PRESETS)] if isinstance(preset, str) else preset
    rng = np.random.default_rng(seed)
    users, items, topics = _tastes(config, rng)
    taste = users @ items.T  # (num_users, num_items)
    popularity = -config.popularity_exponent * np.log1p(rng.permutation(config.num_items))
    count = _items_per_user(config, rng)
    noisy = config.taste_strength * taste + popularity + rng.gumbel(size=taste.shape)
    ranked = np.argsort(-noisy, axis=1)[:, : int(count.max())]
    chosen = np.arange(ranked.shape[1]) < count[:, None]
    user_ids = np.repeat(np.arange(config.num_users), count)
    item_ids = ranked[chosen]
    again = rng.random(len(user_ids)) < config.repeat_fraction / (1 - config.repeat_fraction)
    user_ids = np.concatenate([user_ids, user_ids[again]])
    item_ids = np.concatenate([item_ids, item_ids[again]])
    timestamps = _times(config, user_ids, item_ids, rng)
    ratings = _ratings(config, user_ids, item_ids, taste, rng)
    names, texts = _make_texts(config.domain, topics, rng)
    order = np.lexsort((item_ids, user_ids, timestamps))
    return Interactions(
        user_ids=user_ids[order],
        item_ids=item_ids[order],
        ratings=None if ratings is None else ratings[order].astype(np.float32),
        timestamps=timestamps[order],
        num_users=config.num_users,
        num_items=config.num_items,
        item_names=names,
        item_texts=texts,
        name=name,
        is_synthetic=True,
    )


def _tastes(config: SyntheticConfig, rng: Any) -> tuple[Doubles, Doubles, Ids]:
    """Draw user and item vectors (., num_topics), and the two main topics of each item."""
    users = rng.dirichlet(np.full(config.num_topics, 0.25), config.num_users)
    items = rng.dirichlet(np.full(config.num_topics, 0.2), config.num_items)
    topics = np.argsort(-items, axis=1)[:, :2]
    users, items = users - users.mean(1, keepdims=True), items - items.mean(1, keepdims=True)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    return 1.5 * users, 1.5 * items, topics


def _items_per_user(config: SyntheticConfig, rng: Any) -> Ids:
    """Draw log-normal counts with the wanted mean; everybody has at least four items."""
    draws = rng.lognormal(0.0, 0.7, config.num_users)
    counts = np.round(draws / draws.mean() * config.mean_items_per_user)
    return np.clip(counts, min(4, config.num_items // 2), config.num_items // 2).astype(np.int64)


def _times(config: SyntheticConfig, user_ids: Ids, item_ids: Ids, rng: Any) -> Ids:
    """Seconds: within visits of a user, or soon after the release of an item."""
    start, span = 30 * _YEAR, config.span_days * _DAY
    if config.lifetime_days is not None:
        release = rng.random(config.num_items) * span
        age = rng.exponential(config.lifetime_days * _DAY, len(item_ids))
        return (start + release[item_ids] + age).astype(np.int64)
    visits = rng.random((config.num_users, 12)) * span
    visit = visits[user_ids, rng.integers(0, 12, len(user_ids))]
    within = 0 if config.domain == "e-commerce" else rng.integers(0, 3600, len(user_ids))
    return (start + visit + within).astype(np.int64)


def _ratings(
    config: SyntheticConfig, user_ids: Ids, item_ids: Ids, taste: Doubles, rng: Any
) -> Doubles | None:
    """Stars, listening counts, quantities or nothing, after the domain."""
    user_bias = rng.normal(0, 0.4, config.num_users)[user_ids]
    item_bias = rng.normal(0, 0.4, config.num_items)[item_ids]
    liking = user_bias + item_bias + 0.6 * taste[user_ids, item_ids]
    noise = rng.normal(0, 1, len(user_ids))
    if config.domain == "video":
        return np.clip(np.round(3.2 + liking + 0.6 * noise), 1, 5)
    if config.domain == "music":
        return np.ceil(np.exp(5 + liking + noise))
    if config.domain == "e-commerce":
        return np.ceil(np.exp(1 + 0.5 * liking + 0.7 * noise))
    return None


def _make_texts(domain: str, topics: Ids, rng: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write a distinct name and a text (name, topics, words of them) for each (n, 2) topics."""
    adjectives = _WORDS["adjectives"].split()
    labels = list(_WORDS["topics"][domain])
    words = [text.split() for text in _WORDS["topics"][domain].values()]
    seen: dict[str, int] = {}
    names, texts = [], []
    for first, second in topics % len(labels):
        noun, other = rng.choice(words[first], 2, replace=False)
        title = f"{rng.choice(adjectives)} {noun}".title()
        seen[title] = seen.get(title, 0) + 1
        name = title if seen[title] == 1 else f"{title} {seen[title]}"
        extra = rng.choice(words[second])
        names.append(name)
        texts.append(f"{name} {labels[first]} {labels[second]} {noun} {other} {extra}")
    return tuple(names), tuple(texts)
