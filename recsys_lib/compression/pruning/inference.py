"""Dense layers whose zeros are skipped when they are computed, not only when they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from recsys_lib.checks import check_number, check_weights


class SparseMLP:
    """A stack of dense layers, ReLU between them, that multiplies by the nonzero weights only.

    A kernel with enough zeros is kept as compressed sparse rows and multiplied by SciPy, on one
    thread; any other one by NumPy. Activations are kept with one row for each unit, so that both
    read them in order. (A kernel of our own in Numba was no faster than SciPy's.)

    Args:
        layers: kernel (inputs, outputs) and bias (outputs,) of each layer, in order.
        sparse_from: least fraction of zeros from which a kernel is multiplied sparse: 0 for all
            kernels, 1 for none but those of zeros alone.

    Attributes:
        sparse: for each layer, whether it is multiplied sparse.

    Raises:
        ValueError: no layers, shapes that do not follow each other, NaN, a number out of [0, 1].

    Example:
        >>> layers = [(np.float32([[1, 0], [0, -2]]), np.float32([0, 1]))]
        >>> layers.append((np.float32([[3], [1]]), np.float32([0.5])))
        >>> SparseMLP(layers)([[1.0, 0.0], [2.0, -1.0]]).tolist()
        [[4.5], [9.5]]
    """

    def __init__(
        self, layers: Sequence[tuple[ArrayLike, ArrayLike]], *, sparse_from: float = 0.0
    ) -> None:
        import scipy.sparse

        if check_number("sparse_from", sparse_from, 0) > 1:
            raise ValueError(f"sparse_from is {sparse_from}: expected a number in [0, 1]")
        if not layers:
            raise ValueError("layers is empty: expected at least one kernel and bias")
        self._layers: list[tuple[Any, NDArray[np.float32]]] = []
        flags = []
        width = None
        for number, (kernel, bias) in enumerate(layers):
            weights = check_weights(f"layers[{number}] kernel", kernel, ndim=2)
            offsets = check_weights(f"layers[{number}] bias", bias, ndim=1)
            if len(offsets) != weights.shape[1] or width not in (None, len(weights)):
                raise ValueError(
                    f"layers[{number}] has kernel {weights.shape} and bias {offsets.shape}: "
                    f"expected ({width or 'inputs'}, outputs) and (outputs,)"
                )
            width = weights.shape[1]
            flags.append(bool(np.mean(weights == 0) >= sparse_from))
            turned = np.ascontiguousarray(weights.T)  # (outputs, inputs)
            matrix = scipy.sparse.csr_matrix(turned) if flags[-1] else turned
            self._layers.append((matrix, offsets[:, None].copy()))
        self.sparse = tuple(flags)

    def __call__(self, inputs: ArrayLike) -> NDArray[np.float32]:
        """Give the outputs of the last layer: (n, inputs) to (n, outputs) float32."""
        values = np.asarray(inputs, np.float32)
        num_inputs = self._layers[0][0].shape[1]
        if values.ndim != 2 or values.shape[1] != num_inputs:
            raise ValueError(f"inputs has shape {values.shape}: expected (n, {num_inputs})")
        values = np.ascontiguousarray(values.T)  # (inputs, n)
        for number, (matrix, bias) in enumerate(self._layers):
            values = matrix @ values  # (outputs, n)
            values += bias
            if number < len(self._layers) - 1:
                np.maximum(values, 0, out=values)
        return np.ascontiguousarray(values.T)
