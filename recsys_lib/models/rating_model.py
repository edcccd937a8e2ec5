"""One builder of Keras rating models, for Keras 3 and for its tf_keras twin."""

from __future__ import annotations

import importlib
import zlib
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from recsys_lib.checks import (
    Floats,
    check_choice,
    check_number,
    check_process,
    check_type,
    store_numbers,
)

_SIDES = ("user", "item")
# The hidden layers of each kind when none are named; () means that the kind has none.
_DEFAULT_HIDDEN_UNITS: dict[str, tuple[int, ...]] = {"dot_product": (), "matrix_factorization": ()}
_DEFAULT_HIDDEN_UNITS |= {"two_tower": (64, 32), "mlp_ranker": (64, 32, 16), "neumf": (64, 32, 16)}


@dataclass(frozen=True)
class RatingModelConfig:
    """What a rating model looks like; ``a_u`` and ``h_i`` are rows of embedding tables.

    - ``dot_product``: ``<a_u, h_i>``.
    - ``matrix_factorization``: ``global_bias + b_u + b_i + <a_u, h_i>``.
    - ``two_tower``: ``<f_1(a_u), f_2(h_i)>`` with two dense networks f.
    - ``mlp_ranker``: ``f([a_u, h_i])`` with f a dense network to one number.
    - ``neumf``: a dense layer over ``[a'_u * h'_i, f([a_u, h_i])]``, a' and h' in other tables.

    Args:
        kind: one of the above.
        num_users: number of users.
        num_items: number of items.
        embedding_dim: length of each embedding.
        hidden_units: widths of the dense layers, for the three kinds that have them: per tower
            for two_tower, whose last layer is linear; before the last number for the others.
            None means (64, 32) for two_tower and (64, 32, 16) for mlp_ranker and neumf.
        activation: of the hidden layers, a name that Keras knows.
        global_bias: a constant that matrix_factorization adds, such as the mean rating.
        init_std: standard deviation of the embeddings at the start (biases start at zero).
        seed: of the start.

    Raises:
        TypeError: an argument is of the wrong type.
        ValueError: an argument is out of range, or hidden units do not fit the kind.

    Source:
        Koren, Bell & Volinsky, *Matrix Factorization Techniques for Recommender Systems*, IEEE
        Computer 2009, equation 4 (matrix_factorization); He et al., *Neural Collaborative
        Filtering*, WWW 2017, sections 3.3 and 3.4 (mlp_ranker, neumf); Covington, Adams & Sargin,
        *Deep Neural Networks for YouTube Recommendations*, RecSys 2016 (the idea of two towers).

    Example:
        >>> RatingModelConfig("two_tower", num_users=3, num_items=5).hidden_units
        (64, 32)
        >>> RatingModelConfig("tree", num_users=3, num_items=5)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: kind is 'tree': expected one of dot_product, matrix_factorization, ...
    """

    kind: str
    num_users: int
    num_items: int
    embedding_dim: int = 64
    hidden_units: tuple[int, ...] | None = None
    activation: str = "relu"
    global_bias: float = 0.0
    init_std: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        default = _DEFAULT_HIDDEN_UNITS[check_choice("kind", self.kind, _DEFAULT_HIDDEN_UNITS)]
        check_type("activation", self.activation, (str,))
        given = default if self.hidden_units is None else self.hidden_units
        check_type("hidden_units", given, (tuple, list), " of integers")
        units = tuple(check_number("hidden_units", width, 1, integer=True) for width in given)
        if bool(units) != bool(default):
            raise ValueError(f"hidden_units is {units} for {self.kind}: expected {default}")
        object.__setattr__(self, "hidden_units", units)
        store_numbers(self, 1, "num_users", "num_items", "embedding_dim", integer=True)
        store_numbers(self, -np.inf, "global_bias")
        store_numbers(self, 0, "init_std", include_low=False)
        store_numbers(self, 0, "seed", integer=True)


