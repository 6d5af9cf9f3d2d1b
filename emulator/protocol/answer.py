"""What an operation answers with, before it is written to the wire."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol


class Client(Protocol):
    """Who reads a stream."""

    def write(self, piece: bytes) -> bool:
        """Write a piece, none that is empty; whether the client can take the next one at once."""

    async def drained(self) -> None:
        """Returns when the client can take the next piece, or is gone."""


@dataclass(slots=True)  # frozen ones take 1 µs longer to make
class Answer:
    """A whole answer: its bytes are known, and what they promise is on disk."""

    body: bytes = b"{}"
    status: int = 200
    content_type: str | None = "application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(slots=True)  # frozen ones take 1 µs longer to make
class StreamAnswer:
    """An answer on its way: `relay` writes it piece by piece, and raises BrokenStream if it cannot be ended well."""

    relay: Callable[[Client], Awaitable[None]]
    status: int = 200
    content_type: str | None = None


class BrokenStream(Exception):
    """The stream ended too early, after its head had left: all that is left is to break the connection."""
