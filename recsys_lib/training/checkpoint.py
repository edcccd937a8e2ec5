"""Checkpoints: everything a run needs to go on, in one file that holds no code."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.data import Interactions, Split
from recsys_lib.files import FilePath, read_file, reading, write_file
from recsys_lib.training.history import History

_CLASS, _PARTS = "training checkpoint", ("model", "optimizer", "best")


@dataclass(frozen=True)
class TrainingState:
    """Where a run stands after its last finished epoch.

    Args:
        model: the values of ``model.variables``, in their order.
        optimizer: the values of ``optimizer.variables``, with step count and learning rate.
        best: ``model`` after the best epoch so far; empty without early stopping.
        history: the course of the run so far.
    """

    model: list[NDArray[Any]]
    optimizer: list[NDArray[Any]]
    best: list[NDArray[Any]]
    history: History


def save_checkpoint(path: FilePath, settings: dict[str, Any], state: TrainingState) -> None:
    """Write settings and state to ``path``, all or nothing.

    Random numbers are drawn from (seed, epoch, step), so the settings hold their state.

    Args:
        path: where to; an older checkpoint is replaced in one step.
        settings: what must agree on resume; anything JSON can hold.
        state: where the run stands.

    Raises:
        FileNotFoundError: the folder does not exist.

    Example:
        >>> import tempfile
        >>> state = TrainingState([np.ones(2)], [np.int64(3)], [], History((0.5,)))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_checkpoint(f"{folder}/run", {"seed": 1}, state)
        ...     load_checkpoint(f"{folder}/run", {"seed": 1}).history.loss
        (0.5,)
    """
    header = {"settings": settings, "history": asdict(state.history)}
    lists = {part: getattr(state, part) for part in _PARTS}
    arrays = {
        f"{p}.{n}": np.asarray(x) for p, values in lists.items() for n, x in enumerate(values)
    }
    write_file(path, _CLASS, header, arrays)


def load_checkpoint(path: FilePath, settings: dict[str, Any]) -> TrainingState:
    """Read a checkpoint of a run with these settings.

    Args:
        path: of the file.
        settings: of the run that wants to go on.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or is no checkpoint, or was written by a run with other
            settings, another model or other data; the message names what differs.
    """
    _, header, arrays = read_file(path, [_CLASS])
    with reading(path, _CLASS):
        saved = header["settings"]
        for name in sorted(settings.keys() | saved.keys()):
            if saved.get(name) != settings.get(name):
                change = f"{name} was {saved.get(name)}, now it is {settings.get(name)}"
                raise ValueError(f"{path} is a checkpoint of another run: {change}")

        model, optimizer, best = (
            [arrays[f"{part}.{n}"] for n in range(sum(k.startswith(part) for k in arrays))]
            for part in _PARTS
        )
        course: dict[str, Any] = header["history"]
        lists = {name: tuple(values) for name, values in course.items() if isinstance(values, list)}
        return TrainingState(model, optimizer, best, History(**course | lists))


def fingerprint(*parts: Any) -> str:
    """Return a hash of arrays, interactions, splits and plain settings, to tell runs apart.

    Example:
        >>> a, b = Interactions([0, 1], [0, 1]), Interactions([0, 1], [1, 0])
        >>> fingerprint(a) == fingerprint(a), fingerprint(a) == fingerprint(b)
        (True, False)
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Split):
            part = fingerprint(part.train, part.test, part.negatives)
        elif isinstance(part, Interactions):
            counts = part.num_users, part.num_items
            part = fingerprint(counts, part.user_ids, part.item_ids, part.ratings)
        is_array = isinstance(part, np.ndarray)
        digest.update(f"{part.dtype}{part.shape}".encode() if is_array else repr(part).encode())
        if is_array:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
