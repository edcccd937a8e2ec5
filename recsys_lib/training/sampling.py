"""Everything random in training, as a function of (seed, epoch, step) alone.

No generator is carried along, so there is no state to save: a run that is resumed at epoch ``n``
draws what the uninterrupted run draws there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def epoch_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int32]:
    """Return the order in which an epoch visits the rows: each exactly once.

    Args:
        num_rows: how many rows there are.
        seed: of the run, 0 or more.
        epoch: counted from 0.

    Returns:
        (num_rows,) a permutation of ``0 .. num_rows - 1``.

    Example:
        >>> sorted(epoch_order(4, seed=0, epoch=1).tolist())
        [0, 1, 2, 3]
        >>> bool((epoch_order(9, seed=0, epoch=1) == epoch_order(9, seed=0, epoch=2)).all())
        False
    """
    return np.random.default_rng([seed, epoch]).permutation(num_rows).astype(np.int32)


def uniform_negatives(num_rows: Any, per_row: int, num_items: int, seed: int, step: Any) -> Any:
    """Draw item ids uniformly from the whole catalogue, inside a graph.

    An item that the user has met can be drawn, and one can be drawn twice, as in the published
    code: in a sparse matrix this is rare, and it keeps the draw exactly uniform.

    Args:
        num_rows: b, number of positive rows; an integer or a scalar tensor.
        per_row: m, negatives for each.
        num_items: size of the catalogue.
        seed: of the run, 0 or more.
        step: number of the update since the start of the run, an integer or a scalar tensor.

    Returns:
        (b, m) int32 tensor of ids in [0, num_items).

    Source:
        Rendle et al., *Neural Collaborative Filtering vs. Matrix Factorization Revisited*,
        RecSys 2020, appendix A.

    Example:
        >>> drawn = uniform_negatives(2, 3, num_items=10, seed=0, step=5)
        >>> drawn.shape, bool((drawn == uniform_negatives(2, 3, 10, 0, 5)).numpy().all())
        (TensorShape([2, 3]), True)
    """
    import tensorflow as tf

    stream = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    shape = tf.stack([tf.cast(num_rows, tf.int32), per_row])
    drawn = tf.random.stateless_uniform(shape, stream, 0, num_items, tf.int32)
    return tf.ensure_shape(drawn, [num_rows if isinstance(num_rows, int) else None, per_row])
