"""The online service: one ASGI app around a compressed file, alone under uvicorn or in Ray Serve.

Run ``python -m recsys_lib.serving.service MODEL`` and ask ``POST /recommend``; ``/openapi.json``
says what else. A request waits in a bounded queue; whatever waits when the event loop comes round
is answered by one search. A full queue is said at once, with 503 and ``Retry-After``. A file that
takes the place of the model's is loaded while the old one serves on.

The routes are a dictionary and the checks are msgspec's: a framework's routing and validation take
longer than the recommendation (``benchmarks/service.py`` measures four).
"""

from __future__ import annotations

import argparse
import asyncio
import hmac
import ipaddress
import json
import logging
import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec

from recsys_lib.checks import store_numbers
from recsys_lib.serving.answers import (
    RecommendRequest,
    ScoreRequest,
    ServedModel,
    openapi,
    problem,
)

TOKEN_VARIABLE = "RECSYS_SERVICE_TOKEN"
_CONFIG_VARIABLE = "RECSYS_SERVICE"  # from the first process to the others
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)  # of the histogram
_JSON, _TEXT = b"application/json", b"text/plain; version=0.0.4"
_log = logging.getLogger("recsys_lib.service")
Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[Any]]


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
    max_queue: int = 128
    deadline_ms: float = 1_000.0
    max_body_bytes: int = 1 << 18
    watch_seconds: float = 1.0
    num_threads: int = 1

    def __post_init__(self) -> None:
        store_numbers(self, 0, "window_ms", high=1_000)
        store_numbers(self, 1, "deadline_ms")
        store_numbers(self, 0.01, "watch_seconds")
        names = ("max_batch", "max_queue", "max_body_bytes", "num_threads")
        store_numbers(self, 1, *names, integer=True)


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
        self._stamp = _stamp(self.path)
        self.model: Any = ServedModel(self.path, self.config.num_threads)
        self._refused = self._batches = 0
        self._stopping = False
        self._next: asyncio.Handle | None = None  # turn of _take
        self._waiting: list[tuple[Any, asyncio.Future[tuple[int, bytes]], float]] = []
        self._counts: Counter[tuple[str, int]] = Counter()
        self._times, self._seconds = [0] * (len(_SECONDS) + 1), 0.0
        self._decode = {
            "/recommend": msgspec.json.Decoder(RecommendRequest).decode,
            "/score": msgspec.json.Decoder(ScoreRequest).decode,
        }
        self._pages: dict[str, Callable[[], tuple[int, bytes]]] = {
            "/health": lambda: (200, b'{"status":"alive"}'),
            "/ready": self._ready,
            "/metrics": self._metrics,
            "/openapi.json": self._openapi,
        }

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI 3 has it."""
        if scope["type"] != "http":
            await self._other(scope["type"], receive, send)
            return
        start, path = time.perf_counter(), scope["path"]
        if len(self._waiting) >= self.config.max_queue and path in self._decode:
            status, body = 503, _BUSY
        else:
            status, body = await self._respond(path, scope, receive, start)
        kind = _TEXT if path == "/metrics" and status == 200 else _JSON
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
        headers.append((b"x-model-version", self.model.version.encode()))
        if status == 503:
            headers.append((b"retry-after", b"1"))
        elif status == 405:
            headers.append((b"allow", b"POST" if path in self._decode else b"GET"))
        elif status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status in (408, 413):
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        known = path in self._decode or path in self._pages
        self._counts[path if known else "other", status] += 1
        if path in self._decode and status == 200:
            seconds = time.perf_counter() - start
            self._times[bisect_left(_SECONDS, seconds)] += 1
            self._seconds += seconds

    async def _respond(
        self, path: str, scope: Mapping[str, Any], receive: Receive, start: float
    ) -> tuple[int, bytes]:
        headers = dict(scope["headers"])
        if self._bearer and not hmac.compare_digest(
            headers.get(b"authorization", b""), self._bearer
        ):
            return 401, problem("authorization: expected Bearer and the token")
        decode, page = self._decode.get(path), self._pages.get(path)
        if decode is None and page is None:
            return 404, problem(f"path: expected one of {', '.join((*self._decode, *self._pages))}")
        if scope["method"] != ("POST" if decode else "GET"):
            return 405, problem("method: expected POST" if decode else "method: expected GET")
        if page is not None or decode is None:
            return page()
        if headers.get(b"content-type", b"").split(b";")[0].strip().lower() != _JSON:
            return 415, problem("content-type: expected application/json")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.config.max_body_bytes:
            return 413, self._too_large()
        ends = start + self.config.deadline_ms / 1000
        body, more = bytearray(), True
        try:
            async with asyncio.timeout(self.config.deadline_ms / 1000):
                while more:
                    part = await receive()
                    if part["type"] == "http.disconnect":
                        return 400, problem("body: the client has left")
                    body += part.get("body", b"")
                    more = part.get("more_body", False)
                    if len(body) > self.config.max_body_bytes:
                        return 413, self._too_large()
        except TimeoutError:
            return 408, problem("body did not come in time")
        try:
            request = decode(body)
        except msgspec.ValidationError as error:
            return 422, problem(str(error))
        except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or too deep
            return 400, problem(f"body is no JSON: {str(error)[:200]}")
        if len(self._waiting) >= self.config.max_queue:
            return 503, _BUSY
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer, ends))
        self._schedule()
        return await answer

    def _schedule(self) -> None:
        """See to it that what waits is taken: when the loop comes round, or at the window's end."""
        loop, window = asyncio.get_running_loop(), self.config.window_ms / 1000
        if self._next is None:
            self._next = (
                loop.call_later(window, self._take) if window else loop.call_soon(self._take)
            )
        elif window and len(self._waiting) == self.config.max_batch:
            self._next.cancel()
            self._next = loop.call_soon(self._take)

    def _take(self) -> None:
        """Answer a batch with one model, whatever is loaded meanwhile."""
        size, self._next = self.config.max_batch, None
        batch, self._waiting = self._waiting[:size], self._waiting[size:]
        if self._waiting:
            self._next = asyncio.get_running_loop().call_soon(self._take)
        now, self._batches = time.perf_counter(), self._batches + bool(batch)
        for _, answer, ends in batch:
            if ends < now and not answer.done():
                answer.set_result((503, _LATE))
        live = [(request, answer) for request, answer, _ in batch if not answer.done()]
        try:
            found = self.model.answer([request for request, _ in live])
        except Exception as error:  # whatever it is, nobody waits for ever
            _log.error("a batch failed: %s", type(error).__name__)
            found = [(500, problem("the service failed"))] * len(live)
        for (_, answer), result in zip(live, found, strict=True):
            answer.set_result(result)

    async def refresh(self) -> bool:
        """Load the file if it was replaced; return whether a new model answers now."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            model = await asyncio.to_thread(ServedModel, self.path, self.config.num_threads)
        except (OSError, ValueError, TypeError, MemoryError) as error:
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

    async def _other(self, kind: str, receive: Receive, send: Send) -> None:
        await receive()
        if kind != "lifespan":
            await send({"type": "websocket.close", "code": 1003})
            return
        watch = asyncio.create_task(self._watch())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._stopping = True
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
        await send({"type": "lifespan.shutdown.complete"})

    def _too_large(self) -> bytes:
        return problem(f"body is too large: expected at most {self.config.max_body_bytes} bytes")

    def _ready(self) -> tuple[int, bytes]:
        if self._stopping or len(self._waiting) >= self.config.max_queue:
            return 503, _BUSY
        return 200, b'{"status":"ready","model_version":"%s"}' % self.model.version.encode()

    def _openapi(self) -> tuple[int, bytes]:
        return 200, json.dumps(openapi(self.model, self._bearer is not None)).encode()

    def _metrics(self) -> tuple[int, bytes]:
        """Return what was counted, in Prometheus' text format."""
        name, process = "recsys_request_seconds", f'process="{os.getpid()}"'
        lines = ["# TYPE recsys_requests_total counter"]
        for (path, status), count in sorted(self._counts.items()):
            labels = f'path="{path}",status="{status}",{process}'
            lines.append(f"recsys_requests_total{{{labels}}} {count}")
        lines.append(f"# TYPE {name} histogram")
        for limit, count in zip((*_SECONDS, "+Inf"), accumulate(self._times), strict=True):
            lines.append(f'{name}_bucket{{le="{limit}",{process}}} {count}')
        lines.append(f"{name}_sum{{{process}}} {self._seconds:.6f}")
        lines.append(f"{name}_count{{{process}}} {sum(self._times)}")
        version = f'version="{self.model.version}",'
        for kind, name, label, value in (
            ("gauge", "recsys_waiting", "", len(self._waiting)),
            ("gauge", "recsys_model_info", version, 1),
            ("counter", "recsys_batches_total", "", self._batches),
            ("counter", "recsys_models_refused_total", "", self._refused),
        ):
            lines += [f"# TYPE {name} {kind}", f"{name}{{{label}{process}}} {value}"]
        return 200, "\n".join([*lines, ""]).encode()


