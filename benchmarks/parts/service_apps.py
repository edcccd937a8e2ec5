"""Serve one of the applications of benchmarks/service.py: ``service_apps.py NAME MODEL PORT``.

All run under the same uvicorn with the same options. "constant" ones send back one answer of the
usual length; what a framework does to a body on its way (read it, check it) they do as well, and
only the recommendation is left out.
"""

import json
import sys
from typing import Annotated, Any

import uvicorn

from recsys_lib.serving.answers import RecommendRequest, ServedModel
from recsys_lib.serving.service import Service, ServiceConfig, ray_application

ANSWER = {
    "item_ids": list(range(100, 110)),
    "scores": [round(0.1234567890123456 * n, 16) for n in range(1, 11)],
    "model_version": "0123456789abcdef",
}
BODY = json.dumps(ANSWER, separators=(",", ":")).encode()


def bare(model: str) -> Any:
    """The least that an ASGI application can do: it does not even read the body."""
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(BODY))]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": BODY})

    return app


def ours(model: str, **options: Any) -> Any:
    return Service(model, ServiceConfig(**options))


def ours_constant(model: str) -> Any:
    """The same application; the model's place is taken by one that always says the same."""
    service = Service(model)

    class Constant:
        version = service.model.version

        def answer(self, requests: list[Any]) -> list[tuple[int, bytes]]:
            return [(200, BODY)] * len(requests)

    service.model = Constant()
    return service


def starlette(model: str, constant: bool = True) -> Any:
    import msgspec
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    decode, served = msgspec.json.Decoder(RecommendRequest).decode, ServedModel(model)

    async def recommend(request: Any) -> Response:
        asked = decode(await request.body())
        body = BODY if constant else served.answer([asked])[0][1]
        return Response(body, media_type="application/json")

    ready = Route("/ready", lambda request: Response("{}"))
    return Starlette(routes=[Route("/recommend", recommend, methods=["POST"]), ready])


def litestar(model: str, constant: bool = True) -> Any:
    from litestar import Litestar, Response, get, post

    served = ServedModel(model)

    @post("/recommend", status_code=200)
    async def recommend(data: RecommendRequest) -> Response[bytes]:
        body = BODY if constant else served.answer([data])[0][1]
        return Response(body, media_type="application/json")

    @get("/ready")
    async def ready() -> str:
        return ""

    return Litestar([recommend, ready], openapi_config=None)


def fastapi(model: str, constant: bool = False) -> Any:
    from fastapi import FastAPI
    from pydantic import BaseModel, Field

    served = ServedModel(model)
    row = Annotated[int, Field(ge=0, lt=2**31)]

    class Asked(BaseModel):
        user_id: row | None = None
        items: Annotated[list[row], Field(min_length=1, max_length=1000)] | None = None
        k: Annotated[int, Field(ge=1, le=500)] = 10
        exclude: Annotated[list[row], Field(max_length=10_000)] = []

    class Answered(BaseModel):
        item_ids: list[int]
        scores: list[float]
        model_version: str

    app = FastAPI()

    @app.post("/recommend")
    async def recommend(asked: Asked) -> Answered:
        if constant:
            return Answered(**ANSWER)
        found = served.index.search(served.factors.user_vectors[asked.user_id], asked.k)
        ids, scores = found.item_ids[0].tolist(), found.scores[0].tolist()
        return Answered(item_ids=ids, scores=scores, model_version=served.version)

    @app.get("/ready")
    async def ready() -> str:
        return ""

    return app


APPS = {
    "bare constant": bare,
    "service": ours,
    "service, constant": ours_constant,
    "service, 2 processes": ours,
    "service, window": lambda model: ours(model, window_ms=2),
    "Starlette and msgspec": lambda model: starlette(model, constant=False),
    "Starlette and msgspec, constant": starlette,
    "Litestar": lambda model: litestar(model, constant=False),
    "Litestar, constant": litestar,
    "FastAPI": fastapi,
    "FastAPI, constant": lambda model: fastapi(model, constant=True),
}


def serve_with_ray(model: str, port: int, replicas: int) -> None:
    """Serve the app with Ray, on this machine alone, until a line comes in or input ends."""
    import ray
    from ray import serve

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(ray_application({"model": model, "host": "127.0.0.1", "replicas": replicas}))
    sys.stdin.readline()
    serve.shutdown()
    ray.shutdown()


def main() -> None:
    name, model, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if name.startswith("Ray Serve"):
        serve_with_ray(model, port, 2 if "2 replicas" in name else 1)
        return
    options = {"host": "127.0.0.1", "port": port, "access_log": False, "server_header": False}
    uvicorn.run(APPS[name](model), log_level="error", ws="none", **options)


if __name__ == "__main__":
    main()
