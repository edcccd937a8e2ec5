"""The one verb of pruning, and what the configs that it takes have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from recsys_lib.checks import check_type
from recsys_lib.compression import CompressedModel
from recsys_lib.data import Interactions


class Pruning(ABC):
    """What goes out of a model: a frozen dataclass that knows how to take it out."""

    @abstractmethod
    def apply(self, model: Any, data: Interactions | None) -> CompressedModel:
        """Return a smaller model; see :func:`prune`."""


def prune(model: Any, config: Pruning, data: Interactions | None = None) -> CompressedModel:
    """Return a model with fewer weights, at once and without training.

    Args:
        model: for WeightPruning what :func:`recsys_lib.compression.named_weights` takes: a factor
            model (IALS, ALS, Factors), a Keras model or a fitted KerasRecommender. For
            DimensionReduction and RowRemoval a factor model, or a model of ``build_rating_model``
            (Keras 3 or tf_keras) or a fitted KerasRecommender around one; for NeuronPruning and
            LayerRemoval one of these with hidden layers. It stays as it is.
        config: what goes, and how it is chosen:

            - :class:`WeightPruning`: single weights, rows or blocks become zero;
            - :class:`NeuronPruning`: neurons of hidden layers;
            - :class:`LayerRemoval`: a hidden layer;
            - :class:`DimensionReduction`: columns of the tables;
            - :class:`RowRemoval`: rows of the tables.
        data: interactions that the model was trained on, for a config that looks at them: some
            methods of NeuronPruning, LayerRemoval to fit the bridge, RowRemoval to count.

    Returns:
        ``.model`` is of the same kind as ``model`` (for RowRemoval the result is a
        :class:`FewerRows`, which still takes the old ids), ``.report`` tells bytes and errors.

    Raises:
        TypeError: another kind of model, config or data.
        RuntimeError: a recommender that is not fitted.
        ValueError: a model that the config does not fit, NaN in its weights, or data that are
            missing or have other counts than the model.

    Example:
        >>> from recsys_lib.compression.pruning import WeightPruning
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("mlp_ranker", 100, 50, 16))
        >>> pruned = prune(model, WeightPruning(0.8))
        >>> pruned.report.to_frame().query("name == 'dense_1/kernel'").sparsity.round(2).tolist()
        [0.8]
    """
    check_type("config", config, (Pruning,), " such as WeightPruning or DimensionReduction")
    return config.apply(model, data)