def check_host(host: str, token: str | None) -> None:
    """Raise ValueError where a service would be open to other machines without a token.

    Example:
        >>> check_host("127.0.0.1", None)
        >>> check_host("0.0.0.0", None)
        Traceback (most recent call last):
        ValueError: host is '0.0.0.0': expected 127.0.0.1, or a token in RECSYS_SERVICE_TOKEN
    """
    try:
        inside = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # another name
        inside = False
    if not inside and token is None:
        what = f"expected 127.0.0.1, or a token in {TOKEN_VARIABLE}"
        raise ValueError(f"host is {host!r}: {what}")


def ray_application(args: Mapping[str, Any]) -> Any:
    """Return the same app for Ray Serve: ``serve run recsys_lib.serving.service:ray_application``.

    Args:
        args: ``model``, the path of a file that each machine can read; ``replicas``, 1 without it;
            ``host``, what Serve's proxies bind to: anything but a loopback address, and none,
            asks for a token; and the fields of :class:`ServiceConfig`.

    Raises:
        ValueError: neither a loopback address nor a token.
    """
    options, token = dict(args), os.environ.get(TOKEN_VARIABLE)
    path, replicas = options.pop("model"), int(options.pop("replicas", 1))
    check_host(str(options.pop("host", "0.0.0.0")), token)
    config = ServiceConfig(**options)
    from ray import serve

    def build() -> Service:
        return Service(path, config, token)

    most = config.max_queue + config.max_batch
    deployment = serve.deployment(serve.ingress(build)())
    return deployment.options(
        name="recommender", num_replicas=replicas, max_ongoing_requests=most
    ).bind()


