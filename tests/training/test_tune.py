"""The held-out part, what a recommender chooses by itself, and the search for settings."""

import functools
import sys

import numpy as np
import pytest

from recsys_lib.data import Interactions, make_synthetic
from recsys_lib.models import EASE, IALS, Popularity, RatingModelConfig
from recsys_lib.training import KerasRecommender, tune
from recsys_lib.training.held_out import hold_out, judge, popularity_ndcg

DATA = make_synthetic("video").split_random(0.5, seed=0)[0]
SMALL = {"most_users": 200, "progress": False}


def config(kind="matrix_factorization", dim=8):
    return RatingModelConfig(kind, DATA.num_users, DATA.num_items, dim)


def pairs(data):
    return set(zip(data.user_ids.tolist(), data.item_ids.tolist(), strict=True))


@pytest.mark.parametrize("known", [True, False], ids=["by time", "at random"])
def test_what_is_held_out_is_the_last_and_never_trained_on(known):
    users, items = [0, 0, 0, 0, 0, 0, 1, 1, 2], [5, 1, 2, 3, 4, 5, 1, 1, 0]
    times = [1, 2, 3, 4, 5, 9, 1, 2, 1]
    data = Interactions(users, items, timestamps=times if known else None)
    train, held = hold_out(data, share=0.4)
    assert len(held) == 2 and set(held.user_ids) == {0}  # user 1 has one item, user 2 one row
    assert not pairs(train) & pairs(held) and pairs(train) | pairs(held) == pairs(data)
    if known:
        assert pairs(held) == {(0, 4), (0, 5)} and held.timestamps.tolist() == [5, 9]
    assert len(hold_out(data, share=0.0)[1]) == 1
    assert pairs(hold_out(data, 0.4, seed=4)[1]) == pairs(hold_out(data, 0.4, seed=4)[1])
    assert hold_out(Interactions([0, 1], [0, 1]))[1] is None


def test_held_out_users_are_as_many_as_asked():
    train, held = hold_out(DATA, 0.1, most_users=50)
    assert len(set(held.user_ids)) == 50 and len(train) <= len(DATA) - len(held)
    counts = np.diff(DATA.to_csr().indptr)
    many = {u: max(1, int(counts[u] * 0.1)) for u in set(held.user_ids.tolist())}
    assert dict(zip(*np.unique(held.user_ids, return_counts=True), strict=True)) == many


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tune_finds_a_better_setting_and_fits_it_to_all_rows():
    start, space = functools.partial(IALS, 8, l2=1.0), {"unobserved_weight": (0.001, 1.0)}
    found = tune(start, DATA, space=space | {"epochs": (1, 3)}, trials=6, **SMALL)
    assert found.trials.columns.tolist() == ["unobserved_weight", "epochs", "ndcg", "seconds"]
    assert len(found.trials) == 6 and found.trials["epochs"].isin([1, 2, 3]).all()
    train, held = hold_out(DATA, 0.1, 200)
    assert found.popularity_ndcg == popularity_ndcg(train, held)
    assert found.ndcg == max(found.trials["ndcg"].max(), found.default_ndcg)
    best = found.trials.loc[found.trials["ndcg"].idxmax()]
    weight, epochs = best["unobserved_weight"], int(best["epochs"])
    again = IALS(8, l2=1.0, unobserved_weight=weight, epochs=epochs, check=False)
    assert judge(again.fit(train), train, held) == best["ndcg"]
    assert found.settings == {"unobserved_weight": weight, "epochs": epochs}
    np.testing.assert_array_equal(found.model.item_vectors, again.fit(DATA).item_vectors)


def test_the_first_trial_is_the_default():
    found = tune(EASE, DATA, trials=1, **SMALL)
    assert found.trials["l2"].tolist() == [300.0]
    assert found.trials["ndcg"][0] == pytest.approx(found.default_ndcg, abs=1e-12)
    assert found.settings == {} and found.model.l2 == 300.0


def test_a_search_that_was_stopped_goes_on(tmp_path):
    calls = []

    def make(l2=1.0):
        calls.append(l2)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return EASE(l2)

    options = {"space": {"l2": (1.0, 100.0)}, "path": tmp_path / "search", **SMALL}
    with pytest.raises(KeyboardInterrupt):
        tune(make, DATA, trials=4, **options)
    lost = calls[-1]
    found = tune(make, DATA, trials=5, **options)
    assert found.trials["l2"].tolist()[:3] == [*calls[1:3], lost]  # two are not measured again
    assert len(found.trials) == 5 and len(calls) == 4 + 1 + 3 + 1
    before = len(calls)
    assert tune(make, DATA, trials=5, **options).ndcg == found.ndcg
    assert len(calls) == before + 2  # the default, and the fit at the end
    for changed in ({"seed": 1}, {"space": {"l2": (1.0, 10.0)}}, {"most_users": 10}):
        with pytest.raises(ValueError, match="path is"):
            tune(make, DATA, trials=5, **(options | changed))


