"""A running emulator inside any process: for test suites, and for anything else that wants one for a while."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from emulator.server import Server
from emulator.settings import Settings


@contextmanager
def running_server(settings: Settings | None = None) -> Iterator[Server]:
    """Serve in a thread of its own while the block runs; `url` of the result is where.

    Without settings: a free port, the scripted model, nothing on disk. Needs no event loop of the caller's.
    Raises InvalidSetting, CannotListen, DatabaseError, ModelServerError when it cannot start.
    """
    server = Server(settings or Settings(port=0, durability="memory"))
    started = threading.Event()
    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(server.serve(started.set))
        except BaseException as error:
            failure.append(error)
        finally:
            started.set()

    thread = threading.Thread(target=run, name="job-runtime-local", daemon=True)
    thread.start()
    started.wait()
    try:
        if failure:
            raise failure[0]
        yield server
    finally:
        server.stop()
        thread.join()
    if failure:
        raise failure[0]
