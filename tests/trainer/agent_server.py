"""A server of agents, in a thread: of rollouts, of AgentCore's invocations, of Lambda's; it keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Do = Callable[[dict[str, Any]], Any]


@dataclass(slots=True)
class AgentServer:
    """A running server: where, and what it was asked."""

    url: str
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = field(default_factory=list)
    looked: list[str] = field(default_factory=list)  #: paths of GET
    unready: int = 0  #: so many looks are answered with 503 first


class Silence(Exception):
    """Raised by an agent: its connection ends without an answer."""


class Answer(Exception):
    """Raised by an agent: what its server shall answer."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body


@contextmanager
def agent_server(do: Do) -> Iterator[AgentServer]:
    """Calls `do` with each rollout request, in a thread of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.looked.append(self.path)
            if len(server.looked) <= server.unready:
                self._answer(503, b"loading")
            else:
                self._answer(200, b'{"status": "healthy"}')

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}, body))
            try:
                self._answer(200, json.dumps(do(body)).encode())
            except Answer as answer:
                self._answer(answer.status, answer.body)
            except Silence:
                return
            except Exception as error:
                self._answer(500, json.dumps({"error": str(error)}).encode())

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Not to standard error."""

    class Listening(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 256

        def handle_error(self, *_: object) -> None:
            """A client that has left is no error of this server's."""

    with Listening(("127.0.0.1", 0), Handler) as listening:
        server = AgentServer(f"http://127.0.0.1:{listening.server_port}")
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