def build_rating_model(config: RatingModelConfig, keras: ModuleType | None = None) -> Any:
    """Build a plain functional Keras model that scores user-item pairs.

    The same code builds the Keras 3 model and its twin in tf_keras, with the same names and order
    of layers and the same starting weights, drawn by NumPy from ``config.seed``. Only layers are
    used that both have, and no regularisers: penalties belong to training.

    Args:
        config: what to build.
        keras: the namespace to build with: None for ``keras`` (Keras 3), or ``tf_keras``.

    Returns:
        A ``keras.Model``. Inputs: user ids (n,) and item ids (n,), int32, named ``user_ids`` and
        ``item_ids``, as a list in this order. Output: logits (n,) float32; rank 1, so that it can
        not broadcast against labels of (n,).

    Raises:
        TypeError: config is no RatingModelConfig.

    Example:
        >>> config = RatingModelConfig("dot_product", num_users=2, num_items=3, embedding_dim=4)
        >>> model = build_rating_model(config)
        >>> model([np.array([0, 1]), np.array([2, 0])]).shape
        TensorShape([2])
        >>> [weights.shape for weights in model.get_weights()]
        [(2, 4), (3, 4)]
    """
    check_process()
    check_type("config", config, (RatingModelConfig,))
    keras = keras or importlib.import_module("keras")
    layers, kind = keras.layers, config.kind
    ids = [keras.Input(shape=(), dtype="int32", name=f"{side}_ids") for side in _SIDES]

    def embed(suffix: str, width: int = config.embedding_dim) -> list[Any]:
        """Look both ids up, (n,) to (n, width) each."""
        names = [f"{side}_{suffix}" for side in _SIDES]
        return [_table(config, keras, n, width)(x) for n, x in zip(names, ids, strict=True)]

    def dense(x: Any, name: str, linear_end: bool = False) -> Any:
        units = config.hidden_units or ()
        for position, width in enumerate(units):
            last = linear_end and position == len(units) - 1
            activation = "linear" if last else config.activation
            x = layers.Dense(width, activation=activation, name=f"{name}_{position}")(x)
        return x

    both = embed("embedding")
    if kind == "two_tower":
        both = [dense(x, f"{s}_dense", linear_end=True) for s, x in zip(_SIDES, both, strict=True)]
    if kind in ("mlp_ranker", "neumf"):
        joined = layers.Concatenate(name="concatenate")(both)  # (n, 2 * embedding_dim)
        hidden = dense(joined, "dense")
        if kind == "neumf":
            product = layers.Multiply(name="multiply")(embed("gmf_embedding"))
            hidden = layers.Concatenate(name="merge")([product, hidden])
        score = layers.Dense(1, name="score")(hidden)
    else:
        score = layers.Dot(axes=1, name="dot")(both)
    if kind == "matrix_factorization":
        total = layers.Add(name="add_biases")([score, *embed("bias", 1)])
        score = layers.Rescaling(1.0, offset=config.global_bias, name="global_bias")(total)
    logits = layers.Reshape((), name="logits", dtype="float32")(score)  # (n, 1) to (n,)
    model = keras.Model(ids, logits, name=kind)
    for layer in model.layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        layer.set_weights([_initial_values(config, layer.name, shape) for shape in shapes])
    return model


def _table(config: RatingModelConfig, keras: Any, name: str, width: int) -> Any:
    seed = zlib.crc32(f"{name} {config.seed}".encode())
    start = keras.initializers.RandomNormal(0.0, config.init_std, seed=seed)
    rows = config.num_users if name.startswith("user") else config.num_items
    start = "zeros" if name.endswith("bias") else start
    return keras.layers.Embedding(rows, width, embeddings_initializer=start, name=name)


def _initial_values(config: RatingModelConfig, layer: str, shape: tuple[int, ...]) -> Floats:
    """Draw what a weight starts with: zeros for biases, normal embeddings, Glorot kernels."""
    if layer.endswith("_bias") or len(shape) == 1:
        return np.zeros(shape, np.float32)
    random = np.random.default_rng([config.seed, zlib.crc32(layer.encode())])
    if layer.endswith("_embedding"):
        return random.normal(0.0, config.init_std, shape).astype(np.float32)
    limit = np.sqrt(6.0 / sum(shape))
    return random.uniform(-limit, limit, shape).astype(np.float32)
