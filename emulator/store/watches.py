"""Who waits for a trajectory to settle; the store tells them, so that nobody has to ask again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from emulator.store.changes import Key


class Watches:
    """Futures of those who wait, by trajectory."""

    def __init__(self) -> None:
        self._waiting: dict[Key, set[asyncio.Future[None]]] = {}
        self._ended = False

    @contextmanager
    def watching(self, key: Key) -> Iterator[asyncio.Future[None]]:
        """A future that is done when the trajectory has settled, or nobody may wait any longer."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._ended:
            future.set_result(None)
        waiting = self._waiting.setdefault(key, set())
        waiting.add(future)
        try:
            yield future
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(key) is waiting:
                del self._waiting[key]

    def settled(self, key: Key) -> None:
        """Tell those who wait for this trajectory."""
        for future in self._waiting.get(key, ()):
            if not future.done():
                future.set_result(None)

    def end(self) -> None:
        """Let everybody go on, now and from now on: the server is stopping."""
        self._ended = True
        for key in list(self._waiting):
            self.settled(key)
