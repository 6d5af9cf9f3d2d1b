"""What clients did around errors: the calls of each trajectory from the first one that failed.

Kept in memory, of the last trajectories and of each the last calls: `emulator.verdict` judges by it. Who never meets an
error is not in it.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

#: How much is remembered; some 400 bytes a call.
TRAJECTORIES, CALLS = 4096, 32

#: Characters of what a client was told that are remembered.
MESSAGE = 200


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
        #: By job ARN and trajectory id; every call of the server looks whether there are any.
        self.trajectories: OrderedDict[tuple[str, str], deque[CallRecord]] = OrderedDict()

    def note(self, key: tuple[str, str], call: CallRecord) -> None:
        """Remember a call of the trajectory of a job."""
        calls = self.trajectories.get(key)
        if calls is None:
            calls = self.trajectories[key] = deque(maxlen=CALLS)
            if len(self.trajectories) > TRAJECTORIES:
                self.trajectories.popitem(last=False)
        else:
            self.trajectories.move_to_end(key)
        calls.append(call)

    def calls(self, key: tuple[str, str]) -> list[CallRecord]:
        """What is remembered of a trajectory, in the order in which calls ended."""
        return list(self.trajectories.get(key, ()))

    def clear(self) -> None:
        """Forget everything."""
        self.trajectories.clear()
