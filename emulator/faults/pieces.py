"""Where in an answer something happens, and what comes before and after it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator

from emulator.faults.fault import Fault
from emulator.inference.model_server import ModelAnswer

_END_OF_EVENT = re.compile(rb"\r\n\r\n|\n\n|\r\r")

#: Bytes at the end of a piece with which the end of an event may begin.
_BEGUN = 3


class Point:
    """After so many events, or bytes. Of one answer: it remembers what has passed."""

    def __init__(self, *, events: int | None = None, size: int | None = None) -> None:
        self._events = events if size is None else None
        self._left = events or 0 if size is None else size
        self._tail = b""
        self.is_reached = self._left <= 0

    @classmethod
    def of(cls, fault: Fault) -> Point:
        """Where a fault wants it; after the first event, if it does not say."""
        if fault.after_bytes is not None:
            return cls(size=fault.after_bytes)
        return cls(events=1 if fault.after_events is None else fault.after_events)

    def split(self, piece: bytes) -> Iterator[tuple[bytes, bool]]:
        """The parts of a piece, none of them empty, each with whether it comes after the point."""
        at = 0 if self.is_reached else self._find(piece)
        if at is None:
            yield piece, False
            return
        self.is_reached = True
        if at:
            yield piece[:at], False
        if at < len(piece):
            yield piece[at:], True

    def _find(self, piece: bytes) -> int | None:
        """Where in a piece the point is; None: beyond it."""
        if self._events is None:
            at = self._left
            self._left -= len(piece)
            return at if at <= len(piece) else None
        known = len(self._tail)
        text = self._tail + piece
        counted = 0
        for found in _END_OF_EVENT.finditer(text):
            counted = found.end()
            self._left -= 1
            if self._left == 0:
                return counted - known
        self._tail = text[max(counted, len(text) - _BEGUN) :]
        return None


def is_event_stream(answer: ModelAnswer) -> bool:
    """Whether an answer comes as server-sent events."""
    return answer.headers.get("content-type", "").partition(";")[0].strip().lower() == "text/event-stream"


async def events(answer: ModelAnswer) -> AsyncIterator[bytes]:
    """An answer event by event, as far as it comes in events."""
    if not is_event_stream(answer):
        async for piece in answer:
            yield piece
        return
    rest = b""
    async for piece in answer:
        rest += piece
        begins = 0
        for found in _END_OF_EVENT.finditer(rest):
            yield rest[begins : found.end()]
            begins = found.end()
        rest = rest[begins:]
    if rest:
        yield rest


async def before_and_after(answer: ModelAnswer, fault: Fault) -> AsyncIterator[tuple[bytes, bool]]:
    """An answer in parts, each with whether it comes after the fault's point: in the middle of what is no stream."""
    if fault.after_bytes is None and not is_event_stream(answer):
        body = b"".join([piece async for piece in answer])
        middle = len(body) // 2
        for part in Point(size=middle).split(body):
            yield part
        return
    point = Point.of(fault)
    async for piece in events(answer):
        for part in point.split(piece):
            yield part
