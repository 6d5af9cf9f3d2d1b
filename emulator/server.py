"""Running the application on a socket, from the first line printed to the last commit."""

from __future__ import annotations

import json
import logging
import math
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from emulator.app import App
from emulator.connection import Connection
from emulator.settings import Settings

log = logging.getLogger(__name__)

#: Longer than any client's: who closes an idle connection first should be the client, lest a request meets the close.
KEEP_ALIVE = 3600


class CannotListen(Exception):
    """The address cannot be listened on; the message is one line that says why and what to do."""


def listen(settings: Settings) -> socket.socket:
    """A listening socket. Raises CannotListen."""
    try:
        family, *_ = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        sock = socket.create_server((settings.host, settings.port), family=family, backlog=2048)
        # Connections inherit it. asyncio sets it only on sockets that name their protocol, which this one does not:
        # head and body of an answer, written one after the other, would cost a client 40 ms of delayed ACK.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        is_name = isinstance(error, socket.gaierror | UnicodeError)
        advice = "--host names an address of this machine" if is_name else "--port names another (0 picks a free one)"
        raise CannotListen(f"cannot listen on {settings.host}:{settings.port}: {why}; {advice}") from None


def base_url(sock: socket.socket) -> str:
    """The address of a listening socket as clients write it."""
    host, port = sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{host}:{port}"


class Server:
    """One emulator on one socket."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSetting, CannotListen."""
        self.app = App(settings)
        self._socket = listen(settings)
        self.url = base_url(self._socket)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=math.ceil(settings.shutdown_timeout),
                backlog=2048,
            )
        )

    async def serve(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, SIGINT or SIGTERM; `started` is called when requests can come.

        Raises DatabaseError, ModelServerError when it cannot start.
        """
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        try:
            if threading.current_thread() is threading.main_thread():
                # uvicorn raises the signal that ended it once more. These take that one, so that there is time left
                # to end the model server and commit what is waiting.
                signal.signal(signal.SIGINT, self._on_signal)
                signal.signal(signal.SIGTERM, self._on_signal)
            await self.app.start()
            started()
            try:
                await self._uvicorn.serve(sockets=[self._socket])
            finally:
                await self.app.aclose()
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Stop serving: no new requests, and those that are open get `--shutdown-timeout` to finish."""
        self._uvicorn.should_exit = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says what the endpoint has not said: a broken stream ends without a last message."""
    return "returned without completing response" not in record.getMessage()


class _JSONFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure_logging(settings: Settings) -> None:
    """Log lines go to standard error, as text or JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        _JSONFormatter()
        if settings.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%H:%M:%S")
    )
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for noisy in ("uvicorn.error", "aiosqlite", "asyncio", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
