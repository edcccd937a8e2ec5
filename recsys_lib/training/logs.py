"""What a run shows while it goes on: a progress bar, and scalars for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def progress_bar(epochs: int, done: int, progress: bool) -> Any:
    """Give a tqdm bar over epochs, for notebook or terminal; a silent one without ``progress``."""
    from tqdm.auto import tqdm

    return tqdm(total=epochs, initial=done, disable=not progress, desc="training", unit="epoch")


@contextmanager
def scalar_writer(
    log_dir: str | os.PathLike[str] | None,
) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """Open an event file; give a function that writes numbers by name at a step.

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
