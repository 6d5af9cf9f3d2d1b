"""The write-ahead log on its way to the disk while the writer goes on.

To move the log into the database begins with a sync of it, which takes longer than all the rest, and nothing can be
written meanwhile. What a thread of its own has synced before, the checkpoint need not wait for.
"""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

_sync = getattr(os, "fdatasync", os.fsync)  # macOS has the latter alone


class LogFlush:
    """Syncs a log when it is asked whether that is done."""

    def __init__(self, database: Path) -> None:
        real = database.resolve()  # a link's log stands beside the file
        self._log = real.with_name(real.name + "-wal")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-flush")
        self._flush: Future[None] | None = None

    def is_done(self) -> bool:
        """Whether what stood in the log when this was first asked is on the disk; begins that, if need be."""
        if self._flush is None:
            self._flush = self._thread.submit(self._run)
        return self._flush.done()

    def forget(self) -> None:
        """What was synced has left the log: begin anew when asked the next time."""
        self._flush = None

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown()

    def _run(self) -> None:
        # Opened each time: whoever closes a file lets go of all its locks, but SQLite has none on this one.
        with suppress(OSError):  # whatever is wrong with the disk, the checkpoint will say it
            file = os.open(self._log, os.O_RDONLY)
            try:
                _sync(file)
            finally:
                os.close(file)
