"""Other libraries' trainers of rating models: each returns its seconds and what it learned.

Seconds are those of the library's own ``fit`` on data in the form that it asks for; making that
form is not counted, compiling is neither (a small fit goes before). All use two threads where they
have them.
"""

from __future__ import annotations

import contextlib
import io
import time
from typing import Any

import numpy as np

from recsys_lib.data import Interactions
from recsys_lib.models import Factors

DIM, RATE, L2 = 32, 0.01, 0.02


def _factors(
    train: Interactions, mean: float, user_side: tuple[Any, ...], item_side: tuple[Any, ...]
) -> Factors:
    """Put vectors and biases, whose rows stand for the given ids, where the ids say."""
    sides = []
    for count, (ids, vectors, biases) in (
        (train.num_users, user_side), (train.num_items, item_side)
    ):  # fmt: skip
        table = np.zeros((count, vectors.shape[1] + 1), np.float32)  # zeros for the unseen
        table[np.asarray(ids, int)] = np.column_stack([vectors, biases])
        sides.append(table)
    users, items = sides
    return Factors(
        items[:, :-1], users[:, :-1], global_mean=mean,
        user_biases=users[:, -1].copy(), item_biases=items[:, -1].copy(),
    )  # fmt: skip


def cornac(train: Interactions, epochs: int, rate: float = RATE) -> tuple[float, Factors]:
    """Train ``cornac.models.MF``: SGD one by one, Hogwild."""
    import cornac as library

    rows = zip(train.user_ids, train.item_ids, train.ratings, strict=True)
    data = library.data.Dataset.from_uir(rows, seed=0)
    model = library.models.MF(
        k=DIM, max_iter=epochs, learning_rate=rate, lambda_reg=L2, num_threads=2, seed=0
    )
    start = time.perf_counter()
    model.fit(data)
    seconds = time.perf_counter() - start
    sides = []
    for places, vectors, biases in (
        (data.uid_map, model.u_factors, model.u_biases),
        (data.iid_map, model.i_factors, model.i_biases),
    ):
        rows_of = list(places.values())
        sides.append((list(places), vectors[rows_of], biases[rows_of]))
    return seconds, _factors(train, float(model.global_mean), *sides)


def surprise(train: Interactions, epochs: int) -> tuple[float, Factors]:
    """Train ``surprise.SVD``: SGD one by one, one thread."""
    import pandas as pd
    import surprise as library

    frame = pd.DataFrame({"u": train.user_ids, "i": train.item_ids, "r": train.ratings})
    reader = library.Reader(rating_scale=(train.ratings.min(), train.ratings.max()))
    data = library.Dataset.load_from_df(frame, reader).build_full_trainset()
    model = library.SVD(DIM, n_epochs=epochs, lr_all=RATE, reg_all=L2, random_state=0)
    start = time.perf_counter()
    model.fit(data)
    seconds = time.perf_counter() - start
    users = [data.to_raw_uid(u) for u in range(data.n_users)], model.pu, model.bu
    items = [data.to_raw_iid(i) for i in range(data.n_items)], model.qi, model.bi
    return seconds, _factors(train, float(data.global_mean), users, items)


def lenskit(train: Interactions, epochs: int) -> tuple[float, Factors]:
    """Train ``lenskit.als.BiasedMFScorer``: alternating least squares after biases."""
    import pandas as pd
    from lenskit.als import BiasedMFScorer
    from lenskit.data import from_interactions_df
    from lenskit.training import TrainingOptions

    frame = pd.DataFrame(
        {"user_id": train.user_ids, "item_id": train.item_ids, "rating": train.ratings}
    )
    data = from_interactions_df(frame)
    model = BiasedMFScorer(embedding_size=DIM, epochs=epochs, regularization=0.07)
    start = time.perf_counter()
    model.train(data, TrainingOptions(rng=0))
    seconds = time.perf_counter() - start
    bias = model.bias
    users = data.users.ids(), model.user_embeddings, bias.user_biases
    items = data.items.ids(), model.item_embeddings, bias.item_biases
    return seconds, _factors(train, float(bias.global_bias), users, items)


