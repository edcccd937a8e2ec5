"""A pretrained sentence encoder, run by Keras from its published weights."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_lib.checks import check_number
from recsys_lib.text.files import find_text_encoder

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
        for name, value in vars(self).items():
            check_number(name, value, 1, integer=True)
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                f"num_heads is {self.num_heads}: expected a divisor of embedding_dim, "
                f"{self.embedding_dim}"
            )


def build_text_encoder(config: TextEncoderConfig) -> Any:
    """Build the encoder, with random weights.

    All of its weights are in Embedding, Dense and LayerNormalization layers, named
    ``block_0_query`` and so on, so that pruning and quantization apply to it as to any model.

    Args:
        config: its shape.

    Returns:
        A functional Keras model. Inputs: ``token_ids`` and ``mask`` (1 where a token is), (n, t)
        int32 each. Output: (n, d) float32 of length 1.

    Example:
        >>> small = TextEncoderConfig(50, 8, num_layers=2, num_heads=2, hidden_units=16)
        >>> model = build_text_encoder(small)
        >>> ids = np.array([[1, 7, 2]])
        >>> model([ids, np.ones_like(ids)]).shape
        TensorShape([1, 8])
    """
    import keras

    from recsys_lib.text.layers import MeanOfTokens, SelfAttention

    def dense(name: str, x: Any, units: int, activation: str = "linear") -> Any:
        return keras.layers.Dense(units, activation=activation, name=name)(x)

    def add_norm(name: str, x: Any, y: Any) -> Any:
        total = keras.layers.Add(name=f"{name}_add")([x, y])
        return keras.layers.LayerNormalization(epsilon=1e-12, name=name)(total)

    d = config.embedding_dim
    token_ids = keras.Input((None,), dtype="int32", name="token_ids")
    mask = keras.Input((None,), dtype="int32", name="mask")
    positions = keras.ops.cumsum(keras.ops.ones_like(token_ids), axis=1) - 1
    tokens = keras.layers.Embedding(config.vocab_size, d, name="tokens")(token_ids)
    x = add_norm(
        "input_norm",
        tokens,
        keras.layers.Embedding(config.max_tokens, d, name="positions")(positions),
    )
    for n in range(config.num_layers):
        block = f"block_{n}"
        query, key, value = (dense(f"{block}_{part}", x, d) for part in ("query", "key", "value"))
        attention = SelfAttention(config.num_heads, name=f"{block}_attention")
        mixed = dense(f"{block}_mixed", attention([query, key, value, mask]), d)
        x = add_norm(f"{block}_attention_norm", x, mixed)
        wide = dense(f"{block}_wide", x, config.hidden_units, "gelu")
        x = add_norm(f"{block}_output_norm", x, dense(f"{block}_narrow", wide, d))
    vectors = MeanOfTokens(name="vectors")([x, mask])
    return keras.Model([token_ids, mask], vectors, name="text_encoder")


class TextEncoder:
    """Texts to vectors: a tokenizer and a Keras model.

    Args:
        model: of :func:`build_text_encoder`.
        tokenizer: of the package ``tokenizers``.
        max_tokens: texts are cut after so many tokens.

    Attributes:
        model: as given; fine-tune, prune or export it like any other.
        embedding_dim: length of a vector.
    """

    def __init__(self, model: Any, tokenizer: Any, max_tokens: int = 256) -> None:
        self.model, self.max_tokens = model, check_number("max_tokens", max_tokens, 3, integer=True)
        self.embedding_dim = int(model.outputs[0].shape[-1])
        self._tokenizer = tokenizer
        tokenizer.no_padding()
        tokenizer.enable_truncation(self.max_tokens)

    def tokenize(self, texts: Sequence[str]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Give token ids and mask, (n, t) each, with t the length of the longest text.

        Raises:
            TypeError: not a list of texts.
            ValueError: an empty list.

        Example:
            >>> encoder = load_text_encoder()  # doctest: +SKIP
            >>> encoder.tokenize(["Toy Story"])[0].tolist()  # doctest: +SKIP
            [[101, 9121, 2466, 102]]
        """
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise TypeError("texts: expected a list of str")
        if not len(texts):
            raise ValueError("texts is empty: expected at least one text")
        lists = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        width = max(map(len, lists))
        ids, mask = (np.zeros((len(lists), width), np.int32) for _ in range(2))
        for row, tokens in enumerate(lists):
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = 1
        return ids, mask

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 64, progress: bool = False
    ) -> NDArray[np.float32]:
        """Give (n, d) vectors of length 1, one for each text.

        Texts of like length share a batch, so that little is computed for padding.

        Args:
            texts: n texts.
            batch_size: texts at a time.
            progress: show a bar.

        Raises:
            TypeError, ValueError: as for :meth:`tokenize`.
        """
        from tqdm.auto import tqdm

        check_number("batch_size", batch_size, 1, integer=True)
        ids, mask = self.tokenize(texts)
        lengths = mask.sum(axis=1)
        order = np.argsort(lengths, kind="stable")
        vectors = np.empty((len(ids), self.embedding_dim), np.float32)
        starts = range(0, len(order), batch_size)
        for start in tqdm(starts, desc="encode", unit="batch", disable=not progress):
            rows = order[start : start + batch_size]
            width = lengths[rows[-1]]
            vectors[rows] = self.model([ids[rows, :width], mask[rows, :width]], training=False)
        return vectors


