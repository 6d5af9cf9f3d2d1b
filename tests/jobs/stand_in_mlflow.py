"""An MLflow that behaves badly where a test wants it to: what the real one will not do when asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_API = "/api/2.0/mlflow/"
_ANSWERS: dict[str, Any] = {
    f"{_API}experiments/get-by-name": {"experiment": {"experiment_id": "1"}},
    f"{_API}runs/create": {"run": {"info": {"run_id": "r", "run_name": "n"}}},
}

#: A status, the body, and headers.
Answer = tuple[int, str, Mapping[str, str]]


class StandIn(ThreadingHTTPServer):
    """Answers as MLflow would, but for the paths in `instead`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.ended = threading.Event()
        self.instead: dict[str, Answer] = {}
        self.asked: list[tuple[str, Any]] = []  # paths and documents
        self.slow: dict[str, float] = {}  # seconds that a path takes
        self.headers: dict[str, str] = {}  # of the last request

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_port}"

    def told(self, path: str) -> list[Any]:
        """The documents that came to a path of the REST interface."""
        return [document for asked, document in self.asked if asked == _API + path]


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        self.server.asked.append((path, json.loads(body or b"null")))
        self.server.headers = {name.lower(): value for name, value in self.headers.items()}
        default: Answer = (200, json.dumps(_ANSWERS.get(path, {})), {})
        status, text, headers = self.server.instead.get(path) or self.server.instead.get("") or default
        if self.server.ended.wait(self.server.slow.get(path, 0)):
            return
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(text))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET  # noqa: N815  # as its base class has it

    def log_message(self, *_: Any) -> None:
        """Silent."""


@contextmanager
def standing_in() -> Iterator[StandIn]:
    """One that serves."""
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()
            thread.join()
