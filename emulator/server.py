"""Running the application on a socket, from the first line printed to the last commit."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import uvicorn

from emulator.app import App
from emulator.connection import Connection
from emulator.settings import Settings

log = logging.getLogger(__name__)

#: Longer than any client's: who closes an idle connection first should be the client, lest a request meets the close.
KEEP_ALIVE = 3600

#: Seconds between two looks of uvicorn's at what there is to do.
TICK = 0.1

#: Seconds that connections get, at the least, to carry away what was written to them.
FLUSH = 1


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


class _Uvicorn(uvicorn.Server):
    """uvicorn, less its signal handlers, which would end it before open streams have ended."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._told = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to `Server`."""
        yield

    def exit(self) -> None:
        """Let go of the socket and the connections, now rather than at uvicorn's next look."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """As uvicorn's, but for the end."""
        counter = 0
        while not await self.on_tick(counter):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), TICK)
            counter = (counter + 1) % 864_000

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:  # noqa: ARG002  # theirs is `Server`
        """As uvicorn's, which looks only each tenth of a second whether the connections are gone: most are at once."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        pause = TICK / 128
        with suppress(TimeoutError):
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections and not self.force_exit:
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, TICK)


class Server:
    """One emulator on one socket."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSetting, CannotListen."""
        self._shutdown_timeout = settings.shutdown_timeout
        self._socket = listen(settings)
        self.url = base_url(self._socket)
        try:
            self.app = App(settings, self.url)
        except BaseException:
            self._socket.close()
            raise
        self._uvicorn = _Uvicorn(
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
                backlog=2048,
            )
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def serve(self, started: Callable[[], None] = lambda: None, *, until_signal: bool = True) -> None:
        """Serve until `stop`, SIGINT or SIGTERM; `started` is called when requests can come.

        Not `until_signal`: they are somebody else's. Raises DatabaseError, ModelServerError when it cannot start.
        """
        self._loop = asyncio.get_running_loop()
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        try:
            if until_signal and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, self._on_signal)
                signal.signal(signal.SIGTERM, self._on_signal)
            await self.app.start()
            started()
            winding_down = asyncio.create_task(self._wind_down())
            try:
                await self._uvicorn.serve(sockets=[self._socket])
            finally:
                winding_down.cancel()
                await self.app.abort()  # what came after everything else had ended
                await self.app.aclose()
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Take no new samples, let what is under way end within `--shutdown-timeout`, and stop. From any thread."""
        self._set(self._stop)

    def stop_at_once(self) -> None:
        """Stop, and break off what is under way; what was acknowledged is committed all the same. From any thread."""
        self._set(self._stop)
        self._set(self._hurry)

    def _set(self, event: asyncio.Event) -> None:
        if self._loop is None:
            event.set()
            return
        with suppress(RuntimeError):  # the event loop has ended, and the server with it
            self._loop.call_soon_threadsafe(event.set)

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._stop.is_set():
            self.stop_at_once()
        else:
            self.stop()

    async def _wind_down(self) -> None:
        """When told to stop: let requests end, then let go of the socket and the connections.

        Until the last has ended, the socket is open: a sample that arrives then gets an answer that says why not, and
        whoever asks for the health hears that the server is stopping.
        """
        await self._stop.wait()
        time = asyncio.get_running_loop().time
        deadline = time() + self._shutdown_timeout
        self.app.refuse_samples()
        try:
            if self.app.open_requests:
                log.info("stopping: requests under way have %g s (--shutdown-timeout)", self._shutdown_timeout)
                if not await self._drained(deadline):
                    log.warning("stopping: %d requests under way are broken off", self.app.open_requests)
                    await self.app.abort()
        finally:
            self._uvicorn.config.timeout_graceful_shutdown = max(FLUSH, math.ceil(deadline - time()))
            self._uvicorn.exit()
        await self._hurry.wait()
        self._uvicorn.force_exit = True

    async def _drained(self, deadline: float) -> bool:
        """Wait until what is under way has ended; False if the deadline, or a second signal, came first."""
        drained = asyncio.create_task(self.app.drained())
        hurry = asyncio.create_task(self._hurry.wait())
        try:
            timeout = deadline - asyncio.get_running_loop().time()
            done, _ = await asyncio.wait((drained, hurry), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            return drained in done
        finally:
            drained.cancel()
            hurry.cancel()


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of uvicorn's says what we have not said: a broken stream ends without a last message."""
    message = record.getMessage()
    return not ("returned without completing response" in message or message.startswith("Cancel 0 running"))
