"""The ASGI app of the service: a queue, one search for whatever waits, and its pages.

The routes are a dictionary and the checks are msgspec's: a framework's routing and validation take
longer than the recommendation (``benchmarks/service.py`` measures three).
"""

from __future__ import annotations

import asyncio
import gc
import hmac
import logging
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from recsys_lib.checks import store_numbers
from recsys_lib.serving import answers
from recsys_lib.serving.answers import Answer, ServedModel, problem

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)  # of the histogram
_JSON, _TEXT = b"application/json", b"text/plain; version=0.0.4"
_CLOSE = (b"connection", b"close")
_MORE_HEADERS = {
    401: (b"www-authenticate", b"Bearer"), 408: _CLOSE, 413: _CLOSE, 503: (b"retry-after", b"1"),
}  # fmt: skip
_log = logging.getLogger("recsys_lib.service")
_BUSY = 503, problem("too many requests wait: try again")
_LATE = 503, problem("not in time: try again")


@dataclass(frozen=True)
class ServiceConfig:
    """How a service behaves.

    Args:
        window_ms: how long the first request of a batch waits for others; 0 takes what is there.
        max_batch: requests that are answered together.
        max_queue: requests that may wait; any more are refused with 503.
        deadline_ms: a request that has waited so long is refused with 503; a body has as long to
            come, or 408.
        max_body_bytes: of a request; more is refused with 413.
        watch_seconds: how often to look whether the file was replaced.
        num_threads: that share a batch.

    Raises:
        TypeError, ValueError: a number that is none, or out of range.
    """

    window_ms: float = 0.0
    max_batch: int = 32
    max_queue: int = 64
    deadline_ms: float = 1_000.0
    max_body_bytes: int = 1 << 18
    watch_seconds: float = 1.0
    num_threads: int = 1

    def __post_init__(self) -> None:
        store_numbers(self, 0, "window_ms", high=1_000)
        store_numbers(self, 1, "deadline_ms")
        store_numbers(self, 0.01, "watch_seconds")
        counts = "max_batch", "max_queue", "max_body_bytes", "num_threads"
        store_numbers(self, 1, *counts, integer=True)


