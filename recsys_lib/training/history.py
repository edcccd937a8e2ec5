"""What a training run shows and leaves behind: one number per epoch, and why it ended."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class History:
    """The course of a training run; entry ``n`` belongs to epoch ``n + 1``.

    Args:
        loss: mean objective per interaction, without the l2 term, over the epoch's batches (each
            taken before its own update, as in Keras).
        validation: the metric after each epoch; empty without validation.
        seconds: wall time of each epoch's training, without validation and checkpoint.
        metric: name of the metric, or None without validation.
        lower_is_better: of the metric; None where that is not known.
        stopped_early: True when ``patience`` ended the run before ``epochs``.

    Example:
        >>> run = History((0.9, 0.7, 0.6), (0.3, 0.5, 0.4), (1.0, 1.0, 1.0), "ndcg", False)
        >>> run.epochs, run.best_epoch
        (3, 2)
    """

    loss: tuple[float, ...] = ()
    validation: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    metric: str | None = None
    lower_is_better: bool | None = None
    stopped_early: bool = False

    @property
    def epochs(self) -> int:
        """Return the number of epochs that were trained."""
        return len(self.loss)

    @property
    def best_epoch(self) -> int | None:
        """Return the first epoch, from 1, with the best metric; None if no direction is known."""
        if not self.validation or self.lower_is_better is None:
            return None
        best = min if self.lower_is_better else max
        return self.validation.index(best(self.validation)) + 1


def progress_bar(epochs: int, done: int, progress: bool) -> Any:
    """Return a tqdm bar over epochs, or without ``progress`` one that shows nothing."""
    from tqdm.auto import tqdm

    return tqdm(total=epochs, initial=done, disable=not progress, desc="training", unit="epoch")


@contextmanager
def scalar_writer(
    log_dir: str | os.PathLike[str] | None,
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Open an event file; yield a function that writes numbers by name at a step.

    Args:
        log_dir: folder for the event file; made where it is missing. Look at it with
            ``tensorboard --logdir <folder>``. None writes nothing.

    Example:
        >>> import os, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with scalar_writer(folder) as write:
        ...         write(1, {"loss": 0.5})
        ...     [name[:21] for name in os.listdir(folder)]
        ['events.out.tfevents.1']
    """
    if log_dir is None:
        yield lambda step, values: None
        return
    import tensorflow as tf

    writer = tf.summary.create_file_writer(os.fspath(log_dir))

    def write(step: int, values: Mapping[str, float]) -> None:
        with writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.scalar(name, value)
        writer.flush()

    try:
        yield write
    finally:
        writer.close()
