"""A Keras rating model and how to train it, as a recommender like all others."""

from __future__ import annotations

import inspect
from dataclasses import asdict, fields, replace
from itertools import pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import Floats, Ids, check_counts, check_process, check_type, check_weights
from recsys_lib.data import Interactions
from recsys_lib.files import known_settings
from recsys_lib.models import (
    RatingModelConfig,
    Recommender,
    build_rating_model,
    inner_product_vectors,
)
from recsys_lib.models.sanity import warn_below
from recsys_lib.training.automatic import automatic
from recsys_lib.training.fit import fit
from recsys_lib.training.forward import KerasScorer
from recsys_lib.training.history import History

_CHOSEN = {"epochs", "extra_loss"}  # with one of these, the options are those of fit
_OPTIONS = inspect.signature(fit).parameters.keys() - {"model", "interactions"}


class KerasRecommender(Recommender):
    """Builds a rating model, trains it with :func:`recsys_lib.training.fit`, and serves it.

    Each ``fit`` starts from the weights that ``config.seed`` gives. With "squared_error", a
    matrix_factorization whose ``global_bias`` is 0 gets the mean rating as its global bias.

    Without ``epochs`` it trains as the data want it: sampled softmax against 16 items (a 600th of
    the catalogue up to 64, where scores are inner products), Adam at .01, shrinkage (for 16 items)
    of the least of .015, .06 / √(mean interactions of a user) and .08 / √(those of an item),
    batches of a fiftieth of the data (256 to 8,192), item biases that start at the items'
    popularity, until NDCG@10 on one held-out item each of up to 2,000 users has not risen for ten
    epochs. Those rows, at most a tenth of all, are not trained on. What is given as an option
    stays as it is given. A model that ends below popularity on them says so in a warning. With
    ``epochs``, all options are those of ``fit``, and all rows are trained on.

    ``save`` writes configuration, weights and those options that are plain numbers, texts or
    None; the model is rebuilt from them on ``load``, and no code is run. An optimizer instance, a
    validation, a checkpoint path and the like are not saved: a loaded model that had them scores,
    but does not train again. A fitted model that is pickled or copied is taken through the same;
    one with quantized layers is a TypeError (``recsys_lib.serving.export_litert`` writes such).

    Args:
        config: of the model.
        **options: of :func:`recsys_lib.training.fit`, such as ``epochs`` or ``optimizer``; without
            ``epochs``, see above.

    Attributes:
        config: as given.
        keras_model: the trained Keras model, None before fit.
        history: the course of the last fit, None before it and after load.

    Raises:
        TypeError: ``config`` is no RatingModelConfig, or an option that fit does not have.
        ValueError: on fit, data with other numbers of users or items than ``config``.

    Example:
        >>> config = RatingModelConfig("dot_product", num_users=2, num_items=4, embedding_dim=4)
        >>> data = Interactions([0, 0, 1, 1], [0, 1, 2, 3])
        >>> model = KerasRecommender(config, epochs=60, batch_size=4, optimizer="lion",
        ...                          progress=False)
        >>> model.fit(data).recommend([0], k=2).shape
        (1, 2)
    """

    def __init__(self, config: RatingModelConfig, **options: Any) -> None:
        check_type("config", config, (RatingModelConfig,))
        inspect.signature(fit).bind(None, None, **options)
        self.config = config
        self.options = {k: v.item() if isinstance(v, np.generic) else v for k, v in options.items()}
        self.keras_model: Any = None
        self.history: History | None = None
        self._not_saved: list[str] = []
        self._scorer: KerasScorer | None = None
        self._fitted_config = config

    def _fit(self, interactions: Interactions) -> None:
        if self._not_saved:
            lost = f"{', '.join(self._not_saved)} cannot be saved"
            raise RuntimeError(f"a loaded model, whose {lost}: expected a new KerasRecommender")
        config = self.config
        check_counts("interactions", interactions, (config.num_users, config.num_items))
        if (
            config.kind == "matrix_factorization"
            and config.global_bias == 0
            and self.options.get("objective") == "squared_error"
            and interactions.ratings is not None
        ):
            config = replace(config, global_bias=float(interactions.ratings.mean()))
        model, options, popularity = build_rating_model(config), self.options, None
        if not _CHOSEN & options.keys():
            interactions, options, popularity = automatic(model, interactions, options)
        self.history = fit(model, interactions, **options)
        self._use(config, model)
        if popularity is not None and max(self.history.validation) < popularity:
            warn_below("the model", max(self.history.validation), popularity, stacklevel=4)

    def _use(self, config: RatingModelConfig, model: Any) -> None:
        self._fitted_config, self.keras_model, self._scorer = config, model, KerasScorer(model)

    def _score_pairs(self, user_ids: Ids, item_ids: Ids) -> Floats:
        assert self._scorer is not None  # the base class has checked that the model is fitted
        return self._scorer.score(user_ids, item_ids)

    def _score_users(self, user_ids: Ids) -> Floats:
        check_process()
        vectors = inner_product_vectors(self.keras_model)
        if vectors is not None:
            return vectors[0][user_ids] @ vectors[1].T
        num_items = self.config.num_items
        pairs = np.repeat(user_ids, num_items), np.tile(np.arange(num_items), len(user_ids))
        return self._score_pairs(*pairs).reshape(len(user_ids), num_items)

    def __reduce__(self) -> Any:
        if self.keras_model is None:
            return super().__reduce__()
        return _restored, (type(self), self._counts(), self.history, *self._state())

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        for layer in self.keras_model.layers:  # loading builds them anew, from the configuration
            kind = f"{type(layer).__module__}.{type(layer).__name__}"
            if getattr(layer, "quantization_mode", None) or "recsys_lib.compression" in kind:
                what = f"layer {layer.name!r} is a quantized {type(layer).__name__}"
                raise TypeError(f"{what}: expected the layers of build_rating_model, or an export")
        plain = {k: v for k, v in self.options.items() if isinstance(v, int | float | str | None)}
        config = {
            "config": asdict(self.config),
            "global_bias": self._fitted_config.global_bias,
            "options": plain,
            "not_saved": sorted(self._not_saved or self.options.keys() - plain.keys()),
        }
        weights = self.keras_model.get_weights()
        return config, {f"weight.{number}": values for number, values in enumerate(weights)}

    @classmethod
    def _from_state(cls, config: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Self:
        parts = ["config", "global_bias", "options", "not_saved"]
        config = known_settings(config, parts, "KerasRecommender")
        names = [field.name for field in fields(RatingModelConfig)]
        settings = known_settings(config["config"], names, "RatingModelConfig")
        settings["hidden_units"] = tuple(settings["hidden_units"])
        options = known_settings(config["options"], _OPTIONS, "fit")
        model = cls(RatingModelConfig(**settings), **options)
        model._not_saved = list(config["not_saved"])
        fitted_config = replace(model.config, global_bias=config["global_bias"])
        sizes = (model.config.num_users, model.config.embedding_dim, model.config.num_items)
        widths = sizes[1], *settings["hidden_units"]
        products = [a * b for a, b in (*pairwise(sizes), *pairwise(widths))]
        if max(products) > sum(array.size for array in arrays.values()):  # before it is built
            raise ValueError(f"config has sizes {sizes}, {widths}: expected those of the weights")
        keras_model = build_rating_model(fitted_config)
        weights = [f"weight.{number}" for number in range(len(arrays))]
        keras_model.set_weights([check_weights(name, arrays[name]) for name in weights])
        model._use(fitted_config, keras_model)
        return model


def _restored(kind: Any, counts: tuple[int, int], history: Any, config: Any, arrays: Any) -> Any:
    """Undo ``KerasRecommender.__reduce__``."""
    model = kind._from_state(config, arrays)
    (model.num_users, model.num_items), model.history = counts, history
    return model
