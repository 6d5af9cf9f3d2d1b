"""What was measured: by figure and contender a value a round, or why there is none."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """One thing that is measured: a row of the table."""

    name: str
    title: str
    unit: str
    peer: str | None = None  #: the contender whose value is 1 in the ratios
    added_to: str | None = None  #: the figure that this one is less that of the model server direct, round by round
    columns: tuple[str, ...] = ()  #: instead of the contenders: what is compared


@dataclass(slots=True)
class Results:
    """Values of all rounds."""

    values: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    not_run: dict[tuple[str, str], str] = field(default_factory=dict)  #: it was not tried, and why
    failed: dict[tuple[str, str], str] = field(default_factory=dict)  #: it was tried, and how it went wrong

    def add(self, figure: Figure, contender: str, value: float) -> None:
        """One round's value."""
        self.values.setdefault((figure.name, contender), []).append(value)

    def skip(self, figures: Iterable[Figure], contender: str, reason: str) -> None:
        """That these were not tried."""
        self.not_run.update({(figure.name, contender): reason for figure in figures})

    def fail(self, figures: Iterable[Figure], contender: str, reason: str) -> None:
        """That these went wrong in one round; what other rounds gave does not count any more."""
        self.failed.update({(figure.name, contender): reason for figure in figures})

    def median(self, figure: str, contender: str) -> float | None:
        """The middle of the rounds; None: there is none, or a round failed."""
        key = (figure, contender)
        values = self.values.get(key)
        return statistics.median(values) if values and key not in self.failed else None

    def reason(self, figure: str, contender: str) -> str | None:
        """Why there is no value; None: nobody asked for it."""
        key = (figure, contender)
        return f"FAILED: {self.failed[key]}" if key in self.failed else self.not_run.get(key)

    def names(self) -> set[str]:
        """The figures of which something is known."""
        return {name for known in (self.values, self.not_run, self.failed) for name, _ in known}

    def contenders(self, figure: str) -> list[str]:
        """Those of whom something is known about this figure."""
        keys = [key for known in (self.values, self.not_run, self.failed) for key in known]
        return list(dict.fromkeys(contender for name, contender in keys if name == figure))

    def ratio(self, figure: Figure, contender: str) -> float | None:
        """The value over its peer's, in this run."""
        if figure.peer is None or figure.peer == contender:
            return None
        value, peer = self.median(figure.name, contender), self.median(figure.name, figure.peer)
        return value / peer if value is not None and peer else None

    def subtract_direct(self, figures: Iterable[Figure]) -> None:
        """Work out the figures that say what a contender adds to the model server."""
        for figure in figures:
            if figure.added_to is None:
                continue
            direct = self.values.get((figure.added_to, "direct"), [])
            for (name, contender), values in list(self.values.items()):
                if name != figure.added_to or contender == "direct":
                    continue
                if not direct:
                    self.skip([figure], contender, "the model server direct was not measured")
                for value, base in zip(values, direct, strict=False):
                    self.add(figure, contender, value - base)
            for known in (self.not_run, self.failed):
                for (name, contender), reason in list(known.items()):
                    if name == figure.added_to and contender != "direct":
                        known[figure.name, contender] = reason
