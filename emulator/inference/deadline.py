"""A time-out that is set anew again and again, as for each piece of a stream, and seldom comes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls `passed` with the seconds it was set to, when they are over and it was not set anew.

    A timer is left running from one setting to the next, and looks when it is due whether it still is: to set and
    cancel one for each event of a stream would cost a fifth of the event's processor time.
    """

    __slots__ = ("_at", "_loop", "_passed", "_seconds", "_timer", "_timer_at")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[float], object]) -> None:
        self._loop = loop
        self._passed = passed
        self._seconds = self._at = self._timer_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Have it pass in `seconds`, and not when it would have before."""
        self._seconds = seconds
        self._at = self._loop.time() + seconds
        if self._timer is None or self._at < self._timer_at:
            self._set_timer()

    def cancel(self) -> None:
        """Have it never pass."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._at
        self._timer = self._loop.call_at(self._at, self._look)

    def _look(self) -> None:
        self._timer = None
        if self._at <= self._loop.time():
            self._passed(self._seconds)
        else:
            self._set_timer()