def libmf(train: Interactions, epochs: int) -> tuple[float, Factors]:
    """Train LIBMF through its shared object (``LIBMF_OBJ``), whose rates fall as in Adagrad.

    The wheel's object is compiled without vector instructions and without its own checks; compile
    ``src_cpp`` of the source archive with ``-O3 -march=native -DUSEAVX`` instead.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        from libmf import mf as library

    centred = train.ratings - train.ratings.mean()
    data = np.column_stack([train.user_ids, train.item_ids, centred]).astype(np.float32)
    model = library.MF(
        k=DIM, nr_threads=2, nr_bins=20, nr_iters=epochs, eta=0.1,
        lambda_p2=0.04, lambda_q2=0.04, lambda_p1=0.0, lambda_q1=0.0, quiet=True,
    )  # fmt: skip
    start = time.perf_counter()
    model.fit(data)
    seconds = time.perf_counter() - start
    sides = []
    for rows, table in ((model.model.m, model.p_factors()), (model.model.n, model.q_factors())):
        sides.append((np.arange(rows), np.nan_to_num(table), np.zeros(rows)))
    return seconds, _factors(train, float(train.ratings.mean()), *sides)


def torch(train: Interactions, epochs: int) -> tuple[float, Factors]:
    """Train four embeddings in PyTorch with Adam, batches of 8,192 from tensors in memory."""
    import torch as library

    library.manual_seed(0)
    library.set_num_threads(2)
    nn, mean = library.nn, float(train.ratings.mean())
    tables = [
        nn.Embedding(rows, width)
        for rows in (train.num_users, train.num_items)
        for width in (DIM, 1)
    ]
    for table in tables:
        nn.init.normal_(table.weight, 0.0, 0.05 if table.embedding_dim > 1 else 0.0)
    columns = [library.tensor(a.astype(np.int64)) for a in (train.user_ids, train.item_ids)]
    targets = library.tensor(train.ratings.astype(np.float32) - np.float32(mean))
    optimizer = library.optim.Adam([t.weight for t in tables], lr=0.005)
    start = time.perf_counter()
    for _ in range(epochs):
        for rows in library.randperm(len(targets)).split(8192):
            u, i = (column[rows] for column in columns)
            found = [table(ids) for table, ids in zip(tables, (u, u, i, i), strict=True)]
            scores = (found[0] * found[2]).sum(1) + found[1][:, 0] + found[3][:, 0]
            penalty = sum((x * x).sum() for x in found) * (0.05 / len(rows))
            loss = ((scores - targets[rows]) ** 2).mean() + penalty
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    seconds = time.perf_counter() - start
    p, b, q, c = (table.weight.detach().numpy() for table in tables)
    users, items = (
        (np.arange(train.num_users), p, b[:, 0]),
        (np.arange(train.num_items), q, c[:, 0]),
    )
    return seconds, _factors(train, mean, users, items)


def keras_fit(train: Interactions, epochs: int, batch_size: int = 256) -> tuple[float, Factors]:
    """Train a Keras model with its own ``fit``, Adam and a penalty on the tables."""
    import keras

    keras.utils.set_random_seed(0)
    mean = float(train.ratings.mean())
    ids = [keras.Input((), dtype="int32") for _ in range(2)]
    tables = [
        keras.layers.Embedding(
            rows, width, embeddings_initializer=keras.initializers.RandomNormal(0, 0.05),
            embeddings_regularizer=keras.regularizers.L2(PENALTY),
        )
        for rows in (train.num_users, train.num_items)
        for width in (DIM, 1)
    ]  # fmt: skip
    found = [table(x) for table, x in zip(tables, (ids[0], ids[0], ids[1], ids[1]), strict=True)]
    product = keras.layers.Dot(axes=1)([found[0], found[2]])
    score = keras.layers.Add()([product, found[1], found[3]])
    model = keras.Model(ids, keras.layers.Rescaling(1.0, offset=mean)(score))
    model.compile(keras.optimizers.Adam(KERAS_RATE), loss="mse")
    inputs = [a.astype(np.int32) for a in (train.user_ids, train.item_ids)]
    targets = train.ratings.astype(np.float32)
    few = slice(0, 10 * batch_size)
    start_weights = model.get_weights()
    model.fit([a[few] for a in inputs], targets[few], batch_size=batch_size, verbose=0)
    model.set_weights(start_weights)
    start = time.perf_counter()
    model.fit(inputs, targets, batch_size=batch_size, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    p, b, q, c = (table.get_weights()[0] for table in tables)
    users, items = (
        (np.arange(train.num_users), p, b[:, 0]),
        (np.arange(train.num_items), q, c[:, 0]),
    )
    return seconds, _factors(train, mean, users, items)


PENALTY, KERAS_RATE = 1e-5, 0.001
