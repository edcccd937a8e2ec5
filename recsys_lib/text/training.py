"""Train the upper blocks of a sentence encoder, over cached outputs of the lower ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import store_numbers
from recsys_lib.compression.weights import named_weights, with_weights
from recsys_lib.text.encoder import TextEncoder, batches_by_length, copy_model, output_of_block
from recsys_lib.text.rating import check_vectors, ridge

_BATCHES_SORTED = 16  # texts of so many batches are sorted by length before they are batched
_WIDTH_STEP = 4  # widths of batches are multiples of this, so that few graphs are traced


@dataclass(frozen=True)
class TextTraining:
    """How the upper blocks are trained.

    Args:
        epochs: passes over the texts.
        batch_size: texts in an update.
        learning_rate: of Adam.
        l2: penalty of the linear layer's closed-form start, see
            :func:`recsys_lib.text.rating.ridge`.
        seed: of the order of the texts.

    Raises:
        TypeError, ValueError: an argument out of range.
    """

    epochs: int = 4
    batch_size: int = 64
    learning_rate: float = 3e-4
    l2: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        store_numbers(self, 1, "epochs", "batch_size", integer=True)
        store_numbers(self, 0, "seed", integer=True)
        store_numbers(self, 0, "learning_rate", "l2", include_low=False)


@dataclass(frozen=True, eq=False)
class CachedTokens:
    """What the lower blocks give for n texts.

    Args:
        tokens: (n, t, d) float16.
        mask: (n, t) int32, 1 where a token is.
    """

    tokens: NDArray[np.float16]
    mask: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.mask)

    def batch(self, rows: NDArray[np.int64]) -> list[Any]:
        """Return ``[tokens, mask]`` of some texts, as wide as the longest of them."""
        longest = int(self.mask[rows].sum(axis=1).max())
        width = min(-(-longest // _WIDTH_STEP) * _WIDTH_STEP, self.mask.shape[1])
        return [self.tokens[rows, :width].astype(np.float32), self.mask[rows, :width]]

    def take(self, rows: NDArray[np.int64]) -> CachedTokens:
        """Return some texts alone."""
        return CachedTokens(self.tokens[rows], self.mask[rows])


def upper_blocks(model: Any, count: int) -> Any:
    """Return the part of an encoder above its first ``count`` blocks, with copies of the weights.

    While it alone is trained, what the blocks below give is computed once for each text; see
    :func:`cache_tokens`. Names of layers stay.

    Args:
        model: of :func:`recsys_lib.text.build_text_encoder`; it stays as it is.
        count: blocks that are left out below, from 0 (the embeddings) to all.

    Returns:
        A Keras model from ``[tokens (n, t, d), mask (n, t)]`` to vectors (n, d).

    Raises:
        TypeError, ValueError: another model, or a count out of range.

    Example:
        >>> from recsys_lib.text import TextEncoderConfig, build_text_encoder
        >>> config = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16)
        >>> upper = upper_blocks(build_text_encoder(config), 2)
        >>> upper([np.ones((1, 3, 8)), np.ones((1, 3), np.int32)]).shape
        TensorShape([1, 8])
    """
    import keras

    below = [output_of_block(model, count), model.inputs[1]]
    return copy_model(keras.Model(below, model.outputs[0], name="upper"))


def replace_upper_blocks(model: Any, upper: Any) -> Any:
    """Return a new encoder with the weights of ``upper`` where that has any.

    Args:
        model: the encoder that ``upper`` was cut from; it stays as it is.
        upper: of :func:`upper_blocks`, trained.

    Raises:
        ValueError: ``upper`` has a layer that the model does not have.
    """
    return with_weights(model, named_weights(upper))


def cache_tokens(
    encoder: TextEncoder, texts: Sequence[str], blocks: int, *, batch_size: int = 64
) -> CachedTokens:
    """Run the lower blocks of an encoder once.

    Args:
        encoder: texts to vectors.
        texts: n texts.
        blocks: number of lower blocks, from 0 to all.
        batch_size: texts at a time.

    Raises:
        TypeError, ValueError: as for :meth:`TextEncoder.tokenize`, or ``blocks`` is out of range.
    """
    import keras

    run = _compiled(keras.Model(encoder.model.inputs, output_of_block(encoder.model, blocks)))
    ids, mask = encoder.tokenize(texts)
    tokens = np.zeros((*ids.shape, encoder.embedding_dim), np.float16)
    for rows in batches_by_length(mask, batch_size):
        width = int(mask[rows].sum(axis=1).max())
        tokens[rows, :width] = run([ids[rows, :width], mask[rows, :width]])
    return CachedTokens(tokens, mask)


def encode_cached(upper: Any, cached: CachedTokens, *, batch_size: int = 128) -> NDArray[Any]:
    """Return the (n, d) vectors of cached texts.

    Args:
        upper: of :func:`upper_blocks`.
        cached: of :func:`cache_tokens`, for the same encoder and number of blocks.
        batch_size: texts at a time.
    """
    run = _compiled(upper)
    vectors = np.empty((len(cached), upper.outputs[0].shape[-1]), np.float32)
    for rows in batches_by_length(cached.mask, batch_size):
        vectors[rows] = run(cached.batch(rows))
    return vectors


def fit_upper_blocks(
    upper: Any, cached: CachedTokens, targets: ArrayLike, config: TextTraining
) -> tuple[Any, list[float]]:
    """Train blocks so that a linear layer on top of them gives the targets.

    The loss is the squared error, summed over a text's targets: its ratings by all users (1 where
    they met, 0 elsewhere) to fine-tune a rating model, or another encoder's vectors to distil it.
    The linear layer starts as the ridge regression on the untrained vectors, is trained along, and
    is thrown away: fit one again on the new vectors, in closed form.

    Args:
        upper: of :func:`upper_blocks`.
        cached: of :func:`cache_tokens`.
        targets: (n, c).
        config: how.

    Returns:
        New upper blocks (``upper`` stays as it is), and the mean loss of each epoch.

    Raises:
        ValueError: targets of another shape, or NaN in them.
    """
    import keras
    import tensorflow as tf

    wanted = check_vectors("targets", targets, len(cached))
    trained = copy_model(upper)
    start = ridge(encode_cached(upper, cached), wanted, config.l2)
    head = [keras.Variable(value) for value in start]
    weights = [*trained.trainable_variables, *head]
    optimizer = keras.optimizers.Adam(config.learning_rate)
    optimizer.build(weights)

    @tf.function(reduce_retracing=True)
    def update(tokens: Any, mask: Any, y_true: Any) -> Any:
        with tf.GradientTape() as tape:
            kernel, bias = (variable.value for variable in head)
            y_pred = trained([tokens, mask], training=True) @ kernel + bias  # (b, c)
            loss = tf.reduce_mean(tf.reduce_sum((y_pred - y_true) ** 2, axis=1))
        gradients = tape.gradient(loss, [variable.value for variable in weights])
        optimizer.apply(gradients, weights)
        return loss

    losses, rng = [], np.random.default_rng(config.seed)
    for _ in range(config.epochs):
        total = 0.0
        for rows in _training_batches(cached.mask, config.batch_size, rng):
            inputs = [tf.constant(part) for part in (*cached.batch(rows), wanted[rows])]
            total += float(update(*inputs)) * len(rows)
        losses.append(total / len(cached))
    return trained, losses


def _training_batches(
    mask: NDArray[np.int32], batch_size: int, rng: Any
) -> list[NDArray[np.int64]]:
    """Batches in random order, of texts of like length."""
    order, batches, step = rng.permutation(len(mask)), [], batch_size * _BATCHES_SORTED
    for some in (order[start : start + step] for start in range(0, len(order), step)):
        batches += [some[rows] for rows in batches_by_length(mask[some], batch_size)]
    rng.shuffle(batches)
    return batches


def _compiled(model: Any) -> Any:
    import tensorflow as tf

    run = tf.function(lambda inputs: model(inputs, training=False), reduce_retracing=True)
    return lambda inputs: run([tf.constant(part) for part in inputs]).numpy()
