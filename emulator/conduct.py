"""What clients did around errors: the calls of each trajectory from the first one that failed.

Kept in memory, of the last trajectories and of each the last calls: `emulator.verdict` judges by it. Who never meets an
error is not in it, and costs two comparisons a call.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass

#: How much is remembered; some 400 bytes a call.
TRAJECTORIES, CALLS = 4096, 64


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call that has ended. `arrived` and `ended` are those of `perf_counter`, `at` microseconds since 1970, UTC."""

    operation: str
    request_id: str
    code: str  #: `Call.code`
    status: int | None
    message: str | None  #: what the client was told
    reason: str | None  #: of what is wrong with the trajectory's state or with the rewards, the exception's name
    retry_after: str | None  #: as it was sent
    same: int  #: equal of requests that ask for the same thing
    is_sdk_retry: bool  #: whether an AWS SDK sent it again by itself, after a back-off of its own
    arrived: float
    ended: float
    at: int  #: when it arrived


class Conduct:
    """The calls of trajectories in which something failed. Of the event loop's thread."""

    def __init__(self) -> None:
        self._calls: OrderedDict[tuple[str, str], deque[CallRecord]] = OrderedDict()

    def __contains__(self, key: tuple[str, str]) -> bool:
        return key in self._calls

    def __bool__(self) -> bool:
        return bool(self._calls)

    def note(self, key: tuple[str, str], call: CallRecord) -> None:
        """Remember a call of the trajectory of a job."""
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = deque(maxlen=CALLS)
            if len(self._calls) > TRAJECTORIES:
                self._calls.popitem(last=False)
        else:
            self._calls.move_to_end(key)
        calls.append(call)

    def calls(self, key: tuple[str, str]) -> list[CallRecord]:
        """What is remembered of a trajectory, in the order in which calls ended."""
        return list(self._calls.get(key, ()))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Job ARN and id of each trajectory of which something is remembered."""
        return iter(list(self._calls))

    def clear(self) -> None:
        """Forget everything."""
        self._calls.clear()
