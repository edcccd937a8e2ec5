"""What a service is asked and what it answers, and the compressed file behind; no web server here.

Ids are rows: the position of a user or an item in the data that the model was trained on. A
compressed file holds no other ids; who asks keeps ``data.original_ids("item")`` to translate them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType
from numpy.typing import NDArray

from recsys_lib.compression.files import load_compressed
from recsys_lib.models.factors import Factors, inner_product_vectors
from recsys_lib.serving.retrieval import TopKIndex

_ROW = "a row; whole, and written without a point"
Id = Annotated[int, Meta(ge=0, lt=2**31, description=_ROW)]
History = Annotated[list[Id], Meta(min_length=1, max_length=1_000)]
_OK, _UNKNOWN = 200, 422
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
        index: of its items.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or of another kind.
    """

    def __init__(self, path: str | os.PathLike[str], num_threads: int = 1) -> None:
        self.version, self.factors = _read(path)
        tables, nobody = self.factors, np.zeros((1, self.factors.embedding_dim), np.float32)
        if tables.user_vectors is None:
            tables = Factors(tables.item_vectors, nobody, global_mean=tables.global_mean)
        vectors = inner_product_vectors(tables)
        assert vectors is not None
        self._items, users = vectors[1], vectors[0]
        self._users = None if self.factors.user_vectors is None else users
        self.index = TopKIndex(self._items, "int8", num_threads=num_threads)
        self.answer([RecommendRequest(**self._someone(), exclude=[0])])  # compiles what is left

    @property
    def num_users(self) -> int | None:
        """Users whose ids the model knows; None where it holds items only."""
        return None if self._users is None else len(self._users)

    def __repr__(self) -> str:
        return f"ServedModel({self.factors!r}, version {self.version})"

    def _someone(self) -> dict[str, Any]:
        return {"items": [0]} if self._users is None else {"user_id": 0}

    def answer(
        self, requests: Sequence[RecommendRequest | ScoreRequest]
    ) -> list[tuple[int, bytes]]:
        """Return status and JSON of each answer; what one asks never changes what another gets."""
        answers: list[tuple[int, bytes]] = [(_OK, b"")] * len(requests)
        searches: dict[int, list[int]] = {}
        queries = np.zeros((len(requests), self._items.shape[1]), np.float32)
        for n, request in enumerate(requests):
            if wrong := self._what_is_wrong(request):
                answers[n] = _UNKNOWN, problem(wrong)
                continue
            queries[n] = self._vector(request)
            if isinstance(request, RecommendRequest):
                searches.setdefault(request.k, []).append(n)
            else:
                rows = self._items[request.item_ids]
                scores = np.einsum("nd,d->n", rows, queries[n], dtype=np.float64)
                answer = Scores(scores.astype(np.float32).tolist(), self.version)
                answers[n] = _OK, _encode(answer)
        for k, places in searches.items():
            leave_out = [_left_out(requests[n]) for n in places]
            exclude = leave_out if any(leave_out) else None
            found = self.index.search(queries[places], k, exclude=exclude)
            for n, ids, best in zip(places, found.item_ids, found.scores, strict=True):
                left = k if ids[-1] >= 0 else int(np.count_nonzero(ids >= 0))
                lists = ids[:left].tolist(), best[:left].tolist()
                answers[n] = _OK, _encode(Recommendations(*lists, self.version))
        return answers

    def _what_is_wrong(self, request: RecommendRequest | ScoreRequest) -> str:
        if request.user_id is not UNSET:
            if self._users is None:
                return "user_id: the model holds items only: expected items"
            if request.user_id >= len(self._users):
                return f"user_id is unknown: expected less than {len(self._users)}"
        elif self.factors.how_to_fold_in is None:
            return "items: the model cannot fold in: expected user_id"
        for name in ("items", "exclude", "item_ids"):
            ids = getattr(request, name, None)
            if ids and max(ids) >= len(self._items):
                return f"{name} holds an unknown id: expected ids less than {len(self._items)}"
        return ""

    def _vector(self, request: RecommendRequest | ScoreRequest) -> NDArray[np.float32]:
        if request.user_id is not UNSET:
            assert self._users is not None
            return self._users[request.user_id]
        vector = self.factors.fold_in([request.items])[0]
        more = self._items.shape[1] - len(vector)  # dimensions that hold the mean of all ratings
        return np.append(vector, np.float32([self.factors.global_mean, 1])) if more else vector


