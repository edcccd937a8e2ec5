"""Defaults that come from the data; what is said where a model does not fit or does not rank."""

import tracemalloc
import warnings

import numpy as np
import pytest

from recsys_lib import checks
from recsys_lib.data import Interactions, Split, make_synthetic
from recsys_lib.evaluation import evaluate_full_ranking
from recsys_lib.models import EASE, IALS, Popularity, load_model
from recsys_lib.models import closed_form as closed_form_module


def groups(seed=0, num_users=400, each=8, num_groups=10, size=20):
    """Users who only meet the items of their own group: popularity knows next to nothing."""
    random = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), each)
    items = random.integers(size, size=len(users)) + size * (users % num_groups)
    return Interactions(users, items, num_users=num_users, num_items=size * num_groups)


def skewed(num_users=400):
    """Everybody meets items by their popularity, and by nothing else."""
    random, weights = np.random.default_rng(0), 1 / np.arange(1, 301.0)
    weights /= weights.sum()
    items = [random.choice(300, 6, replace=False, p=weights) for _ in range(num_users)]
    return Interactions(np.repeat(np.arange(num_users), 6), np.concatenate(items), num_items=300)


# The formulas of the class by hand; the first has few items a user, the last few of all pairs.
RULE = [
    (8, 10, 0.1518667, 0.0294428),
    (40, 10, 0.5886667, 0.0103022),
    (3, 90, 0.0165062, 0.0508295),
]


@pytest.mark.parametrize("each, num_groups, weight, l2", RULE)
def test_ials_takes_weight_and_penalty_from_the_data(each, num_groups, weight, l2):
    data = groups(0, 900, each, num_groups, size=60)
    how = IALS(4, epochs=1).fit(data).how_to_fold_in
    assert (how.unobserved_weight, how.l2) == pytest.approx((weight, l2), rel=1e-5)


def test_ials_counts_in_the_density_only_who_met_something():
    full = Interactions(*np.divmod(np.arange(12), 3), num_users=5, num_items=4)
    # It would get more than 1.
    assert IALS(2, epochs=1).fit(full).how_to_fold_in.unobserved_weight == 1.0


def test_the_rule_gives_the_published_penalty_for_movielens_1m(real_data):
    train = real_data("ncf-ml-1m").train
    model = IALS(2, epochs=1, unobserved_weight=0.3, check=False).fit(train)
    assert model.how_to_fold_in.l2 == pytest.approx(0.007, abs=2e-4)  # Rendle et al. 2021


@pytest.mark.parametrize("given", [{"l2": 0.02}, {"unobserved_weight": 0.25}])
def test_what_is_given_is_kept(given, tmp_path):
    model = IALS(4, epochs=2, **given).fit(groups())
    (name, value), how = *given.items(), model.how_to_fold_in
    assert getattr(how, name) == value
    other = ({"l2", "unobserved_weight"} - {name}).pop()
    assert 0 < getattr(how, other) < 1 and getattr(model, other) == "auto"
    model.save(tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert loaded.how_to_fold_in == how and getattr(loaded, other) == "auto"
    np.testing.assert_array_equal(loaded.fold_in([[1, 2]]), model.fold_in([[1, 2]]))
    refitted = loaded.fit(groups(1))  # the rule is asked again
    assert getattr(refitted.how_to_fold_in, other) != getattr(how, other)


def ndcg(model, train, test):
    return evaluate_full_ranking(model.fit(train), train, test).ndcg


@pytest.mark.parametrize("preset", ["e-commerce", "news", "video", "music"])
def test_defaults_rank_above_popularity(preset):
    parts = make_synthetic(preset, seed=3).split_leave_one_out()
    popular, *models = (ndcg(model, *parts) for model in (Popularity(), IALS(), EASE()))
    assert min(models) > 0.97 * popular  # synthetic taste is faint; see the slow test


TIMES = {"ml-100k": 1.5, "ml-latest-small": 1.4, "online-retail": 3, "adressa-macr": 1.8}


@pytest.mark.slow
@pytest.mark.parametrize("name", TIMES)
def test_default_ials_ranks_far_above_popularity(real_data, name):
    data = real_data(name)
    parts = (data.train, data.test) if isinstance(data, Split) else data.split_leave_one_out()
    assert ndcg(IALS(), *parts) > TIMES[name] * ndcg(Popularity(), *parts)


def test_ials_warns_below_popularity_and_only_there():
    bad = {"l2": 5.0, "unobserved_weight": 10.0}
    with pytest.warns(UserWarning, match="popularity"):
        IALS(8, **bad).fit(skewed())
    with warnings.catch_warnings(action="error"):
        IALS(8).fit(groups())
        IALS(8, **bad, check=False).fit(skewed())
        IALS(8, **bad).fit(skewed(num_users=150))  # too few to say


def most_bytes(call):
    """Return the highest memory that Python and NumPy held during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("l2", "bytes_a_pair"), [(50.0, 4), (1e-3, 12)])
def test_ease_takes_the_memory_that_is_stated(l2, bytes_a_pair):
    data = Interactions(np.arange(3000) % 7, np.arange(3000) // 2)
    assert 0.95 < most_bytes(lambda: EASE(l2).fit(data)) / (bytes_a_pair * 1500**2) < 1.35


def test_ease_refuses_before_it_starts(monkeypatch):
    monkeypatch.setattr(checks, "available_bytes", lambda: 10_000_000)

    def too_large():
        with pytest.raises(MemoryError, match=r"41,000 items takes 6\.77 GB .* 0\.01 GB .* IALS"):
            EASE().fit(Interactions([0, 0], [0, 40_999]))

    assert most_bytes(too_large) < 20_000_000
    EASE().fit(Interactions([0, 0], [0, 999]))


def test_ease_in_float32_ranks_as_in_float64(monkeypatch):
    data = make_synthetic("video")
    single = EASE(20.0).fit(data).item_weights
    monkeypatch.setattr(closed_form_module, "_MOST_FOR_FLOAT32", 0.0)
    double = EASE(20.0).fit(data).item_weights
    assert 0 < np.abs(single - double).max() < 1e-4 * np.abs(double).max()


def test_memory_of_a_control_group_counts(monkeypatch, tmp_path):
    group = (str(tmp_path), "memory.max", "memory.current", "inactive_file")
    monkeypatch.setattr(checks, "_CONTROL_GROUPS", (group,))
    free = checks.available_bytes()
    assert free is None or free > 0
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 50\nfile 100\n")
    for limit, left in (("max", None), ("1000", 350), ("100", 0)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        found = checks.available_bytes()
        assert found != 350 if left is None else found == left
