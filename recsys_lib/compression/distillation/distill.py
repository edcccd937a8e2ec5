"""Train a student on what a teacher says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recsys_lib.compression.distillation.methods import Method, SoftLabels
from recsys_lib.compression.distillation.student import look_at_student
from recsys_lib.compression.distillation.teacher import MAX_CACHE_BYTES, TeacherScores
from recsys_lib.compression.distillation.term import WeightedTerms
from recsys_lib.compression.distillation.terms import make_term
from recsys_lib.compression.pruning.rating_models import read_config
from recsys_lib.compression.weights import with_weights
from recsys_lib.data import Interactions
from recsys_lib.models import RatingModelConfig, build_rating_model
from recsys_lib.models.checks import check_interactions
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
        cache_bytes: memory kept for the teacher's scores and lists.
    """

    model: Any
    history: History
    cache_bytes: int


def distill(
    teacher: Any,
    student: Any,
    interactions: Interactions,
    method: Method | Sequence[Method] | None = None,
    *,
    max_cache_bytes: int = MAX_CACHE_BYTES,
    **options: Any,
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
        interactions: what to train on; ranked lists leave these items out.
        method: one of :mod:`recsys_lib.compression.distillation.methods` or several;
            ``SoftLabels()`` by default.
        max_cache_bytes: bound of the memory for the teacher's scores; see ``TeacherScores``.
        **options: of :func:`recsys_lib.training.fit`, without ``checkpoint``, ``resume``,
            ``extra_loss`` and ``objective_weight``. ``seed`` also decides what is drawn here.

    Returns:
        The trained student, with the course of its training.

    Raises:
        TypeError: a teacher, student, method or option that is none.
        ValueError: weights that add up to more than 1, a teacher or student of other users or
            items, or scores that are not finite.
        MemoryError: the teacher's scores would need more than ``max_cache_bytes``.

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
        >>> student.model.score_all_items([0]).shape, student.cache_bytes
        ((1, 4), 48)
    """
    check_interactions(interactions)
    chosen = _check_methods(method)
    weights = [one.weight for one in chosen]
    if sum(weights) > 1 + 1e-9:
        raise ValueError(f"method has weights {weights}: expected at most 1 in all")
    refused = [name for name in _REFUSED if name in options]
    if refused:
        raise TypeError(f"{refused[0]} is given: expected options of fit without {_REFUSED}")
    model, recommender = _own_student(student, interactions, options)
    options = (recommender.options if recommender is not None else {}) | options
    for name in _REFUSED:
        options.pop(name, None)
    progress, seed = options.get("progress", True), options.get("seed", 0)
    scores = teacher
    if not isinstance(teacher, TeacherScores):
        scores = TeacherScores(
            teacher,
            interactions.num_users,
            interactions.num_items,
            max_cache_bytes=max_cache_bytes,
            progress=progress,
        )
    elif (scores.num_users, scores.num_items) != (interactions.num_users, interactions.num_items):
        raise ValueError(
            f"teacher counts {scores.num_users} users and {scores.num_items} items, interactions "
            f"{interactions.num_users} and {interactions.num_items}: expected the same"
        )
    if any(weights):
        look = look_at_student(model, interactions.num_items)
        used = [
            (make_term(one, scores, look, interactions, seed + 1000 * (number + 1)), one.weight)
            for number, one in enumerate(chosen)
            if one.weight
        ]
        term = WeightedTerms([one for one, _ in used], [weight for _, weight in used])
        options |= {"extra_loss": term, "objective_weight": max(0.0, 1 - sum(weights))}
        options["on_epoch_end"] = _next_epoch(term, options)
    history = fit(model, interactions, **options)
    if recommender is not None:
        recommender._use(recommender.config, model)
        recommender.history = history
        recommender.num_users = interactions.num_users
        recommender.num_items = interactions.num_items
        model = recommender
    return DistillationResult(model, history, scores.cache_bytes)


def _next_epoch(term: WeightedTerms, options: Mapping[str, Any]) -> Any:
    """Get the term ready for the first epoch; give a function that does so for the others."""
    epochs, given = options.get("epochs", 10), options.get("on_epoch_end")
    term.start_epoch(0, epochs)

    def after_epoch(epoch: int, logs: Mapping[str, float]) -> None:
        if epoch < epochs:  # counted from 1 here
            term.start_epoch(epoch, epochs)
        if given is not None:
            given(epoch, logs)

    return after_epoch


def _check_methods(method: Any) -> tuple[Method, ...]:
    chosen = SoftLabels() if method is None else method
    chosen = (chosen,) if isinstance(chosen, Method) else chosen
    if not isinstance(chosen, Sequence) or not chosen:
        raise TypeError(f"method is {method!r}: expected SoftLabels(), for example, or several")
    for one in chosen:
        if not isinstance(one, Method) or type(one) is Method:
            raise TypeError(
                f"method is of type {type(one).__name__}: expected SoftLabels(), for example"
            )
    return tuple(chosen)


def _own_student(
    student: Any, interactions: Interactions, options: Mapping[str, Any]
) -> tuple[Any, KerasRecommender | None]:
    """Give a Keras model of our own to train, and the recommender that will hold it, if any."""
    if isinstance(student, KerasRecommender):
        kept = student.options | dict(options)
        if student.keras_model is None:
            config = student.config
            model = build_rating_model(config)
        else:
            config = student._fitted_config
            model = with_weights(student.keras_model, {})
    elif isinstance(student, RatingModelConfig):
        config, kept, model = student, dict(options), build_rating_model(student)
    else:
        model = with_weights(student, {})  # raises for what is no Keras model
        try:
            config, kept = read_config(student), dict(options)
        except ValueError:
            return model, None
    if (config.num_users, config.num_items) != (interactions.num_users, interactions.num_items):
        raise ValueError(
            f"student counts {config.num_users} users and {config.num_items} items, interactions "
            f"{interactions.num_users} and {interactions.num_items}: expected the same"
        )
    return model, KerasRecommender(replace(config), **kept)
