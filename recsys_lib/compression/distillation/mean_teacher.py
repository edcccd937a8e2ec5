"""A student that is its own teacher: consistency with the average of its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from recsys_lib.checks import check_choice, check_number
from recsys_lib.compression.distillation.ema import (
    AveragedModel,
    WeightAverage,
    WeightAveraging,
    run_averaged,
    trainable_copy,
)
from recsys_lib.compression.distillation.methods import SOFT_LOSSES
from recsys_lib.compression.distillation.soft_labels import (
    check_temperature,
    score_regression,
    soft_sigmoid_cross_entropy,
    softmax_kl_divergence,
)
from recsys_lib.data import Interactions
from recsys_lib.training.sampling import uniform_negatives


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
        if not isinstance(self.averaging, WeightAveraging):
            raise TypeError(f"averaging is {self.averaging!r}: expected WeightAveraging")
        check_number("weight", self.weight, 0)
        check_choice("loss", self.loss, SOFT_LOSSES)
        check_temperature(self.temperature)
        check_number("num_unlabeled", self.num_unlabeled, 0, integer=True)
        check_number("ramp_up", self.ramp_up, 0, integer=True)


class Consistency(WeightAverage):
    """An average that the student is also drawn towards; see :func:`train_mean_teacher`.

    Args:
        model: a built Keras model, about to be trained.
        config: settings.
        num_items: size of the catalogue.
        seed: of the drawn items.
    """

    def __init__(self, model: Any, config: MeanTeacher, num_items: int, seed: int) -> None:
        from recsys_lib.training.forward import make_forward

        super().__init__(model, config.averaging)
        self.__name__ = f"Consistency({config})"
        self.teacher = config
        self._student, self._average = make_forward(model), make_forward(self.model)
        self._num_items, self._seed = num_items, seed

    def __call__(self, batch: Any) -> Any:
        """Give the cost of a batch, a scalar."""
        import tensorflow as tf

        config = self.teacher
        items, logits = batch.item_ids, batch.logits
        if config.num_unlabeled:
            rows = tf.shape(batch.user_ids)[0]
            # Another stream than the negatives: the same draw would add nothing.
            drawn = uniform_negatives(
                rows, config.num_unlabeled, self._num_items, self._seed + 1, batch.step
            )
            items = tf.concat([items, drawn], axis=1)  # (b, 1 + m + num_unlabeled)
            logits = tf.concat([logits, self._student(batch.user_ids, drawn)], axis=1)
        target = tf.stop_gradient(self._average(batch.user_ids, items))
        if config.loss == "listwise":
            losses = softmax_kl_divergence(target, logits, temperature=config.temperature)
        elif config.loss == "binary":
            losses = soft_sigmoid_cross_entropy(target, logits, temperature=config.temperature)
        else:
            losses = score_regression(target, logits)
        weight = config.weight * ramp(tf.cast(batch.step, tf.float32), config.ramp_up)
        return weight * tf.reduce_mean(losses)


def train_mean_teacher(
    student: Any,
    interactions: Interactions,
    config: MeanTeacher = MeanTeacher(),
    **options: Any,
) -> AveragedModel:
    """Train a model that is to agree with the running average of its own weights.

    At each update the student minimises::

        objective + weight * ramp * mean consistency(average's logits, student's logits)

    and the average then follows, as in
    :class:`recsys_lib.compression.distillation.ema.WeightAverage`. In the paper student and teacher
    also see different noise; here they differ by their weights alone, unless the model has layers
    such as dropout that act in training.

    Args:
        student: a RatingModelConfig to start anew, or a built Keras model or fitted
            KerasRecommender to go on from; it stays as it is.
        interactions: what to train on.
        config: settings.
        **options: of :func:`recsys_lib.training.fit`. A ``validation`` judges the average, and
            ``patience`` chooses its best epoch.

    Returns:
        New models: the average, which is the teacher and usually the better one, and the student.

    Raises:
        TypeError, ValueError: as ``fit``; or ``extra_loss`` is among the options; or "listwise"
            where only one item per interaction is compared ("squared_error" without
            num_unlabeled).

    Source:
        Tarvainen & Valpola, *Mean teachers are better role models*, NIPS 2017, section 2, and
        section 3.4 for the choice of the loss.

    Example:
        >>> from recsys_lib.models import RatingModelConfig
        >>> config = RatingModelConfig("dot_product", 2, 2, 4)
        >>> result = train_mean_teacher(config, Interactions([0, 1], [0, 1]), epochs=2,
        ...                             progress=False)
        >>> result.model.name, result.last.name
        ('dot_product', 'dot_product')
    """
    model = trainable_copy(student)
    seed = options.get("seed", 0)
    loss = Consistency(model, config, interactions.num_items, int(seed))
    return run_averaged(student, model, interactions, loss, options)


def ramp(step: Any, length: int) -> Any:
    """Grow from nearly 0 to 1: ``exp(-5 (1 - step / length)^2)``, and 1 from ``length`` on.

    Source:
        Tarvainen & Valpola 2017, section 3; Laine & Aila, *Temporal Ensembling*, ICLR 2017.

    Example:
        >>> [round(float(ramp(step, 10)), 3) for step in (0.0, 5.0, 10.0, 99.0)]
        [0.007, 0.287, 1.0, 1.0]
    """
    import tensorflow as tf

    if length == 0:
        return tf.constant(1.0)
    missing = tf.maximum(0.0, 1.0 - step / length)
    return tf.exp(-5.0 * missing**2)
