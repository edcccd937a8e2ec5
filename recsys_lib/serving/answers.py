"""What a service is asked and what it answers, and the compressed file behind; no web server here.

Ids are rows: the position of a user or an item in the data that the model was trained on. A
compressed file holds no other ids; who asks keeps ``data.original_ids("item")`` to translate them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from recsys_lib.compression.files import load_compressed
from recsys_lib.models.factors import Factors, inner_product_vectors
from recsys_lib.serving.retrieval import TopKIndex

Id = Annotated[int, Meta(ge=0, lt=2**31, description="a row")]
History = Annotated[list[Id], Meta(min_length=1, max_length=1_000)]
_encode = msgspec.json.Encoder().encode


class _Asked(Struct, forbid_unknown_fields=True, kw_only=True):
    user_id: Id | UnsetType = UNSET
    items: History | UnsetType = UNSET

    def __post_init__(self) -> None:
        if (self.user_id is UNSET) == (self.items is UNSET):
            raise ValueError("user_id, items: expected exactly one of them")


class RecommendRequest(_Asked):
    """Ask for the best items of a user of the file, or of one known by the items met.

    Args:
        user_id: row of the user.
        items: rows of the items met; they are left out of the answer. Repeats count once.
        k: how many items.
        exclude: rows of items that are not to be in the answer.

    Example:
        >>> msgspec.json.decode(b'{"user_id": 3, "k": 0}', type=RecommendRequest)
        Traceback (most recent call last):
        msgspec.ValidationError: Expected `int` >= 1 - at `$.k`
    """

    k: Annotated[int, Meta(ge=1, le=500)] = 10
    exclude: Annotated[list[Id], Meta(max_length=10_000)] = []


class ScoreRequest(_Asked):
    """Ask for the scores of some items; ``user_id`` or ``items`` as in RecommendRequest.

    Args:
        item_ids: rows of the items to score.
    """

    item_ids: Annotated[list[Id], Meta(min_length=1, max_length=1_000)]


Request = RecommendRequest | ScoreRequest


def decoder(kind: Any) -> Callable[[bytes | bytearray], Request]:
    """Return a function from JSON to a request, for which 3.0 is a whole number as in JSON Schema.

    Example:
        >>> decoder(RecommendRequest)(b'{"user_id": 3.0}').user_id
        3
    """
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes | bytearray) -> Request:
        try:
            return decode(body)
        except msgspec.ValidationError as error:  # seldom, so it may take longer
            try:
                plain = _without_points(msgspec.json.decode(body))
            except (ValueError, RecursionError):
                raise error from None
            return msgspec.convert(plain, kind)

    return read


def _without_points(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_points(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_without_points(one) for one in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    return int(value) if whole else value


Answer = tuple[int, bytes]  # status and body


class Recommendations(Struct):
    """Items, best first, and their scores; fewer than k where no more are left."""

    item_ids: list[int]
    scores: list[float]
    model_version: str


class Scores(Struct):
    """One score for each item, in the order of the request."""

    scores: list[float]
    model_version: str


class Problem(Struct):
    """What is wrong with a request, by the name of its field."""

    error: str


def problem(text: str) -> bytes:
    """Return the body of an answer that says what is wrong."""
    return _encode(Problem(text))


class ServedModel:
    """A compressed file that answers; it never changes, so an answer is that of one version.

    Args:
        path: of a file written by :func:`recsys_lib.compression.save_compressed`.
        num_threads: that share the users of a batch.

    Attributes:
        version: the first 16 hexadecimal digits of the file's own checksum.
        factors: what the file holds.
        num_users: whose ids the model knows; None where it holds items only.
        items: their vectors, (n, d) float32, with dimensions for biases where there are such.
        index: of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another kind.
    """

    def __init__(self, path: str | os.PathLike[str], num_threads: int = 1) -> None:
        self.version, self.factors = _checksum(path), load_compressed(path)
        if self.version != _checksum(path):  # the watch comes back to it
            raise ValueError(f"{path} was replaced while it was read: expected one that stays")
        tables, nobody = self.factors, np.zeros((1, self.factors.embedding_dim), np.float32)
        if tables.user_vectors is None:
            tables = Factors(tables.item_vectors, nobody, global_mean=tables.global_mean)
        vectors = inner_product_vectors(tables)
        assert vectors is not None
        self.items, users = vectors[1], vectors[0]
        self._users = None if self.factors.user_vectors is None else users
        self.index = TopKIndex(self.items, "int8", num_threads=num_threads)
        self.num_users = None if self._users is None else len(self._users)
        someone: dict[str, Any] = {"items": [0]} if self._users is None else {"user_id": 0}
        self.answer([RecommendRequest(**someone, exclude=[0])])  # compiles what is left

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Return status and JSON of each answer; what one asks never changes what another gets."""
        answers: list[Answer] = [(200, b"")] * len(requests)
        searches: dict[int, list[int]] = {}
        queries = np.zeros((len(requests), self.items.shape[1]), np.float32)
        for n, request in enumerate(requests):
            if wrong := self._what_is_wrong(request):
                answers[n] = 422, problem(wrong)
                continue
            queries[n] = self._vector(request)
            if isinstance(request, RecommendRequest):
                searches.setdefault(request.k, []).append(n)
            else:
                rows = self.items[request.item_ids]
                scores = np.einsum("nd,d->n", rows, queries[n], dtype=np.float64)
                scores = scores.astype(np.float32).tolist()
                answers[n] = 200, _encode(Scores(scores, self.version))
        for k, places in searches.items():
            leave_out = [_left_out(requests[n]) for n in places]
            exclude = leave_out if any(leave_out) else None
            found = self.index.search(queries[places], k, exclude=exclude)
            for n, ids, best in zip(places, found.item_ids, found.scores, strict=True):
                left = k if ids[-1] >= 0 else int(np.count_nonzero(ids >= 0))
                lists = ids[:left].tolist(), best[:left].tolist()
                answers[n] = 200, _encode(Recommendations(*lists, self.version))
        return answers

    def _what_is_wrong(self, request: Request) -> str:
        if request.user_id is not UNSET:
            if self.num_users is None:
                return "user_id: the model holds items only: expected items"
            if request.user_id >= self.num_users:
                return f"user_id is unknown: expected less than {self.num_users}"
        elif self.factors.how_to_fold_in is None:
            return "items: the model cannot fold in: expected user_id"
        for name in ("items", "exclude", "item_ids"):
            ids = getattr(request, name, None)
            if ids and max(ids) >= len(self.items):
                return f"{name} holds an unknown id: expected ids less than {len(self.items)}"
        return ""

    def _vector(self, request: Request) -> NDArray[np.float32]:
        if request.user_id is not UNSET:
            assert self._users is not None
            return self._users[request.user_id]
        assert request.items is not UNSET
        vector = self.factors.fold_in([request.items])[0]
        more = self.items.shape[1] - len(vector)  # dimensions that hold the mean of all ratings
        mean = np.array([self.factors.global_mean, 1], np.float32)
        return np.append(vector, mean) if more else vector


