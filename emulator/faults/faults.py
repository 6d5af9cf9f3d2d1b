"""The faults that are in effect, and which of them strike a call."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from emulator.faults.fault import Fault
from emulator.faults.kinds import KINDS

log = logging.getLogger(__name__)

#: Trajectories whose calls a fault counts, the last seen.
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class Strike:
    """A fault that a call suffers; what is left to chance comes from `random`."""

    fault: Fault
    random: Random

    def seconds(self, option: str) -> float:
        """An option in seconds; of a range, this call's own."""
        given = self.fault.option(option)
        return self.random.uniform(given[0], given[1]) if isinstance(given, tuple) else float(given)


@dataclass(slots=True, eq=False)
class GivenFault:
    """A fault in effect, and how often it struck."""

    fault: Fault
    number: int  #: in the order in which faults were given
    struck: int = 0
    calls: int = 0  #: that it means, of all trajectories
    calls_of: OrderedDict[tuple[str, str], int] = field(default_factory=OrderedDict)

    def count(self, job_arn: str, trajectory_id: str) -> int:
        """Count a call that is meant; its number, from 1."""
        self.calls += 1
        if self.fault.counted == "all":
            return self.calls
        key = (job_arn, trajectory_id)
        number = self.calls_of.pop(key, 0) + 1
        self.calls_of[key] = number
        if len(self.calls_of) > COUNTED:
            self.calls_of.popitem(last=False)
        return number

    def strikes(self, number: int, random: Random) -> bool:
        """Whether it strikes the call of that number, of those that it means."""
        fault = self.fault
        if fault.times is not None and self.struck >= fault.times:
            return False
        if (calls := fault.calls) is not None and number not in calls:
            return False
        return fault.share >= 1 or random.random() < fault.share

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**self.fault.document(), "struck": self.struck}


class Faults:
    """The faults in effect. From any thread."""

    def __init__(self, plan: Iterable[Fault] = (), *, switch: Callable[[bool], object] = lambda _: None) -> None:
        """`plan` is what `restore` puts in effect; `switch` is told whether any fault is."""
        self._plan = tuple(plan)
        self._switch = switch
        self._lock = threading.Lock()
        self._given: list[GivenFault] = []
        self._next = 0

    def add(self, fault: Fault) -> GivenFault:
        """Have calls suffer this from now on; says how often it struck."""
        with self._lock:
            given = GivenFault(fault, self._next)
            self._given.append(given)
            self._next += 1
            self._switch(True)
            return given

    def clear(self) -> None:
        """No faults from now on, those of the plan neither."""
        with self._lock:
            self._given.clear()
            self._next = 0
            self._switch(False)

    def restore(self) -> None:
        """The faults of the plan from now on, as if none had struck, and no others."""
        self.clear()
        for fault in self._plan:
            self.add(fault)

    @property
    def given(self) -> list[GivenFault]:
        """Those in effect, in the order in which they were given."""
        with self._lock:
            return list(self._given)

    def strike(self, operation: str, job_arn: str, trajectory_id: str) -> tuple[Strike, ...]:
        """What a call suffers: of the faults that decide how it ends the first that strikes; and those that add."""
        struck: list[Strike] = []
        decided = False
        with self._lock:
            for given in self._given:
                fault = given.fault
                if not fault.means(operation, job_arn, trajectory_id):
                    continue
                number = given.count(job_arn, trajectory_id)
                adds = KINDS[fault.kind].adds
                if decided and not adds:
                    continue
                # Of what the call is, not of when it came: concurrent rollouts find the same chances in any order.
                whose = "" if fault.counted == "all" else f"{job_arn}/{trajectory_id}"
                random = Random(f"{fault.seed}/{given.number}/{whose}/{number}")  # noqa: S311
                if given.strikes(number, random):
                    given.struck += 1
                    decided = decided or not adds
                    struck.append(Strike(fault, random))
        for strike in struck:
            log.info("fault: %s", strike.fault.kind)
        return tuple(struck)
