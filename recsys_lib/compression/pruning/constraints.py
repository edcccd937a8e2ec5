"""Masks as constraints of variables: optimizers apply them last of all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Masks = Mapping[str, NDArray[np.bool_]]
# From the number of updates made and the weights by name to the masks from now on.
Draw = Callable[[int, dict[str, NDArray[np.float32]]], Masks]


class MaskConstraint:
    """Multiplies a variable by its mask, after the constraint that it had before.

    Args:
        variable: a Keras variable; its constraint is replaced. The mask is all ones at first.

    Example:
        >>> import keras
        >>> variable = keras.Variable(np.float32([1, 2, 3]))
        >>> MaskConstraint(variable).prune(np.array([True, False, True]))
        >>> variable.numpy().tolist()
        [1.0, 0.0, 3.0]
        >>> keras.optimizers.SGD(1.0).apply([keras.ops.ones(3)], [variable])
        >>> variable.numpy().tolist()
        [0.0, -0.0, 2.0]
    """

    def __init__(self, variable: Any) -> None:
        import keras

        self.variable = variable
        self.mask = keras.Variable(np.ones(variable.shape, np.float32), trainable=False)
        self.before_all: Callable[[], None] | None = None
        self._before = variable.constraint
        variable.constraint = self

    def __call__(self, values: Any) -> Any:
        """Give what the variable is to be after an update."""
        if self.before_all is not None:
            self.before_all()
        return self.masked(values)

    def masked(self, values: Any) -> Any:
        """Apply the earlier constraint, then the mask."""
        constrained = values if self._before is None else self._before(values)
        return constrained * self.mask

    def prune(self, mask: NDArray[np.bool_]) -> None:
        """Set the mask, and what it leaves out to zero."""
        self.mask.assign(mask.astype(np.float32))
        self.variable.assign(self.variable * self.mask)


def redraw_every(frequency: int, holders: Mapping[str, MaskConstraint], draw: Draw) -> None:
    """Have masks drawn anew in the midst of training, after every ``frequency`` updates.

    The compiled loop stays as it is. Optimizers call the constraints after all variables have been
    updated; the first constraint counts the updates and, where the masks are due, leaves the graph
    for NumPy. XLA cannot do that: the loop has to be compiled without it.

    Args:
        frequency: updates between two draws, 1 or more.
        holders: the constraints by name of the weight.
        draw: gives the masks; its weights are those after the update, with the masks until now.

    Example:
        >>> import keras
        >>> variable = keras.Variable(np.float32([1, 2, 3]))
        >>> holders = {"w": MaskConstraint(variable)}
        >>> redraw_every(2, holders, lambda step, weights: {"w": weights["w"] != 2})
        >>> for _ in range(2):
        ...     keras.optimizers.SGD(1.0).apply([keras.ops.zeros(3)], [variable])
        ...     print(variable.numpy().tolist())
        [1.0, 2.0, 3.0]
        [1.0, 0.0, 3.0]
    """
    import keras
    import tensorflow as tf

    updates = keras.Variable(0, dtype="int64", trainable=False)

    def in_numpy(step: Any, *values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        masks = draw(int(step), dict(zip(holders, values, strict=True)))
        return [masks[name].astype(np.float32) for name in holders]

    def renew() -> Any:
        weights = [holder.masked(holder.variable) for holder in holders.values()]
        inputs = [updates.value, *weights]
        masks = tf.nest.flatten(tf.numpy_function(in_numpy, inputs, [tf.float32] * len(holders)))
        for holder, mask in zip(holders.values(), masks, strict=True):
            holder.mask.assign(tf.ensure_shape(mask, holder.mask.shape))
        return tf.constant(True)

    def count() -> None:
        updates.assign_add(1)
        tf.cond(updates.value % frequency == 0, renew, lambda: tf.constant(False))

    next(iter(holders.values())).before_all = count
