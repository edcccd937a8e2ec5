"""A running average of a model's weights, kept while it trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from recsys_lib.checks import check_number
from recsys_lib.compression.weights import keras_model, replace_keras_model, with_weights
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, Recommender, build_rating_model
from recsys_lib.training import History, fit
from recsys_lib.training.validation import make_validator


def check_decay(decay: float) -> float:
    """Give a decay in [0, 1).

    Example:
        >>> check_decay(1.0)
        Traceback (most recent call last):
        ValueError: decay is 1.0: expected a number in [0, 1)
    """
    value = check_number("decay", decay, 0)
    if value >= 1:
        raise ValueError(f"decay is {decay}: expected a number in [0, 1)")
    return value


@dataclass(frozen=True)
class WeightAveraging:
    """How far back an average of weights looks.

    Args:
        decay: share of the old average that stays at each update, in [0, 1). The average looks back
            over about ``1 / (1 - decay)`` updates; that should be much less than the whole run. 0
            gives the weights themselves.
        warm_up: let the average be the plain mean while it has seen less than that; otherwise the
            first weights count for as much as all that came before them.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: decay out of range.
    """

    decay: float = 0.99
    warm_up: bool = True

    def __post_init__(self) -> None:
        check_decay(self.decay)
        if not isinstance(self.warm_up, bool):
            raise TypeError(f"warm_up is {self.warm_up!r}: expected True or False")


@dataclass(frozen=True, eq=False)
class AveragedModel:
    """What training with an average gives.

    Args:
        model: with the averaged weights; of the kind that was trained.
        last: the same with the weights of the last update.
        history: the course of the run; its validation judged the average.
    """

    model: Any
    last: Any
    history: History


class WeightAverage:
    """Follows a model through training; passed to :func:`recsys_lib.training.fit` as extra loss.

    After each update, for each weight::

        average <- decay_n * average + (1 - decay_n) * weight

    with ``decay_n = min(decay, 1 - 1/n)`` at the n-th update when warming up, and otherwise 0 at
    the first and ``decay`` at all later ones, which is what ``use_ema`` of a Keras optimizer does.
    The loss that it adds is 0.

    Args:
        model: a built Keras model, about to be trained.
        config: the decay.

    Attributes:
        model: a copy of the model whose weights are the average. It scores at any time.

    Source:
        Polyak & Juditsky, *Acceleration of Stochastic Approximation by Averaging*, 1992, for the
        plain mean; Tarvainen & Valpola, *Mean teachers are better role models*, 2017, equation 1
        and, for the warm-up, section 3.

    Example:
        >>> import keras
        >>> data = Interactions([0, 1], [0, 1])
        >>> student = build_rating_model(RatingModelConfig("dot_product", 2, 2, 4))
        >>> average = WeightAverage(student, WeightAveraging(decay=0.5))
        >>> _ = fit(student, data, epochs=3, extra_loss=average, progress=False)
        >>> average.num_updates
        3
    """

    def __init__(self, model: Any, config: WeightAveraging) -> None:
        import tensorflow as tf

        self.config = config
        self.__name__ = f"{type(self).__name__}({config})"  # by which checkpoints know it
        self.model = with_weights(keras_model(model), {})
        self._trained = list(zip(self.model.variables, keras_model(model).variables, strict=True))
        self._count = tf.Variable(0, dtype=tf.int64, trainable=False)

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint has to keep."""
        return [*self.model.variables, self._count]

    @property
    def num_updates(self) -> int:
        """Updates seen."""
        return int(self._count.numpy())

    def __call__(self, batch: Any) -> Any:
        """Add nothing to the loss."""
        import tensorflow as tf

        return tf.constant(0.0)

    def after_update(self) -> None:
        """Move the average, inside the graph."""
        import tensorflow as tf

        count = tf.cast(self._count.assign_add(1), tf.float32)
        decay = tf.constant(self.config.decay, tf.float32)
        if self.config.warm_up:
            decay = tf.minimum(decay, 1.0 - 1.0 / count)
        else:
            decay = tf.where(count > 1, decay, 0.0)
        for average, weight in self._trained:
            if "float" not in str(weight.dtype):
                average.assign(weight)
            else:
                average.assign(decay * average + (1.0 - decay) * weight)


def train_with_average(
    student: Any,
    interactions: Interactions,
    config: WeightAveraging = WeightAveraging(),
    **options: Any,
) -> AveragedModel:
    """Train a model, and keep the running average of its weights.

    Args:
        student: a RatingModelConfig to start anew, or a built Keras model or fitted
            KerasRecommender to go on from; it stays as it is.
        interactions: what to train on.
        config: how far back the average looks.
        **options: of :func:`recsys_lib.training.fit`. A ``validation`` judges the average, and
            ``patience`` chooses its best epoch.

    Returns:
        New models: the average, and the last weights, which are those of plain training.

    Raises:
        TypeError, ValueError: as ``fit``; or ``extra_loss`` is among the options.

    Example:
        >>> config = RatingModelConfig("dot_product", 2, 2, 4)
        >>> result = train_with_average(config, Interactions([0, 1], [0, 1]), epochs=2,
        ...                             progress=False)
        >>> result.model.name, len(result.history.loss)
        ('dot_product', 2)
    """
    model = trainable_copy(student)
    return run_averaged(student, model, interactions, WeightAverage(model, config), options)


def run_averaged(
    student: Any, model: Any, interactions: Interactions, average: WeightAverage, options: Any
) -> AveragedModel:
    """Train ``model`` with an average as extra loss, and wrap both as ``student`` was."""
    if options.get("extra_loss") is not None:
        raise ValueError("extra_loss is given: expected none, its place is taken by the average")
    options = dict(options)
    if options.get("validation") is not None:
        ratings = options.get("objective") == "squared_error"
        metric = options.get("metric") or ("rmse" if ratings else "ndcg")
        judge = make_validator(options["validation"], metric, average.model, interactions)
        options |= {"metric": metric, "validation": lambda _: judge()}
    history = fit(model, interactions, **(options | {"extra_loss": average}))
    if isinstance(student, Recommender):
        averaged, last = (replace_keras_model(student, m) for m in (average.model, model))
        return AveragedModel(averaged, last, history)
    return AveragedModel(average.model, model, history)


def trainable_copy(student: Any) -> Any:
    """Give a new Keras model with the weights of a student, or built from its configuration."""
    if isinstance(student, RatingModelConfig):
        return build_rating_model(student)
    return with_weights(keras_model(student), {})
