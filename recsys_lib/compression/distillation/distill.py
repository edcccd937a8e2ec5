"""Train a student on what a teacher says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from recsys_lib.checks import check_counts, check_type
from recsys_lib.compression.distillation.methods import Lesson, Method, SoftLabels, Term
from recsys_lib.compression.distillation.teacher import TeacherScores
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.weights import with_weights
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.training import History, KerasRecommender, fit

# A term draws anew for each epoch, which a checkpoint does not hold.
_REFUSED = ("checkpoint", "resume", "extra_loss", "objective_weight")


@dataclass(frozen=True, eq=False)
class DistillationResult:
    """A trained student.

    Args:
        model: a KerasRecommender; where the student was a Keras model that ``build_rating_model``
            does not make, a Keras model.
        history: the course of training; its loss is the sum that was minimised.
    """

    model: Any
    history: History


def distill(
    teacher: Any, student: Any, train: Interactions, *methods: Method, **options: Any
) -> DistillationResult:
    """Train a student on labels and on what a teacher says; neither is changed.

    What is minimised, with w the weight of the method, is ``(1 - w)`` times the objective of
    :func:`recsys_lib.training.fit` plus ``w`` times the method's loss; with several methods, their
    weighted sum, and 1 minus all weights for the labels. With weight 0 the student is trained as
    without a teacher, to the bit. The option ``l2`` of ``fit`` is not weighed. Beside a teacher the
    labels have less to set against it, so a fair comparison with a student of labels alone takes
    ``(1 - w)`` times its ``l2``.

    Args:
        teacher: any scorer, or an array of scores; see
            :class:`recsys_lib.compression.distillation.TeacherScores`. One such object can be
            given here itself, and keeps what it has computed for the next student.
        student: a RatingModelConfig; a KerasRecommender, whose options of ``fit`` are the defaults
            and whose weights are the start if it is fitted; or a built Keras model
            ``[user_ids, item_ids]`` to (n,) logits, whose weights are the start.
        train: what to train on; ranked lists leave these items out.
        *methods: SoftLabels, RankingDistillation, CollaborativeDistillation,
            RelaxedRankingDistillation or DistillationExperts, one or several; ``SoftLabels()`` by
            default.
        **options: of :func:`recsys_lib.training.fit`, without ``checkpoint``, ``resume``,
            ``extra_loss`` and ``objective_weight``. ``seed`` also decides what is drawn here.

    Returns:
        The trained student, with the course of its training.

    Raises:
        TypeError: a teacher, student, method or option that is none.
        ValueError: weights that add up to more than 1, a teacher or student of other users or
            items, or scores that are not finite.
        MemoryError: the teacher's scores would need more than the ``max_cache_bytes`` of
            ``TeacherScores``.

    Source:
        Hinton, Vinyals & Dean, *Distilling the Knowledge in a Neural Network*, 2015; the papers of
        the methods.

    Example:
        >>> from recsys_lib.models import EASE
        >>> data = Interactions([0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 2, 3])
        >>> teacher = EASE(l2=1.0).fit(data)
        >>> config = RatingModelConfig("dot_product", num_users=3, num_items=4, embedding_dim=2)
        >>> student = distill(teacher, config, data, SoftLabels(weight=1.0), epochs=3,
        ...                   progress=False)
        >>> student.model.score_all_items([0]).shape
        (1, 4)
    """
    check_type("train", train, (Interactions,))
    chosen = methods or (SoftLabels(),)
    for number, one in enumerate(chosen):
        check_type(f"methods[{number}]", one, (Method,), ", such as SoftLabels()")
    weights = [one.weight for one in chosen]
    if sum(weights) > 1 + 1e-9:
        raise ValueError(f"methods have weights {weights}: expected at most 1 in all")
    if refused := [name for name in _REFUSED if name in options]:
        raise TypeError(f"{refused[0]} is given: expected options of fit without {_REFUSED}")
    if isinstance(student, KerasRecommender):
        kept = {name: value for name, value in student.options.items() if name not in _REFUSED}
        options = kept | options
    model, config = _own_student(student)
    counts = train.num_users, train.num_items
    if config is not None:
        check_counts("student", config, counts)
    scores = teacher if isinstance(teacher, TeacherScores) else TeacherScores(teacher, *counts)
    check_counts("teacher", scores, counts)
    added: dict[str, Any] = {}
    if any(weights):
        lesson, seed = Lesson(scores, model, train), options.get("seed", 0)
        seeds = range(seed + 1000, seed + 1000 * (len(chosen) + 1), 1000)
        pairs = [(one, own) for one, own in zip(chosen, seeds, strict=True) if one.weight]
        terms = [(one.make_term(lesson, own), one.weight) for one, own in pairs]
        added = _as_options(terms, options) | {"objective_weight": max(0.0, 1 - sum(weights))}
    history = fit(model, train, **(options | added))
    if config is None:
        return DistillationResult(model, history)
    recommender = KerasRecommender(config, **options)
    recommender._use(config, model)
    recommender.history = history
    recommender.num_users, recommender.num_items = counts
    return DistillationResult(recommender, history)


def _as_options(terms: list[tuple[Term, float]], options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``fit`` that add the weighted terms, each ready for its epoch."""
    epochs, given = options.get("epochs", 10), options.get("on_epoch_end")

    def start_epoch(epoch: int) -> None:
        for term, _ in terms:
            term.start_epoch(epoch, epochs)

    def after_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        if epoch < epochs:  # counted from 1 here
            start_epoch(epoch)
        if given is not None:
            given(epoch, logs)

    start_epoch(0)
    variables = [variable for term, _ in terms for variable in term.trainable_variables]
    total = Term(lambda batch: sum(w * t(batch) for t, w in terms), trainable_variables=variables)
    return {"extra_loss": total, "on_epoch_end": after_epoch}


def _own_student(student: Any) -> tuple[Any, RatingModelConfig | None]:
    """A Keras model of our own to train, and its configuration, where there is one."""
    if isinstance(student, KerasRecommender):
        if student.keras_model is not None:
            return with_weights(student.keras_model, {}), student._fitted_config
        student = student.config
    if isinstance(student, RatingModelConfig):
        return build_rating_model(student), student
    model = with_weights(student, {})  # raises for what is no Keras model
    try:
        return model, read_config(student)
    except ValueError:
        return model, None
