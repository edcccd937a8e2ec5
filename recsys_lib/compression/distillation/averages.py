"""A running average of a model's weights, and a student that agrees with its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from recsys_lib.checks import check_choice, check_type, store_flags, store_numbers, store_shares
from recsys_lib.compression.distillation.losses import SOFT_LOSSES, soft_loss
from recsys_lib.compression.weights import keras_model, replace_keras_model, with_weights
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, Recommender, build_rating_model
from recsys_lib.training import History, fit
from recsys_lib.training.forward import make_forward
from recsys_lib.training.sampling import uniform_negatives
from recsys_lib.training.validation import make_validator


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
        store_shares(self, "decay")
        store_flags(self, "warm_up")


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
    That one, however, hands its average out at the end of training alone. The loss that is added
    here is 0.

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
        >>> data = Interactions([0, 1], [0, 1])
        >>> student = build_rating_model(RatingModelConfig("dot_product", 2, 2, 4))
        >>> average = WeightAverage(student, WeightAveraging(decay=0.5))
        >>> run = fit(student, data, epochs=3, extra_loss=average, progress=False)
        >>> moved = student.get_weights()[0] - average.model.get_weights()[0]
        >>> bool((moved != 0).any())
        True
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
        """Return the variables that a checkpoint has to keep."""
        return [*self.model.variables, self._count]

    def __call__(self, batch: Any) -> Any:
        """Add nothing to the loss."""
        return 0.0

    def after_update(self) -> None:
        """Move the average, inside the graph."""
        import tensorflow as tf

        count = tf.cast(self._count.assign_add(1), tf.float32)
        decay = tf.constant(self.config.decay, tf.float32)
        warm = 1.0 - 1.0 / count  # the plain mean
        decay = tf.minimum(decay, warm) if self.config.warm_up else tf.where(count > 1, decay, 0.0)
        for average, weight in self._trained:
            floats = "float" in str(weight.dtype)
            average.assign(decay * average + (1.0 - decay) * weight if floats else weight)


def train_with_average(
    student: Any, train: Interactions, config: WeightAveraging = WeightAveraging(), **options: Any
) -> AveragedModel:
    """Train a model, and keep the running average of its weights.

    Args:
        student: a RatingModelConfig to start anew, or a built Keras model or fitted
            KerasRecommender to go on from; it stays as it is.
        train: what to train on.
        config: how far back the average looks.
        **options: of :func:`recsys_lib.training.fit`. A ``validation`` judges the average, and
            ``patience`` chooses its best epoch; of a function, ``lower_is_better`` has to be told.

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
    if options.get("extra_loss") is not None:
        raise ValueError("extra_loss is given: expected none, the average takes its place")
    new = isinstance(student, RatingModelConfig)
    model = build_rating_model(student) if new else with_weights(keras_model(student), {})
    average = WeightAverage(model, config)
    validation = options.get("validation")
    if callable(validation):
        options |= {"validation": lambda _: validation(average.model)}
    elif validation is not None:
        ratings = options.get("objective") == "squared_error"
        metric = options.get("metric") or ("rmse" if ratings else "ndcg")
        judge = make_validator(validation, metric, average.model, train)
        options |= {"metric": metric, "validation": lambda _: judge()}
    history = fit(model, train, **(options | {"extra_loss": average}))
    models = average.model, model
    if isinstance(student, Recommender):
        models = tuple(replace_keras_model(student, one) for one in models)
    return AveragedModel(*models, history)


@dataclass(frozen=True)
class MeanTeacher:
    """How a student follows the average of its own weights.

    Args:
        averaging: of the weights: the teacher.
        weight: factor of the consistency cost beside the objective, 0 or more. 0 leaves a plain
            average.
        loss: "binary", "listwise" or "regression", as in
            :class:`recsys_lib.compression.distillation.SoftLabels`.
        temperature: divides the logits; "regression" has none.
        num_unlabeled: items drawn per interaction that enter the consistency cost without a label,
            beside those that have one; 0 or more.
        ramp_up: updates over which the weight grows from almost 0 to its full size, while the
            average is still about as ignorant as the student; 0 or more.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range.
    """

    averaging: WeightAveraging = field(default_factory=WeightAveraging)
    weight: float = 1.0
    loss: str = "listwise"
    temperature: float = 1.0
    num_unlabeled: int = 4
    ramp_up: int = 100

    def __post_init__(self) -> None:
        check_type("averaging", self.averaging, (WeightAveraging,))
        check_choice("loss", self.loss, SOFT_LOSSES)
        store_numbers(self, 0, "weight")
        store_numbers(self, 0, "temperature", include_low=False)
        store_numbers(self, 0, "num_unlabeled", "ramp_up", integer=True)


class Consistency(WeightAverage):
    """An average that the student is also drawn towards; passed to ``fit`` as extra loss.

    At each update the student minimises::

        objective + weight * ramp * mean consistency(average's logits, student's logits)

    with ``ramp = exp(-5 (1 - step / ramp_up)^2)`` until ``ramp_up`` updates are made and 1 then,
    and the average follows, as in :class:`WeightAverage`. In the paper student and teacher also
    see different noise; here they differ by their weights alone, unless the model has layers such
    as dropout that act in training.

    Args:
        model: a built Keras model, about to be trained.
        config: settings.
        num_items: size of the catalogue.
        seed: of the drawn items.

    Attributes:
        model: a copy of the model whose weights are the average: the teacher, and usually the
            better one of the two.

    Raises:
        ValueError: from ``fit``: "listwise" where only one item per interaction is compared
            ("squared_error" without num_unlabeled).

    Source:
        Tarvainen & Valpola, *Mean teachers are better role models*, NIPS 2017, sections 2 and 3
        (the ramp: Laine & Aila, *Temporal Ensembling*, ICLR 2017), and section 3.4 for the choice
        of the loss.

    Example:
        >>> student = build_rating_model(RatingModelConfig("dot_product", 2, 2, 4))
        >>> teacher = Consistency(student, MeanTeacher(), num_items=2)
        >>> run = fit(student, Interactions([0, 1], [0, 1]), epochs=2, extra_loss=teacher,
        ...           progress=False)
        >>> teacher.model.name
        'dot_product'
    """

    def __init__(self, model: Any, config: MeanTeacher, num_items: int, seed: int = 0) -> None:
        super().__init__(model, config.averaging)
        self.__name__ = f"Consistency({config})"
        self.teacher = config
        self._loss = soft_loss(config.loss, config.temperature)
        self._student, self._average = make_forward(model), make_forward(self.model)
        self._num_items, self._seed = num_items, seed

    def __call__(self, batch: Any) -> Any:
        """Return the cost of a batch, a scalar."""
        import tensorflow as tf

        config, weight = self.teacher, self.teacher.weight
        items, logits = batch.item_ids, batch.logits
        if config.num_unlabeled:
            rows = tf.shape(batch.user_ids)[0]
            # Another stream than the negatives: the same draw would add nothing.
            shape = rows, config.num_unlabeled, self._num_items
            drawn = uniform_negatives(*shape, self._seed + 1, batch.step)
            items = tf.concat([items, drawn], axis=1)  # (b, 1 + m + num_unlabeled)
            logits = tf.concat([logits, self._student(batch.user_ids, drawn)], axis=1)
        if config.ramp_up:
            done = tf.minimum(tf.cast(batch.step, tf.float32) / config.ramp_up, 1.0)
            weight = weight * tf.exp(-5.0 * (1.0 - done) ** 2)
        return weight * tf.reduce_mean(self._loss(self._average(batch.user_ids, items), logits))
