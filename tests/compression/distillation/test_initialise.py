"""A student that starts from its teacher: against SciPy's decomposition, and layer by layer."""

import numpy as np
import pytest
import scipy.linalg
import scipy.optimize

from recsys_lib.compression import named_weights
from recsys_lib.compression.distillation import start_from_teacher
from recsys_lib.compression.distillation.initialise import fit_logits, kept_layers
from recsys_lib.compression.pruning import LayerRemoval, prune
from recsys_lib.data import Interactions
from recsys_lib.models import ALS, EASE, IALS, RatingModelConfig, build_rating_model
from recsys_lib.models.factors import Factors
from recsys_lib.training import KerasScorer, fit

USERS, ITEMS = 60, 90
EVERY_PAIR = np.repeat(np.arange(USERS), ITEMS), np.tile(np.arange(ITEMS), USERS)
RANDOM = np.random.default_rng(0)
GROUPS = np.repeat(RANDOM.integers(0, 3, USERS), 20)
CHOSEN = np.repeat(np.arange(USERS), 20), RANDOM.integers(0, 30, 20 * USERS) + 30 * GROUPS
DATA = Interactions(*CHOSEN, num_users=USERS, num_items=ITEMS)
TEACHER = IALS(embedding_dim=12, epochs=4, progress=False).fit(DATA)


def scores(model):
    scorer = model if isinstance(model, Factors) else KerasScorer(model)
    return scorer.score(*EVERY_PAIR).reshape(USERS, ITEMS)


def config(kind, dim=8, *hidden_units, **more):
    hidden = {"hidden_units": hidden_units} if hidden_units else {}
    return RatingModelConfig(kind, USERS, ITEMS, dim, **hidden, **more)


def built(kind, dim=8, *hidden_units, **more):
    """A model with random weights everywhere, biases too."""
    model = build_rating_model(config(kind, dim, *hidden_units, init_std=0.5, **more))
    random = np.random.default_rng(1)
    model.set_weights([w + random.normal(0, 0.3, w.shape) for w in model.get_weights()])
    return model


@pytest.mark.parametrize("dim", [1, 4, 11])
@pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization"])
def test_tables_are_the_best_approximation_there_is(kind, dim):
    wanted = scores(TEACHER).astype(np.float64)
    left, values, right = scipy.linalg.svd(wanted, full_matrices=False)
    best = (left[:, :dim] * values[:dim]) @ right[:dim]
    student = scores(start_from_teacher(TEACHER, config(kind, dim)))
    np.testing.assert_allclose(student, best, atol=2e-5)
    error = np.linalg.norm(student - wanted)  # Eckart & Young: the values that were cut
    assert error == pytest.approx(np.sqrt(np.sum(values[dim:] ** 2)), rel=1e-4)


@pytest.mark.parametrize("dim", [12, 20])
def test_a_student_of_the_teachers_size_or_more_equals_it_and_all_its_columns_learn(dim):
    student = start_from_teacher(TEACHER, config("dot_product", dim))
    np.testing.assert_allclose(scores(student), scores(TEACHER), atol=2e-5)
    fit(student, DATA, objective="bpr", epochs=3, batch_size=100, progress=False)
    for name, table in named_weights(student).items():
        assert np.abs(table).sum(axis=0).min() > 0, name


@pytest.mark.parametrize("student_kind", ["dot_product", "matrix_factorization"])
@pytest.mark.parametrize("teacher_kind", ["dot_product", "matrix_factorization", "two_tower"])
def test_every_inner_product_can_teach_and_keeps_its_scores(teacher_kind, student_kind):
    more = {"global_bias": 1.5} if teacher_kind == "matrix_factorization" else {}
    teacher = built(teacher_kind, 6, **more)
    student = start_from_teacher(teacher, config(student_kind, 40))
    np.testing.assert_allclose(scores(student), scores(teacher), atol=1e-4)


@pytest.mark.parametrize(("kind", "dim"), [("matrix_factorization", 4), ("dot_product", 6)])
def test_als_with_its_mean_and_biases_can_teach_and_keeps_its_scores(kind, dim):
    """Into the tables for biases, or as two more dimensions."""
    ratings = np.random.default_rng(2).integers(1, 6, len(DATA))
    rated = Interactions(*CHOSEN, ratings=ratings, num_users=USERS, num_items=ITEMS)
    teacher = ALS(embedding_dim=4, epochs=5).fit(rated)
    student = start_from_teacher(teacher, config(kind, dim))
    np.testing.assert_allclose(scores(student), scores(teacher), atol=1e-4)


