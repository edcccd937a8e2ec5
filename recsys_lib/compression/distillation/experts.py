"""Distillation experts: networks that rebuild the teacher's vectors from the student's."""

from __future__ import annotations

from typing import Any

import numpy as np


class Experts:
    """A few experts and a gate for one side, users or items; for training only.

    An expert is ``d_s -> (d_s + d_t) // 2 -> d_t`` with a ReLU between. The gate is a linear layer
    on the teacher's vector; with Gumbel noise g and temperature tau, the experts are mixed by
    ``softmax((log softmax(gate) + g) / tau)``.

    Args:
        student_dim: d_s.
        teacher_dim: d_t.
        num_experts: how many.
        seed: of the start (Glorot, biases zero) and of the noise.

    Attributes:
        variables: list of the weights.

    Source:
        Kang et al., *DE-RRD*, CIKM 2020, section 3.1; Jang, Gu & Poole, *Categorical
        Reparameterization with Gumbel-Softmax*, 2016.

    Example:
        >>> experts = Experts(student_dim=2, teacher_dim=4, num_experts=3, seed=0)
        >>> ones = np.ones((5, 2), np.float32), np.ones((5, 4), np.float32)
        >>> experts.loss(*ones, temperature=1.0, step=0).shape
        TensorShape([5])
    """

    def __init__(self, student_dim: int, teacher_dim: int, num_experts: int, seed: int) -> None:
        import tensorflow as tf

        rng = np.random.default_rng(seed)
        middle = (student_dim + teacher_dim) // 2

        def kernel(*shape: int) -> Any:
            limit = np.sqrt(6.0 / sum(shape[-2:]))
            return tf.Variable(rng.uniform(-limit, limit, shape).astype(np.float32))

        self._seed, self._count = seed, num_experts
        self._first = kernel(num_experts, student_dim, middle)
        self._first_bias = tf.Variable(tf.zeros((num_experts, 1, middle)))
        self._second = kernel(num_experts, middle, teacher_dim)
        self._second_bias = tf.Variable(tf.zeros((num_experts, 1, teacher_dim)))
        self._gate = kernel(teacher_dim, num_experts)
        self._gate_bias = tf.Variable(tf.zeros((num_experts,)))
        self.variables = [
            self._first,
            self._first_bias,
            self._second,
            self._second_bias,
            self._gate,
            self._gate_bias,
        ]

    def loss(self, student: Any, teacher: Any, *, temperature: Any, step: Any) -> Any:
        """Give the mean squared error of each row's rebuilt vector.

        Args:
            student: (n, d_s) the student's vectors.
            teacher: (n, d_t) the teacher's vectors of the same users or items.
            temperature: tau, above 0.
            step: number of the update; the noise depends on it and on the seed.

        Returns:
            (n,) losses, each 0 or more.
        """
        import tensorflow as tf

        hidden = tf.nn.relu(tf.matmul(student[None], self._first) + self._first_bias)
        rebuilt = tf.matmul(hidden, self._second) + self._second_bias  # (experts, n, d_t)
        choice = self._choose(teacher, temperature, step)  # (n, experts)
        mixed = tf.einsum("ne,end->nd", choice, rebuilt)
        return tf.reduce_mean((tf.convert_to_tensor(teacher) - mixed) ** 2, axis=1)

    def _choose(self, teacher: Any, temperature: Any, step: Any) -> Any:
        import tensorflow as tf

        logits = tf.nn.log_softmax(tf.matmul(teacher, self._gate) + self._gate_bias)
        if self._count == 1:
            return tf.ones_like(logits)
        stream = tf.stack([tf.constant(self._seed, tf.int64), tf.cast(step, tf.int64)])
        uniform = tf.random.stateless_uniform(tf.shape(logits), stream, 1e-10, 1.0)
        noise = -tf.math.log(-tf.math.log(uniform) + 1e-20)
        return tf.nn.softmax((logits + noise) / temperature)
