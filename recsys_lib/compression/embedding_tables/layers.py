"""Compressed tables in Keras models: the layer in which all schemes train. Imports Keras."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from recsys_lib.checks import check_shape
from recsys_lib.compression.embedding_tables.base import Parts, TableScheme


@keras.saving.register_keras_serializable(package="recsys_lib")
class CompressedEmbedding(keras.layers.Layer):
    """Looks ids (n,) up in a table that a scheme makes up from smaller parts: (n, dim) float32.

    Args:
        scheme: a TableScheme, or its ``to_dict()``.
        num_rows: ids reach from 0 to ``num_rows - 1``.
        dim: columns of the table.
        shapes: of the trained parts, by name.
        fixed: integer parts, by name; they are constants of the graph, not weights.
        **options: of a Keras layer, such as ``name``.

    Example:
        >>> from recsys_lib.compression.embedding_tables import Hashing
        >>> layer = CompressedEmbedding(Hashing(2), 5, 3, {"rows": (2, 3)}, {})
        >>> layer(np.array([0, 4])).shape
        TensorShape([2, 3])
    """

    def __init__(
        self,
        scheme: TableScheme | dict[str, Any],
        num_rows: int,
        dim: int,
        shapes: dict[str, tuple[int, ...]],
        fixed: dict[str, Any],
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.scheme = TableScheme.from_dict(scheme) if isinstance(scheme, dict) else scheme
        self.num_rows, self.dim = num_rows, dim
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.fixed: Parts = {
            name: np.asarray(part, np.min_scalar_type(int(np.max(part))))
            for name, part in fixed.items()
        }
        normal = keras.initializers.RandomNormal(0.0, 0.1)
        self.trained = {
            name: self.add_weight(name=name, shape=shape, initializer=normal)
            for name, shape in self.shapes.items()
        }
        self.built = True

    def call(self, ids: Any) -> Any:
        """Return the rows of the ids."""
        parts = {name: ops.convert_to_tensor(part) for name, part in self.trained.items()}
        return self.scheme.lookup(ops, parts | self.fixed, ids)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return (n, dim)."""
        return (*input_shape, self.dim)

    def set_parts(self, parts: Parts) -> None:
        """Set all trained parts; ValueError for a part of another shape."""
        for name, variable in self.trained.items():
            check_shape(name, parts[name], self.shapes[name])
            variable.assign(parts[name])

    def get_parts(self) -> Parts:
        """Return copies of all parts, trained and fixed."""
        trained = {n: np.array(ops.convert_to_numpy(part)) for n, part in self.trained.items()}
        return trained | self.fixed

    def get_config(self) -> dict[str, Any]:
        """Return all arguments, for JSON."""
        return {
            **super().get_config(),
            "scheme": self.scheme.to_dict(),
            "num_rows": self.num_rows,
            "dim": self.dim,
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "fixed": {name: part.tolist() for name, part in self.fixed.items()},
        }