def load_text_encoder(
    folder: str | os.PathLike[str] | None = None, *, max_tokens: int = 256, progress: bool = True
) -> TextEncoder:
    """Load the pretrained encoder all-MiniLM-L6-v2: 22.7 million parameters, vectors of 384.

    Args:
        folder: of its files; None to look for them, see :func:`find_text_encoder`.
        max_tokens: texts are cut after so many tokens; it was trained with at most 256.
        progress: show a bar if the files are downloaded.

    Raises:
        FileNotFoundError, DownloadError: as for :func:`find_text_encoder`.
        ModuleNotFoundError: ``pip install recsys-lib[text]`` is missing.
        ValueError: a damaged file, or the weights of another model.

    Source:
        Reimers & Gurevych, *Sentence-BERT*, EMNLP 2019; weights: sentence-transformers,
        ``all-MiniLM-L6-v2`` (Apache 2.0).
    """
    try:
        import safetensors
        import safetensors.numpy
        import tokenizers
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"the text encoder needs {error.name}: pip install recsys-lib[text]"
        ) from error
    place = find_text_encoder(folder, progress=progress)
    try:
        weights = safetensors.numpy.load_file(place / "model.safetensors")
        tokenizer = tokenizers.Tokenizer.from_file(str(place / "tokenizer.json"))
    except Exception as error:  # tokenizers raises Exception itself
        raise ValueError(
            f"the files in {place} cannot be read ({error}): fetch them again"
        ) from error
    config = _config_of(weights)
    model = build_text_encoder(config)
    for layer in model.layers:
        values = _weights_of(layer.name, weights)
        if values:
            layer.set_weights(values)
    return TextEncoder(model, tokenizer, max_tokens)


def _config_of(weights: Mapping[str, NDArray[Any]]) -> TextEncoderConfig:
    needed = ("embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight")
    blocks = [name for name in weights if name.endswith("intermediate.dense.weight")]
    if not blocks or any(name not in weights for name in needed):
        raise ValueError(
            f"model.safetensors has {len(weights)} tensors, {', '.join(sorted(weights)[:3])} ...: "
            "expected those of a BERT encoder"
        )
    vocab_size, embedding_dim = weights[needed[0]].shape
    return TextEncoderConfig(
        vocab_size,
        embedding_dim,
        num_layers=len(blocks),
        num_heads=embedding_dim // 32,  # as all MiniLM models have it
        hidden_units=len(weights[blocks[0]]),
        max_tokens=len(weights[needed[1]]),
    )


def _weights_of(layer: str, weights: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
    """Give a layer's weights in the order of Keras; an empty list where it has none."""
    if layer == "tokens":
        return [weights["embeddings.word_embeddings.weight"]]
    if layer == "positions":  # all tokens are of the first type: its vector is added here, once
        types = weights["embeddings.token_type_embeddings.weight"]
        return [weights["embeddings.position_embeddings.weight"] + types[0]]
    if layer == "input_norm":
        source = "embeddings.LayerNorm"
    elif layer.startswith("block_") and layer.split("_", 2)[2] in _PARTS:
        _, number, part = layer.split("_", 2)
        source = f"encoder.layer.{number}.{_PARTS[part]}"
    else:
        return []
    return [np.asarray(weights[f"{source}.weight"], np.float32).T, weights[f"{source}.bias"]]
