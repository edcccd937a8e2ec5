"""A web server of our own on 127.0.0.1, with every fault that a download can meet."""

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
        answer = self.server.routes.get(self.path)
        if answer is None:
            self.send_error(404)
        elif callable(answer):
            answer(self)
        else:
            self.begin(len(answer), answer)

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
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    for name in ("RECSYS_DATA_MIRROR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def web_server():
    servers = []

    def start(certificate=None):
        servers.append(WebServer(certificate))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def server(web_server):
    return web_server()


@pytest.fixture
def names_in():
    """Return all names of files and folders under a folder."""
    return lambda folder: sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
