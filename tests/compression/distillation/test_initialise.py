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
from recsys_lib.models import EASE, IALS, RatingModelConfig, build_rating_model
from recsys_lib.models.factors import Factors
from recsys_lib.training import KerasScorer, fit

USERS, ITEMS = 60, 90
EVERY_PAIR = np.repeat(np.arange(USERS), ITEMS), np.tile(np.arange(ITEMS), USERS)
RANDOM = np.random.default_rng(0)
GROUPS = np.repeat(RANDOM.integers(0, 3, USERS), 20)
CHOSEN = np.repeat(np.arange(USERS), 20), RANDOM.integers(0, 30, 20 * USERS) + 30 * GROUPS
DATA = Interactions(*CHOSEN, num_users=USERS, num_items=ITEMS)
TEACHER = IALS(embedding_dim=12, epochs=4, progress=False).fit(DATA)


@pytest.fixture(scope="module")
def built(random_model):
    return lambda *options, **more: random_model(config(*options, init_std=0.5, **more))


def scores(model):
    scorer = model if isinstance(model, Factors) else KerasScorer(model)
    return scorer.score(*EVERY_PAIR).reshape(USERS, ITEMS)


def config(kind, dim=8, *hidden_units, **more):
    return RatingModelConfig(kind, USERS, ITEMS, dim, hidden_units or None, **more)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 4, 11])
@pytest.mark.parametrize("kind", ["dot_product", "matrix_factorization"])
def test_tables_are_the_best_approximation_there_is(kind, dim, built):
    """The singular values that are left; biases are kept, and only the product is cut."""
    teachers = [TEACHER, built("matrix_factorization", 12, global_bias=2.0)]
    tables = named_weights(teachers[1])
    users, items = (tables[f"{side}_embedding/embeddings"] for side in ("user", "item"))
    products = [scores(TEACHER), users @ items.T]
    for teacher, product in [*zip(teachers, products, strict=True)][: 1 + (kind[0] == "m")]:
        left, values, right = scipy.linalg.svd(product, full_matrices=False)
        best = (left[:, :dim] * values[:dim]) @ right[:dim]
        student = scores(start_from_teacher(teacher, config(kind, dim)))
        np.testing.assert_allclose(student, scores(teacher) - product + best, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [12, 20])
def test_a_student_of_the_teachers_size_or_more_equals_it_and_all_its_columns_learn(dim):
    student = start_from_teacher(TEACHER, config("dot_product", dim))
    np.testing.assert_allclose(scores(student), scores(TEACHER), atol=2e-5)
    fit(student, DATA, objective="bpr", epochs=3, batch_size=100, progress=False)
    for name, table in named_weights(student).items():
        assert np.abs(table).sum(axis=0).min() > 0, name


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp_ranker", "neumf", "two_tower"])
def test_a_network_of_the_teachers_size_is_the_teacher_and_layers_go_at_even_distances(kind, built):
    teacher = built(kind, 8, 12, 10, 6)
    student = start_from_teacher(teacher, config(kind, 8, 12, 10, 6))
    np.testing.assert_array_equal(scores(student), scores(teacher))
    assert student is not teacher and kept_layers(5, 3) == (0, 2, 4)
    if kind == "mlp_ranker":
        student, expected = config(kind, 8, 12, 6), prune(teacher, LayerRemoval(1)).model
        student = start_from_teacher(teacher, student)
        np.testing.assert_allclose(scores(student), scores(expected), atol=1e-5)


def test_idle_neurons_are_the_first_to_go_and_the_teacher_stays_as_it_is(built):
    teacher = built("neumf", 4, 10, 6)
    weights = named_weights(teacher)
    weights["dense_1/kernel"][[2, 5, 7]] = 0  # nobody reads these three
    teacher.set_weights(list(weights.values()))
    student = start_from_teacher(teacher, config("neumf", 4, 7, 6), DATA)
    np.testing.assert_allclose(scores(student), scores(teacher), atol=1e-4)
    for old, new in zip(weights.values(), teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


@pytest.mark.slow
def test_one_epoch_from_the_teacher_beats_the_same_from_a_random_start():
    student, vectors = config("dot_product", 4), TEACHER.user_vectors.copy()
    options = {"objective": "bpr", "epochs": 1, "batch_size": 256, "progress": False}
    fresh = fit(build_rating_model(student), DATA, **options)
    started = fit(start_from_teacher(TEACHER, student, DATA), DATA, **options)
    assert started.loss[0] < 0.7 * fresh.loss[0]
    np.testing.assert_array_equal(TEACHER.user_vectors, vectors)


def test_refuses(built, refuses):
    mlp = ("mlp_ranker", 8, 12, 6)
    cases = [
        ("teacher", ("mlp_ranker", 8), config("dot_product", 4)),
        ("kind", ("mlp_ranker", 8), config("neumf", 4)),
        ("kind", ("dot_product", 8), config("two_tower", 4)),
        ("activation", mlp, config(*mlp, activation="tanh")),
        ("embedding_dim", mlp, config("mlp_ranker", 16, 12, 6)),
        ("hidden_units", mlp, config("mlp_ranker", 8, 16, 6)),
        ("hidden_units", mlp, config("mlp_ranker", 8, 12, 8)),
        ("hidden_units", mlp, config("mlp_ranker", 8, 12, 6, 4)),
        ("hidden_units", ("two_tower", 8, 12, 6), config("two_tower", 8, 12, 4)),
        ("student", TEACHER, RatingModelConfig("dot_product", USERS + 1, ITEMS)),
        ("student", TEACHER, config("neumf")),
        ("student", TEACHER, "dot_product"),
        ("EASE", EASE().fit(DATA), config("dot_product")),
    ]
    for name, given, student in cases:
        teacher = built(*given) if isinstance(given, tuple) else given
        refuses((name, lambda t=teacher, s=student: start_from_teacher(t, s)))
