"""Two thousand streams at once, and plain samples meanwhile."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.contenders import FULL, MEMORY, Contender
from bench.figures.streams import EVENT_RATE
from bench.plan import Scale, Study
from bench.results import Figure, Results
from bench.rig import ContenderFailed, Rig, Visit, say

#: How long the streams of ours are open, and those of the peers, in seconds.
OURS, PEERS = 60, 15

#: Ours have the model server's 64 events, those of the peers as many as fit.
STREAMS, INTERVAL = 2000, OURS / 64

SAMPLES_A_SECOND = 100

_WHILE = f"with {STREAMS:,} streams open"

LOST = Figure("many_lost", f"of {STREAMS:,} streams: lost, broken or refused", "")
OPEN_MEMORY = Figure("many_memory", f"memory {_WHILE}", "MB", "vllm-router")
MORE = Figure("many_more", f"memory {_WHILE}, less that at rest", "MB", "vllm-router")
SHARE = Figure("many_cpu", f"share of a core {_WHILE}, an event each {INTERVAL * 1000:g} ms", "%", "vllm-router")
P99 = Figure("many_p99", f"time of a sample, 99th percentile, {_WHILE}", "ms", "vllm-router")

FIGURES = [LOST, OPEN_MEMORY, MORE, SHARE, P99]


def _run(rig: Rig, contenders: Sequence[Contender], results: Results, _scale: Scale) -> None:
    for contender in contenders:
        if contender in (FULL, MEMORY):
            results.skip(FIGURES, contender.name, "measured with normal only")
            continue
        if contender.slow:
            reached = results.median(EVENT_RATE.name, contender.name)
            known = f"it passes on {reached:,.0f} events a second, " if reached else "too slow: "
            results.skip(FIGURES, contender.name, f"{known}this takes {STREAMS / INTERVAL:,.0f}")
            continue
        try:
            with rig.visit(contender) as visit:
                _measure(visit, results, OURS if contender.is_ours else PEERS)
        except ContenderFailed as error:
            results.fail(FIGURES, contender.name, str(error))
        say(f"{STREAMS:,} streams: {contender.name}")


def _measure(visit: Visit, results: Results, seconds: float) -> None:
    name = visit.contender.name
    at_rest = visit.memory()
    visit.pace(INTERVAL, round(seconds / INTERVAL))
    streams = visit.begin_load([visit.contender.stream()], STREAMS, requests=STREAMS, timeout=seconds + 60)
    try:
        time.sleep(seconds * 0.1)  # until all are open
        samples = visit.begin_load([visit.contender.sample()], 8, seconds=seconds * 0.8, rate=SAMPLES_A_SECOND)
        try:
            share = visit.cpu_share(seconds * 0.7)
            open_memory = visit.memory()
            plain = visit.finish(samples)
        finally:
            samples.stop()
        load = visit.result(streams, timeout=seconds + 60)
    finally:
        streams.stop()
    results.add(LOST, name, load.wrong)
    results.add(OPEN_MEMORY, name, open_memory / 1e6)
    results.add(MORE, name, (open_memory - at_rest) / 1e6)
    results.add(SHARE, name, share * 100)
    results.add(P99, name, plain.latency.p99)


STUDIES = [Study("many_streams", FIGURES, _run)]