def test_biases_are_kept_and_only_the_product_is_cut():
    teacher = built("matrix_factorization", 8, global_bias=2.0)
    student = start_from_teacher(teacher, config("matrix_factorization", 3))
    weights = named_weights(teacher)
    product = weights["user_embedding/embeddings"] @ weights["item_embedding/embeddings"].T
    left, values, right = np.linalg.svd(product)
    rest = scores(student) - (scores(teacher) - product)
    np.testing.assert_allclose(rest, (left[:, :3] * values[:3]) @ right[:3], atol=1e-4)


@pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization"])
def test_interactions_turn_scores_into_logits_and_leave_the_order(kind):
    students = [start_from_teacher(TEACHER, config(kind, 5), data) for data in (None, DATA)]
    plain, logits = map(scores, students)
    scale = np.polyfit(plain.ravel(), logits.ravel(), 1)
    np.testing.assert_allclose(np.polyval(scale, plain), logits, atol=1e-3)  # one line for all
    assert scale[0] > 1
    options = {"objective": "sampled_softmax", "epochs": 1, "batch_size": 10_000, "progress": False}
    losses = [fit(student, DATA, **options).loss[0] for student in students]
    assert losses[1] < losses[0]  # before any update


def test_platt_finds_what_scipy_finds():
    random = np.random.default_rng(0)
    x = random.normal(0.2, 0.1, 500)
    y = (random.random(500) < 1 / (1 + np.exp(-(12 * x - 3)))).astype(float)

    def loss(beta):
        logits = beta[0] * x + beta[1]
        return np.mean(np.logaddexp(0, logits) - y * logits)

    found = scipy.optimize.minimize(loss, [1, 0], method="Nelder-Mead", tol=1e-10).x
    np.testing.assert_allclose(fit_logits(x, y), found, rtol=1e-3)
    for useless in ([0.0, 1.0], [0.5, 0.5]):
        with pytest.raises(ValueError, match="teacher's scores"):
            fit_logits(useless, [1, 0])


@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower"])
def test_a_network_of_the_teachers_size_is_the_teacher_and_layers_go_at_even_distances(kind):
    teacher = built(kind, 8, 12, 10, 6)
    student = start_from_teacher(teacher, config(kind, 8, 12, 10, 6))
    np.testing.assert_array_equal(scores(student), scores(teacher))
    assert student is not teacher and kept_layers(5, 3) == (0, 2, 4)
    if kind == "mlp_ranker":
        student, expected = config(kind, 8, 12, 6), prune(teacher, LayerRemoval(1)).model
        student = start_from_teacher(teacher, student)
        np.testing.assert_allclose(scores(student), scores(expected), atol=1e-5)


def test_idle_neurons_are_the_first_to_go_and_the_teacher_stays_as_it_is():
    teacher = built("neumf", 4, 10, 6)
    weights = named_weights(teacher)
    weights["dense_1/kernel"][[2, 5, 7]] = 0  # nobody reads these three
    teacher.set_weights(list(weights.values()))
    student = start_from_teacher(teacher, config("neumf", 4, 7, 6), DATA)
    np.testing.assert_allclose(scores(student), scores(teacher), atol=1e-4)
    for old, new in zip(weights.values(), teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_one_epoch_from_the_teacher_beats_the_same_from_a_random_start():
    student, vectors = config("dot_product", 4), TEACHER.user_vectors.copy()
    options = {"objective": "bpr", "epochs": 1, "batch_size": 256, "progress": False}
    fresh = fit(build_rating_model(student), DATA, **options)
    started = fit(start_from_teacher(TEACHER, student, DATA), DATA, **options)
    assert started.loss[0] < 0.7 * fresh.loss[0]
    np.testing.assert_array_equal(TEACHER.user_vectors, vectors)


def test_refuses():
    mlp = ("mlp_ranker", 8, 12, 6)
    for teacher, student, word in (
        (("mlp_ranker", 8), config("dot_product", 4), "teacher"),
        (("mlp_ranker", 8), config("neumf", 4), "kind"),
        (("dot_product", 8), config("two_tower", 4), "kind"),
        (mlp, config("mlp_ranker", 8, 12, 6, activation="tanh"), "activation"),
        (mlp, config("mlp_ranker", 16, 12, 6), "embedding_dim"),
        (mlp, config("mlp_ranker", 8, 16, 6), "hidden_units"),
        (mlp, config("mlp_ranker", 8, 12, 8), "hidden_units"),
        (mlp, config("mlp_ranker", 8, 12, 6, 4), "hidden_units"),
        (("two_tower", 8, 12, 6), config("two_tower", 8, 12, 4), "hidden_units"),
        (TEACHER, RatingModelConfig("dot_product", USERS + 1, ITEMS), "student"),
        (TEACHER, config("neumf"), "student"),
        (TEACHER, "dot_product", "student"),
        (EASE().fit(DATA), config("dot_product"), "EASE"),
    ):
        given = built(*teacher) if isinstance(teacher, tuple) else teacher
        with pytest.raises((TypeError, ValueError), match=word):
            start_from_teacher(given, student)
