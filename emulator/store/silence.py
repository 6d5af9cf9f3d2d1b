"""A limit to a server's silence, which libpq does not have: a server that hangs keeps its connection, and says nothing.

What has to be cut is cut below libpq, whose caller then finds the connection lost, as with any other cause.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import threading
import time

#: Seconds between two looks at the clock.
_TICK = 0.2


class SilenceLimit:
    """Cuts a connection when `deadline` has passed, in seconds of `time.monotonic`."""

    def __init__(self) -> None:
        """Nothing is watched yet."""
        self.deadline = math.inf
        self.was_cut = False  #: the one that is watched, or was last
        self._line: socket.socket | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def watch(self, descriptor: int) -> None:
        """Watch a connection from now on, and no other."""
        self.forget()
        self.was_cut = False
        # A descriptor of our own: libpq may close its, and the next file, whose ever it is, gets the number.
        self._line = socket.socket(fileno=os.dup(descriptor))
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="silence-limit", daemon=True)
            self._thread.start()

    def forget(self) -> None:
        """Watch nothing."""
        with self._lock:
            if self._line is not None:
                self._line.close()
                self._line = None

    def close(self) -> None:
        """End the thread."""
        self.forget()
        self._closed.set()

    def _run(self) -> None:
        while not self._closed.wait(_TICK):
            if time.monotonic() > self.deadline:
                with self._lock, contextlib.suppress(OSError):  # it is closed already
                    if self._line is not None:
                        self.was_cut = True
                        self._line.shutdown(socket.SHUT_RDWR)
