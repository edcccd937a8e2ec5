"""Files as tests write them; a web server of our own, with every fault of a download."""

import gzip
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys_lib.data import download

CERTIFICATES = Path(__file__).parent / "certificates"


class WebServer(ThreadingHTTPServer):
    """Serves ``routes``: path to bytes, or to a function that gets the request handler."""

    def __init__(self, certificate=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes, self.requests = {}, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATES / certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
            self.url = self.url.replace("http", "https")
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, *args):
        pass  # clients that hang up are what these tests are about


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests.append(self.path)
        answer = self.server.routes.get(self.path, lambda handler: handler.send_error(404))
        if isinstance(answer, bytes):
            self.begin(len(answer), answer)
        else:
            answer(self)

    def begin(self, length, content):
        """Promise so many bytes, and send these."""
        self.send_response(200)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def _nothing_remembered(monkeypatch):
    """No proxy, no mirror, no certificate of our own, no host given up by an earlier test."""
    monkeypatch.setattr(download, "_unreachable", {})
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("RECSYS_DATA_MIRROR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server(request):
    """Run a server; with a certificate, if the test is parametrized with its name."""
    with WebServer(getattr(request, "param", None)) as server:
        yield server
        server.shutdown()


@pytest.fixture
def names_in():
    """Return all names of files and folders under a folder."""
    return lambda folder: sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def write(tmp_path):
    """Write a text, packed if the name of the file ends so, or bytes as they are."""

    def write(content, name, encoding="utf-8"):
        if isinstance(content, str):
            content = content.encode(encoding)
            content = gzip.compress(content) if name.endswith(".gz") else content
        (tmp_path / name).write_bytes(content)
        return tmp_path / name

    return write
