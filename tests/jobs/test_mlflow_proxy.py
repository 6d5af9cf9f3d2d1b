"""What the way to MLflow passes on, and what not: an MLflow that only tells what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx2
import pytest

from emulator.settings import Settings
from emulator.testing import running_server

PATH = "/_emulator/mlflow"


class Told(ThreadingHTTPServer):
    """Answers 200, and keeps the headers of the last request."""

    headers: dict[str, str]


class _Handler(BaseHTTPRequestHandler):
    server: Told

    def do_GET(self) -> None:
        self.server.headers = {name.lower(): value for name, value in self.headers.items()}
        self.send_response(200)
        self.send_header("set-cookie", "of=mlflow")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Silent."""


@pytest.fixture
def told() -> Iterator[Told]:
    with Told(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_mlflow_learns_who_asks_but_not_with_which_cookies(told: Told) -> None:
    settings = Settings(port=0, durability="memory", mlflow=f"http://127.0.0.1:{told.server_port}")
    with running_server(settings) as server:
        url = f"{server.url}{PATH}/ajax-api/3.0/mlflow/assistant/config"
        answer = httpx2.get(url, headers={"cookie": "jupyter=secret"})
        assert answer.status_code == 200
        assert told.headers["x-forwarded-for"] == "127.0.0.1"
        httpx2.get(url, headers={"x-forwarded-for": "::1"})
        assert told.headers["x-forwarded-for"] == "::1, 127.0.0.1"
    assert "cookie" not in told.headers
    assert "set-cookie" not in answer.headers