def test_a_time_limit_ends_it_and_a_choice_is_one_of_the_list():
    found = tune(EASE, DATA, space={"l2": [50.0, 300.0]}, budget_s=0.5, **SMALL)
    assert set(found.trials["l2"]) <= {50.0, 300.0} and len(found.trials) < 200


def test_a_trial_that_falls_behind_is_given_up_and_counts(monkeypatch):
    runs = []

    def course(model, interactions):  # the larger l2, the worse, in each of ten epochs
        report = model.options["on_epoch_end"]
        runs.append([model.options.get("l2", 1.0), 0])
        for epoch in range(1, 11):
            runs[-1][1] = epoch
            if report:
                report(epoch, {"ndcg": 1 / (1 + model.options["l2"]), "loss": 0.0})
        model.keras_model = runs

    scores = lambda model, users: np.zeros((len(users), DATA.num_items))  # noqa: E731
    monkeypatch.setattr(KerasRecommender, "_fit", course)
    monkeypatch.setattr(KerasRecommender, "_score_users", scores)
    with pytest.warns(UserWarning, match="trials reaches"):
        found = tune(KerasRecommender(config()), DATA, space={"l2": (0.1, 9.0)}, trials=9, **SMALL)
    (_, *tried, last), given_up = runs, found.trials["ndcg"].isna()
    assert len(found.trials) == len(tried) == 9 and last == [1.0, 10] and found.settings == {}
    assert [epoch for _, epoch in tried] == np.where(given_up, 5, 10).tolist()
    assert given_up.any() and not given_up[:4].any()
    for number in np.flatnonzero(given_up):
        assert tried[number][0] > np.median([l2 for l2, _ in tried[:number]])


class Upside(Popularity):
    def __init__(self, number=0):
        self.number = number

    def _fit(self, interactions):
        super()._fit(interactions)
        self.item_counts = -self.item_counts


FEW = DATA.take(np.arange(0, len(DATA), 4))


def test_what_ends_below_popularity_says_so():
    with pytest.warns(UserWarning, match=r"Upside of 2 trials .* popularity"):
        found = tune(Upside, DATA, space={"number": (0, 5)}, trials=2, **SMALL)
    assert found.ndcg < found.popularity_ndcg
    still = {"optimizer": "sgd", "patience": 1, "progress": False}  # it stays at random
    with pytest.warns(UserWarning, match="popularity"):
        KerasRecommender(config("dot_product"), **still).fit(FEW)


REFUSED = [
    ("IALS", {}, "model is"),
    (Popularity, {}, "space is"),
    *((EASE, {name: 0}, f"{name} is") for name in ("trials", "budget_s", "most_users")),
    (lambda l2=1: 3, {"space": {"l2": (1, 2)}, "trials": 1}, r"model\(\.\.\.\) is"),
]


@pytest.mark.parametrize("model, options, match", REFUSED)
def test_tune_refuses(model, options, match, monkeypatch):
    with pytest.raises((TypeError, ValueError), match=match):
        tune(model, DATA, progress=False, **options)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match=r"recsys-lib\[tune\]"):
        tune(EASE, DATA, trials=1, progress=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", ["matrix_factorization", "two_tower", "mlp_ranker"])
def test_a_recommender_without_epochs_stops_by_itself(kind):
    model, again = (KerasRecommender(config(kind), patience=2, progress=False) for _ in range(2))
    run = model.fit(FEW).history
    assert run.metric == "ndcg" and run.stopped_early and run.epochs == run.best_epoch + 2
    if kind == "matrix_factorization":
        train, held = hold_out(FEW, 0.0, min(2000, len(FEW) // 10))
        assert judge(model, train, held) == pytest.approx(max(run.validation), abs=1e-9)
        assert run.validation[0] > 0.8 * popularity_ndcg(train, held)  # where it starts
        again.fit(FEW)
        np.testing.assert_array_equal(again.score_all_items([0, 1]), model.score_all_items([0, 1]))


def test_with_epochs_the_options_are_those_of_fit():
    run = KerasRecommender(config(), epochs=2, progress=False).fit(FEW).history
    assert (run.epochs, run.metric, run.validation) == (2, None, ())


@pytest.mark.slow
def test_tune_a_recommender_keeps_its_configuration():
    start = KerasRecommender(config(), patience=1, batch_size=4096, progress=False)
    space = {"embedding_dim": [4, 6], "learning_rate": (0.005, 0.02)}
    found = tune(start, FEW, space=space, trials=2, **SMALL)
    assert start.keras_model is None and len(found.trials) == 2
    assert found.model.config.kind == start.config.kind
    assert found.model.config.embedding_dim == found.settings.get("embedding_dim", 8)
