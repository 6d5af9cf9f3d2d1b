"""How a run is put together: measures, rounds, and how long each takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.contenders import Contender
from bench.results import Figure, Results
from bench.rig import Rig, Visit


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    rounds: int
    seconds: float  #: of one load
    warm_up: float  #: of the load before it, which does not count


FULL_SCALE = Scale(rounds=3, seconds=2.5, warm_up=0.4)
QUICK_SCALE = Scale(rounds=2, seconds=1.5, warm_up=0.3)


def _everyone(_contender: Contender) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Measure:
    """Something that is done to each contender in each round, while it runs."""

    name: str
    figures: Sequence[Figure]
    run: Callable[[Visit, Results, Scale], None]
    quick: bool = False
    once_if_slow: bool = False  #: slow contenders do it in the first round only
    leaves_out: Callable[[Contender], str | None] = _everyone  #: why a contender is left out; None: it is not


@dataclass(frozen=True, slots=True)
class Study:
    """Something that starts contenders by itself, because it wants them fresh, or with a database of its own."""

    name: str
    figures: Sequence[Figure]
    run: Callable[[Rig, Sequence[Contender], Results, Scale], None]
    quick: bool = False
