"""A compressed recommender in one file, and its reader: plain arrays, a checksum, and no code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from recsys_lib.checks import check_choice, check_type
from recsys_lib.compression.compressed import CompressedModel
from recsys_lib.compression.tensors import DenseTensor, EncodedTensor, read_tensor
from recsys_lib.compression.weights import named_weights
from recsys_lib.files import FilePath, known_settings, read_file, reading, write_file
from recsys_lib.models.factors import Factors, FoldIn, as_factors

ACCOUNTS = ("self-contained", "items")
_KIND = "compressed recommender"


def save_compressed(path: FilePath, model: Any, *, account: str = "self-contained") -> int:
    """Write a recommender to one file, in the form in which its tables are stored.

    Args:
        path: where to; an existing file is replaced in one step, when the new one is whole.
        model: a CompressedModel of a factor model, as :func:`recsys_lib.recipe.compress` and most
            functions of the library return it; or what :func:`recsys_lib.models.as_factors` takes,
            stored in float32.
        account: "self-contained" stores all user vectors; "items" stores none: a user's history
            comes with the request, and the vector is folded in.

    Returns:
        Bytes of the file.

    Raises:
        FileNotFoundError: the folder does not exist.
        TypeError: a model that is not two tables, or one without fold-in for account "items".
        ValueError: another account.

    Example:
        >>> import tempfile
        >>> from recsys_lib.compression.quantization import UniformQuantization, quantize
        >>> from recsys_lib.data import Interactions
        >>> from recsys_lib.models import IALS
        >>> model = IALS(embedding_dim=4).fit(Interactions([0, 0, 1, 2], [0, 1, 1, 2]))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     size = save_compressed(f"{folder}/m", quantize(model, UniformQuantization(4)))
        ...     load_compressed(f"{folder}/m")
        Factors(3 users, 3 items, d = 4)
    """
    check_choice("account", account, ACCOUNTS)
    tensors, factors = _tables(model)
    how = factors.how_to_fold_in
    if account == "items" and how is None:
        raise TypeError("account is 'items': expected a model that folds users in, such as IALS")
    if account == "items":
        tensors = {name: t for name, t in tensors.items() if not name.startswith("user_")}
    settings = {
        "global_mean": factors.global_mean,
        "fold_in": None if how is None else asdict(how),
        "tensors": [[name, tensor.kind, tensor.header()] for name, tensor in tensors.items()],
    }
    arrays: dict[str, NDArray[Any]] = {}
    for name, tensor in tensors.items():
        arrays |= {f"{name}.{part}": array for part, array in tensor.arrays().items()}
    return write_file(path, _KIND, settings, arrays)


def load_compressed(path: FilePath) -> Factors:
    """Read a file written by :func:`save_compressed`; no code is run from it.

    Args:
        path: of the file.

    Returns:
        A recommender. For the fastest search give its vectors to
        :class:`recsys_lib.serving.TopKIndex`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is foreign, truncated, damaged, or of a newer version.
    """
    kind, settings, arrays = read_file(path, [_KIND])
    with reading(path, kind):
        known_settings(settings, ["global_mean", "fold_in", "tensors"], kind)
        tables = {}
        for name, stored, header in settings["tensors"]:
            parts = {k.split(".", 1)[1]: a for k, a in arrays.items() if k.split(".")[0] == name}
            tables[name] = read_tensor(stored, header, parts).decode()
        how = settings["fold_in"]
        fold_in = None if how is None else FoldIn(**how)
        return Factors(fold_in=fold_in, global_mean=settings["global_mean"], **tables)


def _tables(model: Any) -> tuple[Mapping[str, EncodedTensor], Factors]:
    if not isinstance(model, CompressedModel):
        factors = as_factors(model)
        return {name: DenseTensor(table) for name, table in named_weights(factors).items()}, factors
    check_type("model.model", model.model, (Factors,))
    return model.tensors, model.model
