"""What Prometheus is told when it asks for `/metrics`. `emulator.exposition` writes it, and is imported then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emulator.address import DatabaseURL
from emulator.metrics import Metrics
from emulator.protocol.answer import Answer
from emulator.settings import Settings
from emulator.store import Store, queries
from emulator.trajectory import Status

#: A count of the trajectories is kept for so many times what it took: a million take 43 ms, and are counted every 4 s.
KEPT = 100


class Scrape:
    """Answers `/metrics`."""

    def __init__(self, store: Store, settings: Settings, metrics: Metrics) -> None:
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._counts: Mapping[Status, int] = {}
        self._stale_at = 0.0
        self._counting = asyncio.Lock()

    async def answer(self, accept: str) -> Answer:
        """Everything that is measured, in the format that the Accept header names."""
        described = await describe_database(self._settings, self._store)
        stored = await self._trajectories(), described["bytes"]
        return await asyncio.to_thread(self._expose, *stored, accept)

    async def _trajectories(self) -> Mapping[Status, int]:
        async with self._counting:
            began = time.monotonic()
            if began >= self._stale_at:
                self._counts = await self._store.read(queries.count_trajectories)
                ended = time.monotonic()
                self._stale_at = ended + KEPT * (ended - began)
            return self._counts

    def _expose(self, trajectories: Mapping[Status, int], database_bytes: int | None, accept: str) -> Answer:
        from emulator.exposition import Stored, expose

        stored = Stored(trajectories, database_bytes)
        body, content_type = expose(self._metrics, self._store.metrics, stored, accept)
        return Answer(body, content_type=content_type)


async def describe_database(settings: Settings, store: Store) -> dict[str, Any]:
    """Where the database is, and its bytes, those of its write-ahead log included."""
    if settings.durability == "memory":
        return {"path": None, "durability": "memory", "bytes": None}
    if isinstance(settings.address, DatabaseURL):
        from emulator.store.postgresql import size

        shown = {"url": settings.shown_database, "durability": settings.durability}
        return shown | {"bytes": await store.read(size)}
    path = settings.address.absolute()
    return {"path": str(path), "durability": settings.durability, "bytes": await asyncio.to_thread(_size, path)}


def _size(path: Path) -> int:
    files = [file for file in (path, path.with_name(path.name + "-wal")) if file.exists()]
    return sum(file.stat().st_size for file in files)