def _left_out(request: Any) -> list[int]:
    return request.exclude if request.items is UNSET else request.items + request.exclude


def _read(path: str | os.PathLike[str]) -> tuple[str, Factors]:
    """Return the version, which is the checksum that ends the file, and the content."""
    for _ in range(3):
        before, factors = _checksum(path), load_compressed(path)
        if before == _checksum(path):  # else it was replaced in between
            return before, factors
    raise ValueError(f"{path} changes while it is read: expected a file that is written once")


def _checksum(path: str | os.PathLike[str]) -> str:
    return Path(path).read_bytes()[-32:-24].hex()


def openapi(model: ServedModel, token: bool = False) -> dict[str, Any]:
    """Return the OpenAPI 3.1 schema of the service, with the ids that the model knows.

    Args:
        model: that answers.
        token: whether requests must carry one.
    """
    kinds = (RecommendRequest, ScoreRequest, Recommendations, Scores, Problem)
    _, parts = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    ways = ["items"] if model.factors.how_to_fold_in else []
    ways += [] if model.num_users is None else ["user_id"]
    most = {"items": model.index.num_items, "exclude": model.index.num_items}
    most |= {"item_ids": most["items"], "user_id": model.num_users or 0}
    for kind in ("RecommendRequest", "ScoreRequest"):
        fields = parts[kind]["properties"]
        for name in {"items", "user_id"} - set(ways):
            del fields[name]
        for name, count in most.items():
            bounded = fields.get(name, {})
            bounded = bounded.get("items", bounded)
            bounded.pop("exclusiveMaximum", None)
            bounded["maximum"] = count - 1
        parts[kind]["oneOf"] = [{"required": [name]} for name in ways]

    def said(text: str, schema: str = "Problem") -> dict[str, Any]:
        shape = {"$ref": f"#/components/schemas/{schema}"}
        return {"description": text, "content": {"application/json": {"schema": shape}}}

    refused = {"401": said("no token, or another one")} if token else {}
    busy = said("too busy, or stopping: try again")
    busy["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}
    wrong = {"400": "no JSON", "408": "the body did not come", "413": "the body is too large"}
    wrong |= {"415": "not application/json", "422": "a field is wrong: the message names it"}
    plain = {"description": "fine", "content": {"text/plain": {"schema": {"type": "string"}}}}
    found = {"description": "fine", "content": {"application/json": {"schema": {"type": "object"}}}}
    paths: dict[str, Any] = {}
    for name, asked, answered in (
        ("recommend", "RecommendRequest", "Recommendations"),
        ("score", "ScoreRequest", "Scores"),
    ):
        body = {"required": True, "content": said("", asked)["content"]}
        answers = {"200": said("the answer", answered), "503": busy} | refused
        answers |= {code: said(text) for code, text in wrong.items()}
        paths[f"/{name}"] = {
            "post": {"operationId": name, "requestBody": body} | {"responses": answers}
        }
    for name in ("health", "ready", "metrics", "openapi.json"):
        answers = {"200": plain if name == "metrics" else found} | refused
        answers |= {"503": busy} if name == "ready" else {}
        paths[f"/{name}"] = {"get": {"operationId": name, "responses": answers}}
    whole = {"openapi": "3.1.0", "info": {"title": "Recommender", "version": model.version}}
    whole |= {"paths": paths, "components": {"schemas": parts}}
    if token:
        whole["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        whole["security"] = [{"token": []}]
    return whole
