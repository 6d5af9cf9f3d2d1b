"""An emulator in a thread of its own, in any process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from emulator.server import Server
from emulator.settings import Settings

T = TypeVar("T")


class NotRunning(RuntimeError):
    """The emulator cannot do what it is asked: it does not run, or the question comes from its own thread."""


def default_settings() -> Settings:
    """A free port, the scripted model, nothing on disk."""
    return Settings(port=0, durability="memory")


class ServerThread:
    """A server, and the thread that runs it. Needs no event loop of the caller's."""

    def __init__(self, settings: Settings) -> None:
        """Raises InvalidSetting, CannotListen."""
        self.server = Server(settings)
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="job-runtime-local", daemon=True)

    def start(self) -> None:
        """Return when requests can come. Raises DatabaseError, ModelServerError, NotRunning when it cannot start."""
        if self._thread.ident is not None:
            raise NotRunning("it serves once, and was started before: make another")
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure

    @property
    def is_running(self) -> bool:
        """Whether it was started, and has not ended."""
        return self._thread.is_alive()

    def check_running(self) -> None:
        """Raises NotRunning."""
        if self._loop is None or not self.is_running:
            raise NotRunning("the emulator is not running: it is asked before its start, or after its end")

    def call(self, function: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run something on the server's event loop, and wait for it. Raises NotRunning, and what it raises."""
        self.check_running()
        assert self._loop is not None
        if threading.current_thread() is self._thread:
            raise NotRunning(
                "the emulator is asked by a function that it waits for itself, a reply's or a condition's say: "
                "neither would ever go on"
            )
        return asyncio.run_coroutine_threadsafe(function(), self._loop).result()

    def stop(self, *, at_once: bool = False) -> None:
        """End the server and its thread; what is under way gets its time, or is broken off. Raises its failure."""
        if at_once:
            self.server.stop_at_once()
        else:
            self.server.stop()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.server.serve(self._started.set)


@contextmanager
def running_server(settings: Settings | None = None) -> Iterator[Server]:
    """Serve in a thread of its own while the block runs; `url` of the result is where.

    Without settings: a free port, the scripted model, nothing on disk. Needs no event loop of the caller's.
    Raises InvalidSetting, CannotListen, DatabaseError, ModelServerError when it cannot start.
    """
    thread = ServerThread(settings or default_settings())
    thread.start()
    try:
        yield thread.server
    finally:
        thread.stop()
