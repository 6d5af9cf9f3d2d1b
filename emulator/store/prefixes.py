"""Requests without what they share with an earlier one: an agent sends its whole conversation again with each turn.

A turn's `request` is stored as the number of an earlier turn of the trajectory (`base`), how many bytes the two
begin with alike (`shared`), and the rest. Every so many turns one is stored whole.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

#: Bytes of memory for requests that the next ones are compared with.
KEPT_BYTES = 32 * 1024 * 1024

#: What it takes to keep a request, beside its own bytes.
_OVERHEAD = 400

#: So many turns may stand between a request and the whole one that it is restored from.
LONGEST_CHAIN = 64

#: To share less than this is not worth a look at another turn when it is read.
LEAST_SHARED = 64


class MissingPrefix(Exception):
    """A request cannot be restored: what it shares with another one is not there."""


class Stored(NamedTuple):
    """A request as the database holds it."""

    number: int
    base: int | None
    shared: int
    request: bytes  #: the rest


@dataclass(slots=True)
class _Last:
    number: int
    request: bytes
    chain: int


class LastRequests:
    """The last stored request of each trajectory, those that were used last, up to a number of bytes."""

    def __init__(self, kept_bytes: int = KEPT_BYTES) -> None:
        self._kept_bytes = kept_bytes
        self._size = 0
        self._last: OrderedDict[int, _Last] = OrderedDict()

    def shorten(self, trajectory: int, number: int, request: bytes) -> Stored:
        """A request without what it shares with the trajectory's last one, and from now on it is the last."""
        if not LEAST_SHARED <= len(request) <= self._kept_bytes - _OVERHEAD:
            return Stored(number, None, 0, request)
        last = self._last.pop(trajectory, None)
        base, shared, chain = None, 0, 0
        if last is not None:
            self._size -= len(last.request) + _OVERHEAD
            if last.chain < LONGEST_CHAIN:
                length = shared_length(last.request, request)
                if length >= LEAST_SHARED:
                    base, shared, chain = last.number, length, last.chain + 1
        self._last[trajectory] = _Last(number, request, chain)
        self._size += len(request) + _OVERHEAD
        while self._size > self._kept_bytes:
            self._size -= len(self._last.popitem(last=False)[1].request) + _OVERHEAD
        return Stored(number, base, shared, request[shared:] if shared else request)

    def clear(self) -> None:
        """Forget all of them: what was shortened may not have been stored."""
        self._last.clear()
        self._size = 0


def shared_length(one: bytes, other: bytes) -> int:
    """With how many bytes both begin, or up to 15 fewer.

    By halving, as to compare a slice is one call, whatever its length; and without a copy of it, which takes longer.
    """
    view = memoryview(one)
    low, high = 0, min(len(one), len(other))
    step = max(high - 128, high // 2)  # most often all but the end is the same
    while step:
        if other.startswith(view[low : low + step], low):
            low += step
        else:
            high = low + step - 1
        step = (high - low + 1) // 2 if high - low >= 16 else 0
    return low


def restore(turns: Iterable[Stored]) -> dict[int, bytes]:
    """The whole requests by number; a turn comes after its base. Raises MissingPrefix."""
    requests: dict[int, bytes] = {}
    for number, base, shared, rest in turns:
        prefix = b"" if base is None else requests.get(base, b"")[:shared]
        if len(prefix) < shared:
            raise MissingPrefix(missing_prefix(number, base))
        requests[number] = prefix + rest if prefix else rest
    return requests


def missing_prefix(number: int, base: int | None) -> str:
    """What is wrong with a request that cannot be restored."""
    return f"turn {number}: what its request shares with turn {base} is not there"
