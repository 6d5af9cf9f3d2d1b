"""Bodies of agents that resend a long conversation each turn."""

from __future__ import annotations

from bench.contenders import LARGE, Contender
from bench.plan import Measure, Scale
from bench.results import Figure, Results
from bench.rig import Visit

RATE = Figure("rate_64k", "samples a second with bodies of 64 KB, 32 connections", "/s", "vllm-router")


def _measure(visit: Visit, results: Results, scale: Scale) -> None:
    requests = [visit.contender.sample(LARGE)]
    visit.load(requests, 32, seconds=scale.warm_up)
    load = visit.load(requests, 32, seconds=scale.seconds)
    results.add(RATE, visit.contender.name, load.rate)


def _without_bodies(contender: Contender) -> str | None:
    return None if contender.body is None else "its request has a body of its own"


MEASURES = [Measure("bodies", [RATE], _measure, leaves_out=_without_bodies)]
FIGURES = [RATE]
