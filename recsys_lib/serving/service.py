"""The online service: one ASGI app around a compressed file, alone under uvicorn or in Ray Serve.

Run ``python -m recsys_lib.serving.service MODEL`` and ask ``POST /recommend``; ``/openapi.json``
says what else. A request waits in a bounded queue; whatever waits when the event loop comes round
is answered by one search. A full queue is said at once, with 503 and ``Retry-After``. A file that
takes the place of the model's is loaded while the old one serves on.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from recsys_lib.serving.app import Service, ServiceConfig

TOKEN_VARIABLE = "RECSYS_SERVICE_TOKEN"
_CONFIG_VARIABLE = "RECSYS_SERVICE"  # from the first process to the others


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

    most = {"num_replicas": replicas, "max_ongoing_requests": config.max_queue + config.max_batch}
    return serve.deployment(serve.ingress(build)()).options(name="recommender", **most).bind()


def from_environment() -> Service:
    """Return the app of one of several processes; the first process tells what it is."""
    path, options = json.loads(os.environ[_CONFIG_VARIABLE])
    return Service(path, ServiceConfig(**options), os.environ.get(TOKEN_VARIABLE))


def main(arguments: list[str] | None = None) -> None:
    """Serve a compressed file under uvicorn until a signal ends it.

    On any host but a loopback address with a token in RECSYS_SERVICE_TOKEN only.
    """
    import uvicorn

    parser = argparse.ArgumentParser(prog="recsys_lib.serving.service", description=main.__doc__)
    parser.add_argument("model", help="file written by save_compressed")
    parser.add_argument("--host", default="127.0.0.1", help="others ask for a token, see above")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--workers", type=int, default=1, help="processes; the dead are replaced")
    for name, value in asdict(ServiceConfig()).items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=type(value), default=value, help="see ServiceConfig")
    options, token = vars(parser.parse_args(arguments)), os.environ.get(TOKEN_VARIABLE)
    path, host, port, workers = (options.pop(n) for n in ("model", "host", "port", "workers"))
    app: Any = f"{__spec__.name}:from_environment"  # of each process, where there are several
    try:
        check_host(host, token)
        first = Service(path, ServiceConfig(**options), token)  # or says what is wrong
    except (OSError, TypeError, ValueError) as error:
        parser.error(str(error))
    os.environ[_CONFIG_VARIABLE] = json.dumps([path, options])
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    uvicorn.run(
        app if workers > 1 else first, factory=workers > 1, workers=workers, host=host, port=port,
        access_log=False, server_header=False, ws="none", timeout_graceful_shutdown=10,
        log_config=None,
    )  # fmt: skip


if __name__ == "__main__":
    main()
