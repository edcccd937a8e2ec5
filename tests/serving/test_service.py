"""The service: right answers, refused requests, and what happens to it while it serves."""

import asyncio
import gc
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings

pytest.importorskip("msgspec")
httpx = pytest.importorskip("httpx")

from recsys_lib.compression import load_compressed, save_compressed  # noqa: E402
from recsys_lib.files import write_file  # noqa: E402
from recsys_lib.models import Factors  # noqa: E402
from recsys_lib.models.factors import FoldIn  # noqa: E402
from recsys_lib.serving import TopKIndex  # noqa: E402
from recsys_lib.serving import service as module  # noqa: E402
from recsys_lib.serving.service import Service, ServiceConfig, check_host, main  # noqa: E402

NUM_USERS, NUM_ITEMS = 40, 120
TOKEN = "a token of some length"
NO_ANSWER = (OSError, http.client.HTTPException)
PAGES = [("GET", path, None) for path in ("/health", "/ready", "/metrics", "/openapi.json")]


def make_factors(seed=0, **options):
    rng = np.random.default_rng(seed)
    items, users = (rng.normal(size=(n, 8)).astype(np.float32) for n in (NUM_ITEMS, NUM_USERS))
    return Factors(items, users, FoldIn(0.01, 0.1), **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Three files: two versions of a self-contained model, and one of items only."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("first", 0), ("second", 1)):
        save_compressed(folder / name, make_factors(seed))
    save_compressed(folder / "items", make_factors(0), account="items")
    return folder


@pytest.fixture(scope="module")
def app(files):
    return Service(files / "first")


def ask(app, *requests, headers=None):
    """Send requests (method, path, body), all at once, and return the answers."""

    async def one(client, method, path, body):
        content = body if isinstance(body, bytes | None) else json.dumps(body)
        kind = {} if body is None else {"content-type": "application/json"}
        return await client.request(method, path, content=content, headers=kind | (headers or {}))

    async def send():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await asyncio.gather(*(one(client, *request) for request in requests))

    return asyncio.run(send())


def recommend(app, **body):
    return ask(app, ("POST", "/recommend", body))[0]


def users(*ids):
    return [("POST", "/recommend", {"user_id": user}) for user in ids]


def version_of(path):
    return path.read_bytes()[-32:-24].hex()


def refusals(metrics):
    """Return how many files were refused."""
    return int(metrics.decode().rstrip().rsplit(" ", 1)[1])


def replace(path, source):
    """Put another file in a file's place in one step, as save_compressed does."""
    shutil.copy(source, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@pytest.mark.parametrize("mean", [0.0, 3.5])
@pytest.mark.parametrize("account", ["self-contained", "items"])
def test_answers_are_those_of_the_index(tmp_path, account, mean):
    factors = make_factors(global_mean=mean)
    save_compressed(tmp_path / "model", factors, account=account)
    app = Service(tmp_path / "model")
    index, items = TopKIndex(factors.item_vectors), [5, 9, 9, 40]
    asked, query = {"items": items}, factors.fold_in([items])[0]
    left_out = items
    if account == "self-contained":
        asked, query, left_out = {"user_id": 7}, factors.user_vectors[7], []
    for k, exclude in ((1, []), (10, []), (10, [0, 1, 2]), (500, [3])):
        answer = recommend(app, **asked, k=k, exclude=exclude).json()
        found = index.search(query, k, exclude=[left_out + exclude])
        left = found.item_ids[0] >= 0
        assert answer["item_ids"] == found.item_ids[0][left].tolist()
        np.testing.assert_allclose(answer["scores"], found.scores[0][left] + mean, rtol=1e-5)
        assert answer["model_version"] == app.model.version
    some = answer["item_ids"][:7]
    scores = ask(app, ("POST", "/score", asked | {"item_ids": some}))[0].json()["scores"]
    np.testing.assert_allclose(scores, answer["scores"][:7], rtol=1e-6)


def test_requests_that_are_answered_together_get_what_each_gets_alone(app):
    asked = [{"user_id": n % NUM_USERS, "k": 1 + n % 4} for n in range(40)]
    asked += [{"items": [n, n + 1], "exclude": [n + 2]} for n in range(10)]
    asked += [{"user_id": 10**6}, {"items": [10**6]}]
    together = ask(app, *(("POST", "/recommend", body) for body in asked))
    for body, answer in zip(asked, together, strict=True):
        alone = recommend(app, **body)
        assert (answer.status_code, answer.content) == (alone.status_code, alone.content)
    assert together[0].status_code == 200 and together[-1].status_code == 422


def test_the_version_and_counts_in_the_format_of_prometheus(files):
    parser = pytest.importorskip("prometheus_client.parser")
    app = Service(files / "first")
    answers = ask(app, *users(0, 1, 2, "x"), ("GET", "/a/b", None), PAGES[0])
    assert {answer.headers["x-model-version"] for answer in answers} == {version_of(app.path)}
    text = ask(app, ("GET", "/metrics", None))[0].text
    samples = [s for f in parser.text_string_to_metric_families(text) for s in f.samples]
    counted = {s.labels["path"] + " " + s.labels["status"]: s.value
               for s in samples if s.name == "recsys_requests_total"}  # fmt: skip
    assert counted == {"/recommend 200": 3, "/recommend 422": 1, "other 404": 1, "/health 200": 1}
    values = {s.name: s.value for s in samples}
    assert values["recsys_request_seconds_count"] == 3
    assert values["recsys_request_seconds_bucket"] == 3  # the last one: all


BAD = {
    "no JSON": (b"{", 400, "body"),
    "no UTF-8": (b'{"\xff": 1}', 400, "body"),
    "empty": (b"", 400, "body"),
    "NaN": (b'{"user_id": NaN}', 400, "body"),
    "deep": (b'{"items": ' + b"[" * 100_000, 422, "items"),
    "deep and unknown": (b'{"a": ' + b"[" * 100_000, 422, "`a`"),
    "huge": (b'{"items": [' + b"1," * 200_000 + b"1]}", 413, "body"),
    "an array": (b"[]", 422, "object"),
    "text": ({"user_id": "1"}, 422, "user_id"),
    "true": ({"user_id": True}, 422, "user_id"),
    "a fraction": ({"user_id": 1.5}, 422, "user_id"),
    "negative": ({"user_id": -1}, 422, "user_id"),
    "too large to be an integer": (b'{"user_id": 1e400}', 422, "user_id"),
    "many digits": (b'{"user_id": ' + b"9" * 5000 + b"}", 422, "user_id"),
    "unknown user": ({"user_id": NUM_USERS}, 422, "user_id"),
    "unknown item": ({"items": [0, NUM_ITEMS]}, 422, "items"),
    "unknown item to leave out": ({"user_id": 1, "exclude": [NUM_ITEMS]}, 422, "exclude"),
    "unknown item to score": ({"user_id": 1, "item_ids": [NUM_ITEMS]}, 422, "item_ids"),
    "no items": ({"items": []}, 422, "items"),
    "too many items": ({"items": [*range(NUM_ITEMS)] * 9}, 422, "items"),
    "both": ({"user_id": 1, "items": [1]}, 422, "user_id"),
    "none": ({}, 422, "items"),
    "k too large": ({"user_id": 1, "k": 501}, 422, "k"),
    "unknown field": ({"user_id": 1, "size": 3}, 422, "size"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bodies_are_refused_by_the_name_of_the_field(app, name):
    body, status, field = BAD[name]
    answer = ask(app, ("POST", "/score" if field == "item_ids" else "/recommend", body))[0]
    assert answer.status_code == status
    assert field in answer.json()["error"] and len(answer.content) < 400
    assert "Traceback" not in answer.text
    assert recommend(app, user_id=1).status_code == 200


def test_a_file_without_users_or_without_fold_in_says_so(files, tmp_path):
    factors = make_factors()
    save_compressed(tmp_path / "model", Factors(factors.item_vectors, factors.user_vectors))
    asked = (files / "items", {"user_id": 1}), (tmp_path / "model", {"items": [1]})
    for path, body in asked:
        answer = recommend(Service(path), **body)
        assert answer.status_code == 422 and min(body) in answer.json()["error"]


def test_other_paths_methods_and_types(app):
    asked = [("GET", "/recommend", None), ("POST", "/health", {}), ("GET", "/", None)]
    answers = ask(app, *asked, ("DELETE", "/metrics", None))
    found = [(answer.status_code, answer.headers.get("allow")) for answer in answers]
    assert found == [(405, "POST"), (405, "GET"), (404, None), (405, "GET")]
    text = {"content-type": "text/plain"}  # what any page in a browser may send unasked
    assert ask(app, *users(1), headers=text)[0].status_code == 415


def test_with_a_token_nothing_answers_without_it(files):
    app = Service(files / "first", token=TOKEN)
    for wrong in ({}, {"authorization": TOKEN}, {"authorization": f"Bearer {TOKEN}x"}):
        assert {a.status_code for a in ask(app, *users(1), *PAGES, headers=wrong)} == {401}
    answers = ask(app, *users(1), *PAGES, headers={"authorization": f"Bearer {TOKEN}"})
    assert {answer.status_code for answer in answers} == {200}
    assert answers[-1].json()["security"] == [{"token": []}]
    with pytest.raises(ValueError, match="token"):
        Service(files / "first", token="short")
    for this_machine in ("127.0.0.1", "localhost", "::1", "127.1.2.3"):
        check_host(this_machine, None)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", ""])
def test_other_machines_are_let_in_with_a_token_only(host, files, monkeypatch, capsys):
    monkeypatch.delenv(module.TOKEN_VARIABLE, raising=False)
    with pytest.raises(ValueError, match="host"):
        check_host(host, None)
    check_host(host, TOKEN)
    with pytest.raises(SystemExit):
        main([str(files / "first"), "--host", host])
    assert "token" in capsys.readouterr().err
    with pytest.raises(ValueError, match="host"):
        module.ray_application({"model": str(files / "first"), "host": host})


def test_a_file_that_is_no_model_is_refused_at_the_start(files, tmp_path, capsys):
    damaged = bytearray((files / "first").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    write_file(tmp_path / "other", "TopKIndex", {}, {"item_vectors": np.eye(3)})
    for name in ("damaged", "other", "none"):
        with pytest.raises(SystemExit):
            main([str(tmp_path / name)])
        assert name in capsys.readouterr().err


def test_more_than_the_queue_holds_is_refused_at_once(files):
    app = Service(files / "first", ServiceConfig(max_queue=3, window_ms=20))
    answers = ask(app, *users(*range(10)), ("GET", "/ready", None), ("GET", "/health", None))
    status = [answer.status_code for answer in answers]
    assert status[:10].count(200) == 3 and status[:10].count(503) == 7
    assert status[10:] == [503, 200]  # alive, but not ready
    assert all(a.headers["retry-after"] == "1" for a in answers if a.status_code == 503)
    assert {answer.status_code for answer in ask(app, *users(0, 1, 2))} == {200}


def test_a_window_gathers_a_batch_and_a_full_batch_does_not_wait(files, monkeypatch):
    app = Service(files / "first", ServiceConfig(window_ms=500, max_batch=4, deadline_ms=9000))
    sizes, answer = [], app.model.answer
    noting = lambda asked: sizes.append(len(asked)) or answer(asked)  # noqa: E731
    monkeypatch.setattr(app.model, "answer", noting)
    start = time.perf_counter()
    ask(app, *users(*range(8)))
    assert sizes == [4, 4] and time.perf_counter() - start < 0.5
    start = time.perf_counter()
    ask(app, *users(0, 1))
    assert sizes == [4, 4, 2] and time.perf_counter() - start > 0.45


def test_nobody_waits_for_longer_than_the_deadline(files):
    app = Service(files / "first", ServiceConfig(deadline_ms=1, window_ms=50))
    answer = recommend(app, user_id=1)
    assert answer.status_code == 503 and "time" in answer.json()["error"]
    assert answer.headers["retry-after"] == "1"
    app, sent = Service(files / "first", ServiceConfig(deadline_ms=30)), []
    headers = [(b"content-type", b"application/json"), (b"content-length", b"5")]
    scope = {"type": "http", "method": "POST", "path": "/recommend", "headers": headers}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, lambda: asyncio.sleep(60), send))  # a body that does not come
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]


def test_a_fault_in_the_model_reaches_nobody_as_a_traceback(files, monkeypatch, caplog):
    app = Service(files / "first")
    monkeypatch.setattr(app.model, "answer", lambda asked: asked[999])
    answer = recommend(app, user_id=17)
    assert answer.status_code == 500 and set(answer.json()) == {"error"}
    assert "IndexError" in caplog.text and "17" not in caplog.text


def test_a_swapped_file_serves_and_a_damaged_one_does_not(files, tmp_path):
    path = tmp_path / "model"
    shutil.copy(files / "first", path)
    app = Service(path)
    first = app.model.version
    assert asyncio.run(app.refresh()) is False
    replace(path, files / "second")
    assert asyncio.run(app.refresh()) is True
    second = app.model.version
    assert second != first == version_of(files / "first")
    path.write_bytes(path.read_bytes()[:-40])
    assert asyncio.run(app.refresh()) is False
    path.unlink()
    assert asyncio.run(app.refresh()) is False
    assert app.model.version == second and recommend(app, user_id=1).status_code == 200
    assert refusals(ask(app, ("GET", "/metrics", None))[0].content) == 2
    replace(path, files / "first")
    assert asyncio.run(app.refresh()) is True and app.model.version == first


@pytest.mark.parametrize("account", ["first", "items"])
def test_no_request_that_the_schema_allows_or_forbids_is_a_server_error(files, account):
    fuzz(Service(files / account), examples=12)


@pytest.mark.slow
def test_much_fuzzing_leaves_memory_as_it_was(files, growth):
    app = Service(files / "first")
    fuzz(app, examples=100)

    def requests():
        for _ in range(15):
            ask(app, *users(*range(NUM_USERS)))

    assert growth(requests)[0] < 5


def fuzz(app, examples):
    schemathesis = pytest.importorskip("schemathesis")
    modes, calm = schemathesis.GenerationMode, {"deadline": None, "database": None}
    calm |= {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}
    for result in schemathesis.openapi.from_asgi("/openapi.json", app).get_all_operations():
        operation = result.ok()
        for mode in modes if operation.method == "post" else [modes.POSITIVE]:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=examples if operation.method == "post" else 3, **calm)
            def check(case):
                case.body = without_points(case.body)
                case.call_and_validate()

            check()


def without_points(value):
    """Write 3.0, which is an integer to JSON Schema but not to the service, as 3."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [without_points(one) for one in value]
    if isinstance(value, dict):
        return {name: without_points(one) for name, one in value.items()}
    return value


def fetch(port, body=None, path="/recommend"):
    """Send one request over a connection of its own; return status and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        content = None if body is None else json.dumps(body)
        kind = {"Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, content, kind)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def running(path, *options):
    """Run the service as a process of its own until it is ready; end it, and see that it ended."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "recsys_lib.serving.service", str(path), "--port", str(port)]
    command, pipe = [*command, *map(str, options)], subprocess.PIPE
    process = subprocess.Popen(command, stderr=pipe, start_new_session=True, text=True)
    try:
        until(lambda: fetch(port, path="/ready")[0] == 200)
        yield process, port
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        finally:
            with suppress(ProcessLookupError):  # as it should be
                os.killpg(process.pid, signal.SIGKILL)


def until(what, seconds=60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(*NO_ANSWER):
            if what():
                return
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


@contextmanager
def load(port, count, retries=0):
    """Ask for users in turn, over new connections, from threads; yield a growing list of each.

    It holds user, status and body of each answer, and None for none.
    """
    stop, kept = threading.Event(), [[] for _ in range(count)]

    def ask_on(answers):
        for user in itertools.cycle(range(NUM_USERS)):
            for _ in range(retries + 1):
                if stop.is_set():
                    return
                try:
                    answers.append((user, *fetch(port, {"user_id": user, "k": 5})))
                    break
                except NO_ANSWER:
                    time.sleep(0.02)
            else:
                answers.append(None)

    with ThreadPoolExecutor(count) as pool:
        done = pool.map(ask_on, kept)
        try:
            yield kept
        finally:
            stop.set()
        list(done)  # raises what they raised


@pytest.mark.alone
@pytest.mark.slow
def test_a_process_serves_swaps_under_load_and_stops(files, tmp_path):
    path = tmp_path / "model"
    shutil.copy(files / "first", path)
    right = {}
    for name in ("first", "second"):
        factors = load_compressed(files / name)
        index = TopKIndex(factors.item_vectors)
        right[version_of(files / name)] = index.search(factors.user_vectors, 5).item_ids
    first, second = right
    with running(path, "--watch-seconds", 0.05) as (process, port):

        def serves(version):
            return json.loads(fetch(port, {"user_id": 0})[1])["model_version"] == version

        with load(port, 2) as kept:
            until(lambda: len(kept[0]) > 20)
            replace(path, files / "second")
            until(lambda: serves(second))
            path.write_bytes(b"no model")
            until(lambda: refusals(fetch(port, path="/metrics")[1]) == 1)
            until(lambda: len(kept[0]) > 60)
            assert serves(second)
            replace(path, files / "first")
            until(lambda: serves(first))
        seen = set()
        for user, status, body in (answer for answers in kept for answer in answers):
            answer = json.loads(body)
            seen.add(answer["model_version"])
            assert status == 200
            assert answer["item_ids"] == right[answer["model_version"]][user].tolist()
        assert seen == set(right)
    assert process.returncode in (0, -signal.SIGTERM)
    with pytest.raises(NO_ANSWER):
        fetch(port, {"user_id": 0})


@pytest.mark.alone
@pytest.mark.slow
def test_one_of_two_processes_is_killed_under_load(files):
    def pids(port):
        texts = (fetch(port, path="/metrics")[1].decode() for _ in range(20))
        return {int(re.search(r'recsys_waiting{process="(\d+)"', text)[1]) for text in texts}

    with running(files / "first", "--workers", 2) as (_, port):
        until(lambda: len(pids(port)) == 2)
        before = pids(port)
        with load(port, 3, retries=0) as once, load(port, 2, retries=3) as again:
            until(lambda: len(once[0]) > 20)
            os.kill(min(before), signal.SIGKILL)
            until(lambda: len(pids(port) - before) == 1)
            count = len(once[0])
            until(lambda: len(once[0]) > count + 20)
        assert all(answer and answer[1] == 200 for answers in again for answer in answers)
        assert all(answers.count(None) <= 1 for answers in once)  # what was under way
        assert {answer[1] for answers in once for answer in answers if answer} == {200}


@pytest.mark.slow
def test_a_service_needs_no_tensorflow(files):
    code = (
        "import sys; from recsys_lib.serving.service import Service; "
        f"Service({str(files / 'first')!r}); "
        "print({'tensorflow', 'keras', 'ray', 'matplotlib'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


def test_what_was_imported_is_not_searched_for_garbage_while_it_serves(files):
    """Such a search stopped every request for 100 ms and more, once a second under load."""
    sent = []

    async def receive():
        return {"type": f"lifespan.{'shutdown' if sent else 'startup'}"}

    async def send(message):
        sent.append((message["type"], gc.get_freeze_count()))

    try:
        asyncio.run(Service(files / "first")({"type": "lifespan"}, receive, send))
        assert sent[0][0] == "lifespan.startup.complete" and sent[0][1] > 10_000
    finally:
        gc.unfreeze()
