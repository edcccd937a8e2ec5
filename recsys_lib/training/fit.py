"""Fit a Keras rating model: epochs, validation, checkpoints, logs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_number, check_process, check_type
from recsys_lib.data import Interactions
from recsys_lib.files import FilePath
from recsys_lib.training import checks, loop
from recsys_lib.training.checkpoint import TrainingState, load_checkpoint, save_checkpoint
from recsys_lib.training.history import History, progress_bar, scalar_writer
from recsys_lib.training.loop import Batch, EpochResult
from recsys_lib.training.sampling import epoch_order
from recsys_lib.training.validation import LOWER_IS_BETTER, Validation, make_validator


def fit(
    model: Any,
    interactions: Interactions,
    *,
    objective: str = "sigmoid_cross_entropy",
    optimizer: Any = "adam",
    epochs: int = 10,
    batch_size: int = 8192,
    negatives_per_positive: int = 4,
    l2: float = 0.0,
    seed: int = 0,
    validation: Validation | None = None,
    metric: str | None = None,
    lower_is_better: bool | None = None,
    patience: int | None = None,
    checkpoint: FilePath | None = None,
    resume: bool = True,
    log_dir: FilePath | None = None,
    on_epoch_end: Callable[[int, Mapping[str, float]], None] | None = None,
    jit_compile: bool = False,
    progress: bool = True,
    extra_loss: Callable[[Batch], Any] | None = None,
    objective_weight: float = 1.0,
) -> History:
    """Train a Keras rating model in place, as Keras' own ``fit`` does, but many times faster.

    An epoch is one call of a compiled graph over tensors in memory: rows are visited in a new
    random order, each exactly once, in batches of which the last may be smaller, and negatives are
    drawn inside the graph. What is minimised stands in
    :func:`recsys_lib.training.loop.compile_epoch`.

    The defaults suit about a million interactions; fewer need smaller batches or more epochs, to
    make as many updates. A KerasRecommender without ``epochs`` chooses for the data it is given.

    Args:
        model: a Keras 3 model that maps ``[user_ids, item_ids]``, each (n,) int32, to (n,) logits
            (or ratings). One with a ``train_step`` or ``compute_loss`` of its own is refused; of
            one that is compiled, a warning says that this counts for nothing here.
        interactions: what to train on.
        objective: "sigmoid_cross_entropy" (label 1 for each interaction, 0 for each drawn item),
            "bpr", "sampled_softmax", or "squared_error" on the ratings.
        optimizer: name or new instance of a Keras optimizer; an instance is copied, not changed.
            For a "mixed_float16" model it scales the loss, as in Keras' ``fit``.
            With ``use_ema=True`` the model has the averages of its weights at the end, as after
            Keras' ``fit``; validation and checkpoints see the weights that are being trained.
        epochs: passes over the data in all, with those of a resumed run.
        batch_size: interactions per update.
        negatives_per_positive: items drawn per interaction; "squared_error" needs none.
        l2: shrinkage of the embedding rows that a batch uses; see ``compile_epoch``.
        seed: of shuffles and draws. Initial weights are the model's own affair.
        validation: held-out Interactions, a Split with negatives, or a function of the model.
        metric: "ndcg", "hit_rate" or "recall" at 10, "rmse", "mae"; default "rmse" for
            "squared_error", else "ndcg". With a function: its name, default "validation".
        lower_is_better: of the metric. It has to be told of a function's with ``patience``, but for
            the five names above and "loss".
        patience: stop after so many epochs without a better metric, and put the weights of the
            best epoch back; None trains to the end and keeps the last weights.
        checkpoint: file to write after each epoch, whole or not at all.
        resume: go on from ``checkpoint`` where it exists, with its weights instead of the model's.
            At the end they are equal to the bit to those of a run without interruption. False
            starts again and replaces the file. A file of another run, with other data, settings or
            another configuration of the model, is refused.
        log_dir: folder for TensorBoard scalars "loss", the metric, "interactions_per_second".
        on_epoch_end: called with the epoch, counted from 1, and its numbers by name.
        jit_compile: compile the whole update with XLA: some 1.3 times faster for an inner product
            of tables, not for models with layers, after one to ten seconds of compiling, and
            TensorFlow keeps some 15 MB of programs a run until the process ends. The inner products
            of tables themselves are compiled in any case, from 50,000 interactions on, and shared
            by all runs of a shape. XLA cannot do gradients of tables so large that they are lists.
        progress: show a progress bar, in notebook or terminal.
        extra_loss: one more loss to minimise along with the objective: maps a
            :class:`recsys_lib.training.loop.Batch` to a scalar, inside the graph. A Keras layer
            brings its variables: ``trainable_variables`` are trained, ``variables`` are part of
            checkpoints; and its ``losses``, such as regularizers. ``after_update()``, if it has
            that, is called after each update.
        objective_weight: factor of the objective beside an extra loss, 0 or more.

    Returns:
        The course of the run.

    Raises:
        TypeError: an argument of a wrong type.
        ValueError: an argument out of range or in conflict with another, a model that does not
            fit the data, or a checkpoint of another run. Nothing has been touched then.
        FloatingPointError: the loss or a weight is no longer finite.
        RuntimeError: in a forked process, where TensorFlow hangs.
        KeyboardInterrupt: Ctrl-C is heard within a second. After any error in an epoch, model and
            checkpoint have the weights from the end of the last whole one.

    Source:
        Rendle et al., *Neural Collaborative Filtering vs. Matrix Factorization Revisited*,
        RecSys 2020 (objective, sampling, shrinkage).

    Example:
        >>> import keras
        >>> inputs = [keras.Input((), dtype="int32"), keras.Input((), dtype="int32")]
        >>> user, item = (keras.layers.Embedding(2, 4)(x) for x in inputs)
        >>> model = keras.Model(inputs, keras.ops.sum(user * item, axis=-1))
        >>> data = Interactions([0, 0, 1, 1], [0, 1, 0, 1], ratings=[1, -1, -1, 1])
        >>> run = fit(model, data, objective="squared_error", epochs=60, progress=False,
        ...           optimizer=keras.optimizers.Adam(0.1))
        >>> run.loss[-1] < 0.1 < run.loss[0]
        True
    """
    check_process()
    check_type("interactions", interactions, (Interactions,), " (of a Split, pass .train)")
    many = check_number("negatives_per_positive", negatives_per_positive, 1, integer=True)
    run_options: dict[str, Any] = {
        "objective": check_choice("objective", objective, loop.OBJECTIVES),
        "batch_size": check_number("batch_size", batch_size, 1, integer=True),
        "negatives_per_positive": many,
        "l2": check_number("l2", l2, 0),
        "seed": check_number("seed", seed, 0, integer=True),
        "objective_weight": check_number("objective_weight", objective_weight, 0),
        "extra_loss": extra_loss,
    }
    if objective == "squared_error" and interactions.ratings is None:
        raise ValueError("interactions has no ratings: expected some, or another objective")
    if extra_loss is None and run_options["objective_weight"] != 1:
        raise ValueError(f"objective_weight is {objective_weight}, but there is no extra_loss")
    epochs = check_number("epochs", epochs, 1, integer=True)
    optimizer = checks.own_optimizer(optimizer, model)
    judged = None  # the name of the metric, where there is one
    if validation is not None:
        default = "rmse" if objective == "squared_error" else "ndcg"
        judged = metric or ("validation" if callable(validation) else default)
        if lower_is_better is None:
            lower_is_better = LOWER_IS_BETTER.get(judged)
    if patience is not None:
        patience = check_number("patience", patience, 1, integer=True)
        if validation is None or checks.uses_averages(optimizer):
            # The weights of the best epoch and the averages at the end exclude each other.
            raise ValueError(f"patience is {patience}: expected a validation, and no use_ema=True")
        if lower_is_better is None:
            raise ValueError(f"lower_is_better is None: expected True or False for {judged!r}")
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None and not path.parent.is_dir():
        raise FileNotFoundError(f"checkpoint is {path}: expected an existing folder {path.parent}")
    checks.check_model(model, interactions, extra_loss)
    if validation is not None:
        validate = make_validator(validation, str(judged), model, interactions)
    run_options["jit_compile"] = bool(jit_compile)
    variables = [*model.variables, *getattr(extra_loss, "variables", ())]
    trained, stops, settings = loop.trained_variables(model, extra_loss), patience is not None, {}
    state = TrainingState([], [], [], History((), (), (), judged, lower_is_better))
    if path is not None:
        more: Any = {"early_stopping": stops, "metric": judged}
        given: Any = run_options, model, interactions, optimizer, validation
        settings = checks.run_settings(*given, **more, lower_is_better=lower_is_better)
        if resume and path.exists():
            state = load_checkpoint(path, settings)
    done = state.history.epochs
    if done > epochs:
        raise ValueError(f"epochs is {epochs}: expected at least {done}, which {path} has already")
    optimizer.build(trained)
    run_epoch = loop.compile_epoch(model, optimizer, interactions, **run_options)
    if done:
        _assign(variables, state.model)
        _assign(optimizer.variables, state.optimizer)
    state = replace(state, model=_values(variables))
    with (
        scalar_writer(log_dir) as write,
        progress_bar(epochs, done, progress) as bar,
        _restoring(variables, lambda: state.model),
    ):
        for epoch in range(done, epochs):
            run = state.history
            if patience is not None and run.epochs - (run.best_epoch or run.epochs) >= patience:
                break
            start = time.perf_counter()
            result = run_epoch(epoch_order(len(interactions), run_options["seed"], epoch), epoch)
            seconds = time.perf_counter() - start
            weights = _values(variables)
            if not _all_finite(result, weights):
                raise FloatingPointError(_divergence(epoch, result, optimizer))
            loss = result.loss_sum / len(interactions)
            logs = {"loss": loss, "interactions_per_second": len(interactions) / seconds}
            if judged is not None:
                logs[judged] = validate()
                run = replace(run, validation=(*run.validation, logs[judged]))
            run = replace(run, loss=(*run.loss, loss), seconds=(*run.seconds, seconds))
            best = weights if stops and run.best_epoch == epoch + 1 else state.best
            reached = TrainingState(weights, _values(optimizer.variables), best, run)
            if path is not None:
                save_checkpoint(path, settings, reached)
            state = reached
            write(epoch + 1, logs)
            bar.set_postfix({name: f"{value:.4g}" for name, value in logs.items()})
            bar.update()
            if on_epoch_end is not None:
                on_epoch_end(epoch + 1, logs)
    if state.best:
        _assign(variables, state.best)
    if checks.uses_averages(optimizer):
        optimizer.finalize_variable_values(trained)
        for variable in trained:  # the mean of weights that fulfil a constraint may not
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
    return replace(state.history, stopped_early=state.history.epochs < epochs)


@contextmanager
def _restoring(variables: Any, values: Callable[[], list[NDArray[Any]]]) -> Iterator[None]:
    """Put the values of the last whole epoch back when one is interrupted."""
    try:
        yield
    except BaseException:
        _assign(variables, values())
        raise


def _values(variables: Any) -> list[NDArray[Any]]:
    return [np.array(variable.numpy()) for variable in variables]


def _assign(variables: Any, values: list[NDArray[Any]]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _all_finite(result: EpochResult, weights: list[NDArray[Any]]) -> bool:
    return bool(np.isfinite(result.loss_sum)) and all(
        np.isfinite(values).all() for values in weights if values.dtype.kind == "f"
    )


def _divergence(epoch: int, result: EpochResult, optimizer: Any) -> str:
    rate, what = float(optimizer.learning_rate), "a weight became infinite or NaN"
    if not np.isfinite(result.loss_sum):
        what = f"the loss became {result.loss_sum} in step {result.steps}"
    return (
        f"{what} of epoch {epoch + 1}, with learning rate {rate:.3g}: try {rate / 10:.3g}, "
        f"a larger l2 or clipnorm=1.0. The model has the weights it had after epoch {epoch}"
    )
