"""What all exported files share: a few facts in JSON, whole files only, and ids from the model."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

FORMAT = "recsys_lib scorer"
FORMAT_VERSION = 1
FACTS_NAME = "recsys_lib.json"


def count_ids(model: Any) -> tuple[int, int]:
    """Give (num_users, num_items) that a rating model has rows for.

    Args:
        model: a functional Keras model whose two inputs, user ids and item ids in this order, go
            straight into layers with an ``input_dim`` (``Embedding``); the smallest one counts.

    Raises:
        TypeError: not a functional model of two inputs.
        ValueError: an input feeds no such layer.

    Example:
        >>> from recsys_lib.models import RatingModelConfig, build_rating_model
        >>> count_ids(build_rating_model(RatingModelConfig("neumf", 20, 30)))
        (20, 30)
    """
    inputs = getattr(model, "inputs", None)
    if not isinstance(inputs, list) or len(inputs) != 2:
        raise TypeError(
            f"model is of type {type(model).__name__}: expected a functional Keras model with the "
            "inputs user_ids and item_ids, such as build_rating_model gives"
        )
    counts = []
    for name, ids in zip(("user_ids", "item_ids"), inputs, strict=True):
        rows = [
            int(layer.input_dim)
            for layer in model.layers
            if hasattr(layer, "input_dim") and layer.input is ids
        ]
        if not rows:
            raise ValueError(
                f"model looks {name} up in no layer with an input_dim: expected an Embedding, as "
                "in the models of build_rating_model"
            )
        counts.append(min(rows))
    return counts[0], counts[1]


def make_facts(model: Any, **more: Any) -> dict[str, Any]:
    """Give the facts to store with an export: format, numbers of ids, and what else is passed."""
    num_users, num_items = count_ids(model)
    facts: dict[str, Any] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    return facts | {"num_users": num_users, "num_items": num_items} | more


def parse_facts(path: Path, text: str | bytes | None) -> dict[str, Any]:
    """Read facts back, checked.

    Raises:
        ValueError: they are missing, damaged, or of a newer format.

    Example:
        >>> parse_facts(Path("a.onnx"), None)
        Traceback (most recent call last):
        ValueError: a.onnx has no facts of a recsys_lib scorer: expected a whole file written by ...
    """
    try:
        facts = json.loads(text or b"")
    except ValueError:
        facts = None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise ValueError(
            f"{path} has no facts of a {FORMAT}: expected a whole file written by export_litert, "
            "export_onnx or export_saved_model"
        )
    version = facts.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {version!r}, this recsys_lib reads 1 to {FORMAT_VERSION}: "
            "expected another file or another recsys_lib"
        )
    if not all(isinstance(facts.get(key), int) for key in ("num_users", "num_items")):
        raise ValueError(f"{path} is damaged: expected num_users and num_items in its facts")
    return facts


def check_target(path: str | os.PathLike[str]) -> Path:
    """Give the path, if a file can be put there.

    Raises:
        FileNotFoundError: its folder does not exist.
        FileExistsError: there is a folder that is no SavedModel.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"path is {path}: expected an existing folder {path.parent}")
    if path.is_dir() and not (path / "saved_model.pb").is_file():
        raise FileExistsError(
            f"path is {path}, a folder that is no SavedModel: expected a new path"
        )
    return path


def put_in_place(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a file or folder under a temporary name, then move it to ``path``.

    Args:
        path: where to; what is there is replaced.
        write: gets the temporary path, which lies in the same folder.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    old = temporary.with_suffix(".old")
    try:
        write(temporary)
        if path.is_dir() or (temporary.is_dir() and path.exists()):  # no such move in one step
            path.rename(old)
        temporary.replace(path)
    finally:
        for leftover in (temporary, old):
            if leftover.is_dir():
                shutil.rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


def append_facts(model: bytes, facts: dict[str, Any], target: Path) -> None:
    """Write a LiteRT model with its facts behind it, in a zip archive.

    LiteRT's own metadata tools append files in the same way, and every runtime skips them.
    """
    facts = facts | {"model_bytes": len(model), "sha256": hashlib.sha256(model).hexdigest()}
    target.write_bytes(model)
    with zipfile.ZipFile(target, "a") as archive:
        archive.writestr(FACTS_NAME, json.dumps(facts))


def split_facts(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Give the LiteRT model and the facts behind it.

    Raises:
        ValueError: the facts are missing, or the model is not the one that was written.
    """
    text = None
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(FACTS_NAME)
    except (zipfile.BadZipFile, KeyError, RuntimeError, ValueError, OSError):
        pass
    facts = parse_facts(path, text)
    model = path.read_bytes()[: facts.get("model_bytes", 0)]
    if hashlib.sha256(model).hexdigest() != facts.get("sha256"):
        raise ValueError(f"{path} is damaged: expected the file as export_litert wrote it")
    return model, facts


def folder_digests(folder: Path) -> dict[str, str]:
    """Give the sha256 of every file of a SavedModel but the facts, by relative name."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != FACTS_NAME
    }
