"""A rating model as a TensorFlow graph that is fit for conversion."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any


def plain_lookups(model: Any) -> Any:
    """Copy a model, with nothing but a lookup where it looks ids up.

    Keras 3 lets negative ids count from the end of a table, which takes three to six operations
    for each table; converters keep them, and LiteRT's 16-bit quantizer fails on them. A served id
    is checked before, so they go.

    Args:
        model: a functional model of Keras 3 or tf_keras, whose layers can be made from their
            config.

    Returns:
        A new model of the same namespace with the same weights; ids below 0 are an error in it.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> model = build_rating_model(RatingModelConfig("dot_product", 2, 3))
        >>> [weights.shape for weights in plain_lookups(model).get_weights()]
        [(2, 32), (3, 32)]
    """
    import tensorflow as tf

    keras = importlib.import_module(type(model).__module__.split(".")[0])
    embedding = keras.layers.Embedding

    class Lookup(embedding):  # type: ignore[misc, valid-type]
        def call(self, ids: Any) -> Any:
            return tf.gather(tf.convert_to_tensor(self.embeddings), ids)

    def clone(layer: Any) -> Any:
        plain = type(layer) is embedding and not getattr(layer, "quantization_mode", None)
        return (Lookup if plain else type(layer)).from_config(layer.get_config())

    copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    return copy


def serving_function(model: Any) -> tuple[Any, list[Any]]:
    """Give a model as a TensorFlow function of named ids, and its signature.

    Returns:
        A function of ``user_ids`` and ``item_ids``, (n,) int32, to ``{"logits": (n,) float32}``.
    """
    import tensorflow as tf

    signature = [tf.TensorSpec([None], tf.int32, name=name) for name in ("user_ids", "item_ids")]

    @tf.function(autograph=False, input_signature=signature)
    def logits(user_ids: Any, item_ids: Any) -> dict[str, Any]:
        return {"logits": tf.cast(model([user_ids, item_ids], training=False), tf.float32)}

    return logits, signature


def write_saved_model(model: Any, folder: Path) -> None:
    """Write a SavedModel with the signature ``serving_default`` of :func:`serving_function`."""
    import tensorflow as tf

    model = plain_lookups(model)
    module = tf.Module()
    # What is tracked is stored, and frozen by converters; what is not, comes out as NaN.
    module.model_variables = [
        variable if isinstance(variable, tf.Variable) else variable.value
        for variable in model.weights
    ]
    module.serve, _ = serving_function(model)
    tf.saved_model.save(module, str(folder), signatures={"serving_default": module.serve})
