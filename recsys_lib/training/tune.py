"""A search for a model's settings on a held-out part of the training data."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys_lib.checks import check_number, check_type
from recsys_lib.data import Interactions
from recsys_lib.models import Recommender
from recsys_lib.models.sanity import warn_below
from recsys_lib.training.checkpoint import fingerprint
from recsys_lib.training.held_out import hold_out, judge, popularity_ndcg
from recsys_lib.training.recommender import KerasRecommender

if TYPE_CHECKING:
    import pandas as pd

Space = Mapping[str, tuple[float, float] | list[Any]]
SPACES: dict[str, Space] = {
    "IALS": {
        "unobserved_weight": (1e-3, 2.0),
        "l2": (3e-4, 0.3),
        "embedding_dim": (16, 128),
        "epochs": (6, 24),
    },
    "EASE": {"l2": (3.0, 10_000.0)},
    "KerasRecommender": {
        "embedding_dim": [16, 32, 64, 128],
        "l2": (1e-3, 0.05),
        "learning_rate": (2e-3, 0.03),
        "negatives_per_positive": [8, 16, 32],
    },
}


@dataclass(frozen=True)
class Tuning:
    """What :func:`tune` found.

    Args:
        settings: the best that were tried; {} where nothing was better than the defaults.
        model: fitted with them to all interactions.
        ndcg: NDCG@10 on the held-out part, of the best settings fitted to the rest.
        default_ndcg: of the model as it was given, without other settings.
        popularity_ndcg: of popularity.
        trials: one row for each trial, in order: its settings, "ndcg" and "seconds"; "ndcg" is
            missing for one that was given up early.
    """

    settings: dict[str, Any]
    model: Recommender = field(repr=False)
    ndcg: float
    default_ndcg: float
    popularity_ndcg: float
    trials: pd.DataFrame = field(repr=False)


def tune(
    model: Callable[..., Recommender] | KerasRecommender,
    interactions: Interactions,
    *,
    space: Space | None = None,
    budget_s: float | None = None,
    trials: int | None = None,
    most_users: int = 3000,
    seed: int = 0,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> Tuning:
    """Search for good settings on a held-out part of the interactions, then fit with the best.

    The last tenth of the items of up to ``most_users`` users (at least one; at random where no
    times are known) is held out and ranked among all items; the test part of a split has no place
    here. The defaults are tried first, then what Optuna's tree-structured Parzen estimator
    proposes. Warns where the best ends below popularity. A KerasRecommender that stops by itself
    is given up when its best epoch so far, the fifth or later, is below the median of what other
    trials had there; this counts as a trial.

    Args:
        model: a class such as IALS or EASE, a function from settings by name to an unfitted model,
            such as ``functools.partial(IALS, embedding_dim=64)``, or a KerasRecommender, whose
            options, and configuration where the space does not name it, stay as they are.
        interactions: the training data.
        space: for each setting ``(low, high)``, a number between them, on a logarithmic scale where
            low is above 0, and whole where both are int; or a list of choices. For IALS, EASE and
            KerasRecommender there is one (``SPACES`` in this file), for others it has to be given.
        budget_s: seconds after which no further trial starts, but for the first; default 300
            without ``trials``. The last trial and the fit at the end come on top.
        trials: number of trials at most, those of a resumed search counted.
        most_users: how many users are held out at most.
        seed: of the held-out part and the proposals.
        path: file that notes each trial. A search that was stopped goes on from it.
        progress: show a progress bar.

    Raises:
        ImportError: Optuna is not there; ``pip install recsys-lib[tune]`` brings it.
        TypeError: ``model`` or ``interactions`` is something else, or a model without a space.
        ValueError: a number out of range, no user with two items, or ``path`` notes a search with
            other data, model, space or seed.

    Source:
        Akiba et al., *Optuna*, KDD 2019; Bergstra et al., *Algorithms for Hyper-Parameter
        Optimization*, NIPS 2011; giving up by the median: Golovin et al., *Google Vizier*, KDD
        2017, section 3.2.2.

    Example:
        >>> from recsys_lib.data import make_synthetic
        >>> from recsys_lib.models import EASE
        >>> found = tune(EASE, make_synthetic("video"), trials=2, progress=False)
        >>> found.trials.columns.tolist(), len(found.trials)
        (['l2', 'ndcg', 'seconds'], 2)
    """
    check_type("interactions", interactions, (Interactions,), " (of a Split, pass .train)")
    is_keras = isinstance(model, KerasRecommender)
    if not (is_keras or callable(model)):
        raise TypeError(f"model is {model!r}: expected a class, such as IALS, or KerasRecommender")
    named: Any = model
    name = type(model).__name__ if is_keras else str(getattr(named, "func", named).__name__)
    space = SPACES.get(name) if space is None else space
    if not space:
        raise TypeError(f"space is {space}: expected one for {name}, such as {{'l2': (0.1, 10)}}")
    fixed = getattr(model, "keywords", {}) | getattr(model, "options", {})
    space = {key: values for key, values in space.items() if key not in fixed}
    of = (name, getattr(model, "args", ()), getattr(model, "config", None), sorted(fixed))
    seed = check_number("seed", seed, 0, integer=True)
    most_users = check_number("most_users", most_users, 1, integer=True)
    if trials is not None:
        trials = check_number("trials", trials, 1, integer=True)
    if budget_s is not None or trials is None:
        limit = 300.0 if budget_s is None else budget_s
        budget_s = check_number("budget_s", limit, 0, include_low=False)
    train, held = hold_out(interactions, 0.1, most_users, seed)
    if held is None:
        raise ValueError("interactions has no user with two different items: expected some")
    started = time.perf_counter()
    with _quiet_optuna() as optuna:
        study = _study(optuna, path, seed, fingerprint(interactions, of, space, most_users, seed))
        default = with_settings(model, {}).fit(train)
        default_ndcg, popularity = judge(default, train, held), popularity_ndcg(train, held)
        if not study.trials:
            study.enqueue_trial(_start(default, space))

        def one(trial: Any) -> float:
            settings = {key: _suggest(trial, key, values) for key, values in space.items()}

            def report(epoch: int, logs: Mapping[str, float]) -> None:
                if "ndcg" in logs:
                    trial.report(logs["ndcg"], epoch)
                    if trial.should_prune():
                        raise optuna.TrialPruned

            with warnings.catch_warnings():  # a poor trial is no news
                warnings.simplefilter("ignore", UserWarning)
                fitted = with_settings(model, settings, report).fit(train)
            return judge(fitted, train, held)

        _run(optuna, study, one, trials, budget_s, started, progress)
        done = _finished(study)
    tried = [(default_ndcg, {}), *((t.value, t.params) for t in done if t.state.name == "COMPLETE")]
    ndcg, settings = max(tried, key=lambda pair: pair[0])
    if ndcg < popularity:
        warn_below(f"the best {name} of {len(done)} trials", ndcg, popularity)
    fitted = with_settings(model, settings).fit(interactions)
    return Tuning(settings, fitted, ndcg, default_ndcg, popularity, _frame(done))


def with_settings(model: Any, settings: dict[str, Any], report: Any = None) -> Recommender:
    """Return an unfitted model with these settings in place of its own; a Keras one reports."""
    if not isinstance(model, KerasRecommender):
        made = model(**settings)
        check_type("model(...)", made, (Recommender,))
        return made
    import keras

    own = {key: settings[key] for key in settings.keys() & asdict(model.config).keys()}
    rest = {key: value for key, value in settings.items() if key not in own}
    if (rate := rest.pop("learning_rate", None)) is not None:
        rest["optimizer"] = keras.optimizers.Adam(rate)
    options = {"progress": False, "on_epoch_end": report} | model.options | rest
    return KerasRecommender(replace(model.config, **own), **options)


def _start(default: Recommender, space: Space) -> dict[str, Any]:
    """Return the settings of the default model as numbers inside the space, where it tells them."""
    known = vars(default) | vars(default).get("how_to_fold_in", default).__dict__
    numbers = {key: known[key] for key in space if isinstance(known.get(key), int | float)}
    return {
        key: type(value)(np.clip(value, *space[key]))
        for key, value in numbers.items()
        if not isinstance(space[key], list)
    }


def _suggest(trial: Any, name: str, values: Any) -> Any:
    if isinstance(values, list):
        return trial.suggest_categorical(name, values)
    low, high = values
    if isinstance(low, int) and isinstance(high, int):
        return trial.suggest_int(name, low, high, log=low > 0)
    return trial.suggest_float(name, low, high, log=low > 0)


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """Import Optuna, and let it log warnings only."""
    try:
        import optuna
    except ImportError as error:
        raise ImportError("tune needs Optuna: pip install 'recsys-lib[tune]'") from error
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)


def _study(optuna: Any, path: Any, seed: int, of: str) -> Any:
    """Return a new study or the one that the file notes; and what it left undone."""
    storage = None
    if path is not None:
        journal = optuna.storages.journal
        storage = journal.JournalStorage(journal.JournalFileBackend(os.fspath(path)))
    study = optuna.create_study(
        storage=storage, study_name="tune", load_if_exists=True, direction="maximize"
    )
    if study.user_attrs.get("of", of) != of:
        expected = "expected its data, model, space and seed"
        raise ValueError(f"path is {path}, of another search: {expected}")
    study.set_user_attr("of", of)
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False, states=[states.RUNNING]):
        study.tell(trial.number, state=states.FAIL)
        study.enqueue_trial(trial.params)
    study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials), n_startup_trials=8)
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=5)
    return study


def _run(
    optuna: Any,
    study: Any,
    one: Callable[[Any], float],
    trials: int | None,
    budget_s: float | None,
    started: float,
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    done = _finished(study)
    with tqdm(
        total=trials, initial=len(done), disable=not progress, desc="tuning", unit="trial"
    ) as bar:
        while not done or (
            (trials is None or len(done) < trials)
            and (budget_s is None or time.perf_counter() - started < budget_s)
        ):
            trial = study.ask()
            try:
                study.tell(trial, one(trial))
            except (FloatingPointError, MemoryError, optuna.TrialPruned):  # not the end
                study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            done = _finished(study)
            values = [t.value for t in done if t.state.name == "COMPLETE"]
            best = max(values, default=float("nan"))
            bar.set_postfix(best=f"{best:.4f}")
            bar.update()


def _finished(study: Any) -> list[Any]:
    """Return the trials that ran to their end or were given up; not those that were cut off."""
    trials = study.get_trials(deepcopy=False)
    return [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]


def _frame(done: list[Any]) -> pd.DataFrame:
    import pandas as pd

    seconds = [(t.datetime_complete - t.datetime_start).total_seconds() for t in done]
    values = [t.value if t.state.name == "COMPLETE" else float("nan") for t in done]
    return pd.DataFrame([t.params for t in done]).assign(ndcg=values, seconds=seconds)
