"""Words for synthetic items: a title and a text from which the topics can be read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_TOPICS: dict[str, dict[str, str]] = {
    "video": {
        "action": "chase explosion agent mission fight hero",
        "comedy": "wedding neighbour prank laughter mistake roommate",
        "drama": "family loss courage letter trial memory",
        "horror": "haunted midnight scream cellar curse shadow",
        "romance": "paris summer kiss stranger promise dance",
        "science fiction": "planet robot orbit signal clone starship",
        "documentary": "ocean archive witness wildlife history expedition",
        "western": "sheriff canyon outlaw saloon frontier rider",
        "animation": "dragon toy forest friendship magic penguin",
        "crime": "detective heist alibi mafia evidence informer",
    },
    "music": {
        "metal": "iron doom riff thunder blackened growl",
        "jazz": "blue quartet swing saxophone midnight standard",
        "electronic": "pulse synth neon circuit loop bass",
        "folk": "river fiddle lantern harvest banjo valley",
        "hip hop": "flow cypher street beat verse sampler",
        "classical": "sonata quartet opus chamber nocturne strings",
        "pop": "heart tonight radio glitter dance summer",
        "punk": "riot basement static city noise brat",
        "soul": "velvet groove sunday honey choir midnight",
        "ambient": "drift glacier haze tape horizon sleep",
    },
    "news": {
        "politics": "minister vote budget parliament coalition mayor",
        "sport": "match coach league goal derby transfer",
        "economy": "shares bank housing prices jobs export",
        "weather": "storm snow forecast flood wind warning",
        "culture": "festival theatre novel concert premiere museum",
        "crime": "police court arrest verdict burglary witness",
        "science": "research climate vaccine university discovery telescope",
        "local": "bridge school council tram harbour market",
    },
    "e-commerce": {
        "kitchen": "teapot apron jar bowl tray mug",
        "garden": "lantern planter birdhouse hose trellis bench",
        "christmas": "bauble wreath reindeer stocking candle ribbon",
        "stationery": "notebook pencil sticker envelope calendar stamp",
        "toys": "puzzle doll skittles spaceboy blocks kite",
        "bags": "tote satchel purse lunchbag backpack pouch",
        "lighting": "lamp bulb chandelier nightlight string shade",
        "jewellery": "necklace bracelet ring brooch earring pendant",
    },
}
_ADJECTIVES = (
    "silent",
    "golden",
    "hidden",
    "broken",
    "early",
    "distant",
    "little",
    "secret",
    "white",
    "red",
    "vintage",
    "last",
    "northern",
    "second",
    "quiet",
    "bright",
    "wooden",
    "paper",
    "electric",
    "lost",
)


def make_texts(
    domain: str, topics: NDArray[np.int64], rng: np.random.Generator
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Write a distinct name and a text for each item.

    Args:
        domain: "e-commerce", "news", "video" or "music".
        topics: (n, 2) numbers of the first and second topic of each item.
        rng: source of chance.

    Returns:
        n names and n texts (name, topics, and words of the first topic).

    Example:
        >>> names, texts = make_texts("video", np.array([[0, 1]]), np.random.default_rng(0))
        >>> "action comedy" in texts[0]
        True
    """
    labels = list(_TOPICS[domain])
    words = [text.split() for text in _TOPICS[domain].values()]
    seen: dict[str, int] = {}
    names, texts = [], []
    for first, second in topics % len(labels):
        noun, other = rng.choice(words[first], 2, replace=False)
        title = f"{rng.choice(_ADJECTIVES)} {noun}".title()
        seen[title] = seen.get(title, 0) + 1
        name = title if seen[title] == 1 else f"{title} {seen[title]}"
        extra = rng.choice(words[second])
        names.append(name)
        texts.append(f"{name} {labels[first]} {labels[second]} {noun} {other} {extra}")
    return tuple(names), tuple(texts)
