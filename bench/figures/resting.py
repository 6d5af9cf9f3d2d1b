"""What a contender costs before anybody uses it."""

from __future__ import annotations

from bench.plan import Measure, Scale
from bench.results import Figure, Results
from bench.rig import Visit

START = Figure("start", "start to first answer", "s", "vllm-router")
MEMORY = Figure("memory", "memory at rest", "MB", "vllm-router")


def _measure(visit: Visit, results: Results, _scale: Scale) -> None:
    results.add(START, visit.contender.name, visit.started)
    results.add(MEMORY, visit.contender.name, visit.memory() / 1e6)


MEASURES = [Measure("start", [START, MEMORY], _measure, quick=True)]
FIGURES = [START, MEMORY]
