"""What is counted while the emulator runs: plain data, since every sample pays for it.

`emulator.exposition` turns it into Prometheus's format when somebody asks. A histogram is written by one thread.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field

#: Upper bounds of buckets, in seconds.
SHORT_TIMES = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
LONG_TIMES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)

#: Upper bounds of buckets, in turns.
BATCH_SIZES = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)


class Histogram:
    """How often a value fell into which bucket."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds  #: the largest value that each bucket takes; one more bucket takes the rest
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


@dataclass(slots=True)
class OperationMetrics:
    """The requests of one operation."""

    codes: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int, ok=0))  #: answers, by `Call.code`
    added: Histogram = field(default_factory=lambda: Histogram(SHORT_TIMES))
    model: Histogram = field(default_factory=lambda: Histogram(LONG_TIMES))


@dataclass(slots=True)
class WriterMetrics:
    """The transactions of the store's writer."""

    batch_turns: Histogram = field(default_factory=lambda: Histogram(BATCH_SIZES))
    wait: Histogram = field(default_factory=lambda: Histogram(SHORT_TIMES))


@dataclass(slots=True)
class Metrics:
    """What was counted since the start, and what is the case now."""

    operations: defaultdict[str, OperationMetrics] = field(default_factory=lambda: defaultdict(OperationMetrics))
    turns: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))  #: stored, by status
    in_flight: int = 0  #: samples between their request and their end
    open_streams: int = 0  #: answers that have begun and not ended
    stopping: bool = False  #: whether new samples are refused