class Service:
    """The ASGI app.

    Args:
        path: of a compressed file.
        config: how it behaves.
        token: that each request must carry as ``Authorization: Bearer ...``; None for none.

    Attributes:
        model: that answers now; replaced as a whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or of another kind, or the token is short.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: ServiceConfig | None = None,
        token: str | None = None,
    ) -> None:
        self.path, self.config = Path(path), config or ServiceConfig()
        if token is not None and not (len(token) >= 16 and token.isascii()):
            raise ValueError("token is short: expected at least 16 characters of ASCII")
        self._bearer = None if token is None else b"Bearer " + token.encode()
        self._stamp, self._stopping = _stamp(self.path), False
        self.model: Any = ServedModel(self.path, self.config.num_threads)
        self._waiting: list[tuple[Any, asyncio.Future[Answer], float]] = []
        self._next: asyncio.Handle | None = None  # turn of _take
        self._refused = self._batches = 0
        self._counts: Counter[tuple[str, int]] = Counter()
        self._times, self._seconds = [0] * (len(_SECONDS) + 1), 0.0
        kinds = {"/recommend": answers.RecommendRequest, "/score": answers.ScoreRequest}
        self._decode = {path: answers.decoder(kind) for path, kind in kinds.items()}
        self._pages = {
            "/health": lambda: (200, b'{"status":"alive"}'),
            "/ready": self._ready,
            "/metrics": lambda: (200, self._metrics()),
            "/openapi.json": lambda: (200, answers.openapi(self.model, self._bearer is not None)),
        }

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer one request, as ASGI 3 has it."""
        if scope["type"] != "http":
            await self._lifespan(receive, send)
            return
        start, path = time.perf_counter(), scope["path"]
        asked = path in self._decode
        if asked and len(self._waiting) >= self.config.max_queue:
            status, body = _BUSY
        else:
            status, body = await self._respond(scope, receive, start)
        kind = _TEXT if path == "/metrics" and status == 200 else _JSON
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        headers.append((b"x-model-version", self.model.version.encode()))
        if status in _MORE_HEADERS:
            headers.append(_MORE_HEADERS[status])
        elif status == 405:
            headers.append((b"allow", b"POST" if asked else b"GET"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        self._counts[path if asked or path in self._pages else "other", status] += 1
        if asked and status == 200:
            seconds = time.perf_counter() - start
            self._times[bisect_left(_SECONDS, seconds)] += 1
            self._seconds += seconds

    async def _respond(self, scope: Mapping[str, Any], receive: Any, start: float) -> Answer:
        path, headers, config = scope["path"], dict(scope["headers"]), self.config
        given = headers.get(b"authorization", b"")
        if self._bearer and not hmac.compare_digest(given, self._bearer):
            return 401, problem("authorization: expected Bearer and the token")
        decode, page = self._decode.get(path), self._pages.get(path)
        if decode is None:
            if page is None:
                known = ", ".join((*self._decode, *self._pages))
                return 404, problem(f"path: expected one of {known}")
            return page() if scope["method"] == "GET" else (405, problem("method: expected GET"))
        if scope["method"] != "POST":
            return 405, problem("method: expected POST")
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != _JSON:
            return 415, problem("content-type: expected application/json")
        size, body, more = int(headers.get(b"content-length", 0)), bytearray(), True
        try:
            async with asyncio.timeout(config.deadline_ms / 1000):
                while more and max(size, len(body)) <= config.max_body_bytes:
                    part = await receive()
                    body += part.get("body", b"")
                    more = part.get("more_body", False)
        except TimeoutError:
            return 408, problem("body did not come in time")
        if max(size, len(body)) > config.max_body_bytes:
            return 413, problem(f"body is too large: expected {config.max_body_bytes} bytes")
        try:
            request = decode(body)
        except msgspec.ValidationError as error:
            return 422, problem(str(error))
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or too deep
            return 400, problem(f"body is no JSON: {str(error)[:200]}")
        if len(self._waiting) >= config.max_queue:
            return _BUSY
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer, start + config.deadline_ms / 1000))
        self._schedule()
        return await answer

    def _schedule(self) -> None:
        """See to it that what waits is taken: when the loop comes round, or at the window's end."""
        loop, take, window = asyncio.get_running_loop(), self._take, self.config.window_ms / 1000
        if self._next is not None and window and len(self._waiting) == self.config.max_batch:
            self._next.cancel()
            self._next = loop.call_soon(take)
        elif self._next is None:
            self._next = loop.call_later(window, take) if window else loop.call_soon(take)

    def _take(self) -> None:
        """Answer all who wait, before more are let in; a batch with one model, whatever comes."""
        waiting, self._waiting, self._next = self._waiting, [], None
        now, size = time.perf_counter(), self.config.max_batch
        for _, answer, ends in waiting:
            if ends < now and not answer.done():
                answer.set_result(_LATE)
        live = [(request, answer) for request, answer, _ in waiting if not answer.done()]
        for batch in (live[n : n + size] for n in range(0, len(live), size)):
            self._batches += 1
            try:
                found = self.model.answer([request for request, _ in batch])
            except Exception as error:  # whatever it is, nobody waits for ever
                _log.error("a batch failed: %s", type(error).__name__)
                found = [(500, problem("the service failed"))] * len(batch)
            for (_, answer), result in zip(batch, found, strict=True):
                if not answer.done():
                    answer.set_result(result)

    async def refresh(self) -> bool:
        """Load the file if it was replaced; return whether a new model answers now."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            model = await asyncio.to_thread(ServedModel, self.path, self.config.num_threads)
        except Exception as error:  # whatever it is, the old model serves on
            self._refused += 1
            _log.error("version %s serves on: %s", self.model.version, error)
            return False
        self.model = model
        _log.info("version %s serves now", model.version)
        return True

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self.config.watch_seconds)
            await self.refresh()

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        # A full garbage collection over all that was imported stops the service for 100 ms or more.
        gc.collect()
        gc.freeze()
        watch = asyncio.create_task(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._stopping = True
        watch.cancel()
        await send({"type": "lifespan.shutdown.complete"})

    def _ready(self) -> Answer:
        if self._stopping or len(self._waiting) >= self.config.max_queue:
            return _BUSY
        return 200, b'{"status":"ready","model_version":"%s"}' % self.model.version.encode()

    def _metrics(self) -> bytes:
        """Return what was counted, in Prometheus' text format."""
        name, lines = "recsys_request_seconds", ["# TYPE recsys_requests_total counter"]

        def say(name: str, value: float, labels: str = "") -> None:
            lines.append(f'{name}{{{labels}process="{os.getpid()}"}} {value}')

        for (path, status), count in sorted(self._counts.items()):
            say("recsys_requests_total", count, f'path="{path}",status="{status}",')
        lines.append(f"# TYPE {name} histogram")
        for limit, count in zip((*_SECONDS, "+Inf"), accumulate(self._times), strict=True):
            say(f"{name}_bucket", count, f'le="{limit}",')
        say(f"{name}_sum", round(self._seconds, 6))
        say(f"{name}_count", sum(self._times))
        say("recsys_model_info", 1, f'version="{self.model.version}",')
        say("recsys_waiting", len(self._waiting))
        for what, count in (("batches", self._batches), ("models_refused", self._refused)):
            lines.append(f"# TYPE recsys_{what}_total counter")
            say(f"recsys_{what}_total", count)
        return "\n".join([*lines, ""]).encode()


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced; nothing for one that is not there."""
    with suppress(OSError):
        facts = path.stat()
        return facts.st_ino, facts.st_mtime_ns, facts.st_size
    return ()