def _left_out(request: Any) -> list[int]:
    return request.exclude if request.items is UNSET else request.items + request.exclude


def _checksum(path: str | os.PathLike[str]) -> str:
    return Path(path).read_bytes()[-32:-24].hex()


def openapi(model: ServedModel, token: bool = False) -> bytes:
    """Return the OpenAPI 3.1 schema of the service, with the ids that the model knows.

    Args:
        model: that answers.
        token: whether requests must carry one.
    """
    whole = json.loads(Path(__file__).with_name("openapi.json").read_text(encoding="utf-8"))
    whole["info"]["version"] = model.version
    kinds = (RecommendRequest, ScoreRequest, Recommendations, Scores, Problem)
    _, parts = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    ways = {"items": model.factors.how_to_fold_in, "user_id": model.num_users}
    for kind in ("RecommendRequest", "ScoreRequest"):
        fields = parts[kind]["properties"]
        for name in [name for name, way in ways.items() if way is None]:
            del fields[name]
        for name in fields.keys() - {"k"}:
            ids = fields[name].get("items", fields[name])
            ids["exclusiveMaximum"] = model.num_users if name == "user_id" else len(model.items)
        parts[kind]["oneOf"] = [{"required": [name]} for name in ways if name in fields]
    whole["components"]["schemas"] = parts
    if not token:
        del whole["security"], whole["components"]["securitySchemes"]
    return json.dumps(whole).encode()