def from_environment() -> Service:
    """Return the app of one of several processes; the first process tells what it is."""
    settings = json.loads(os.environ[_CONFIG_VARIABLE])
    config = ServiceConfig(**settings["config"])
    return Service(settings["path"], config, os.environ.get(TOKEN_VARIABLE))


def main(arguments: list[str] | None = None) -> None:
    """Serve a compressed file under uvicorn until a signal ends it."""
    import uvicorn

    parser = argparse.ArgumentParser(prog="recsys_lib.serving.service", description=main.__doc__)
    parser.add_argument("model", help="file written by save_compressed")
    about = f"anything but a loopback address needs a token in {TOKEN_VARIABLE}"
    parser.add_argument("--host", default="127.0.0.1", help=about)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1, help="processes; the dead are replaced")
    for name, value in asdict(ServiceConfig()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help="see ServiceConfig")
    options = vars(parser.parse_args(arguments))
    path, host, port, workers = (options.pop(n) for n in ("model", "host", "port", "workers"))
    token = os.environ.get(TOKEN_VARIABLE)
    try:
        check_host(host, token)
        config = ServiceConfig(**options)
        app = Service(path, config, token)  # says what is wrong before a port is bound
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    run = {"host": host, "port": port, "access_log": False, "server_header": False, "ws": "none"}
    run |= {"timeout_graceful_shutdown": 10, "log_level": "info", "log_config": None}
    if workers == 1:
        uvicorn.run(app, **run)
        return
    os.environ[_CONFIG_VARIABLE] = json.dumps({"path": str(path), "config": asdict(config)})
    where = "recsys_lib.serving.service:from_environment"
    uvicorn.run(where, factory=True, workers=workers, **run)


def _stamp(path: Path) -> tuple[int, ...]:
    """Return what changes when a file is replaced; nothing for one that is not there."""
    with suppress(OSError):
        facts = path.stat()
        return facts.st_ino, facts.st_mtime_ns, facts.st_size
    return ()


_BUSY, _LATE = problem("too many requests wait: try again"), problem("not in time: try again")

if __name__ == "__main__":
    main()
