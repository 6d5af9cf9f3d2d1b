"""Answers in events: as fast as they go, and as a model writes them."""

from __future__ import annotations

import time

from bench.contenders import Contender
from bench.plan import Measure, Scale
from bench.results import Figure, Results
from bench.rig import EVENTS, ContenderFailed, Visit

#: Streams at once, and seconds between two events of each.
STREAMS, INTERVAL = 256, 0.010

_PACED = f"{STREAMS} streams, an event each {INTERVAL * 1000:g} ms"

STREAM_RATE = Figure("stream_rate", f"streams of {EVENTS} events a second, 32 connections", "/s", "vllm-router")
EVENT_RATE = Figure("event_rate", "events a second, 32 connections", "/s", "vllm-router")
PACED_CPU = Figure("paced_cpu", f"share of a core, {_PACED}", "%", "vllm-router")
FIRST_EVENT = Figure("first_event", f"time to the first event, median, {_PACED}", "ms", "direct")
ADDED_FIRST = Figure(
    "added_first_event", f"added to the first event, median, {_PACED}", "ms", "vllm-router", FIRST_EVENT.name
)
DELAY_P50 = Figure("event_delay_p50", f"an event's way from model to client, median, {_PACED}", "ms", "direct")
DELAY_P99 = Figure("event_delay_p99", f"an event's way from model to client, 99th percentile, {_PACED}", "ms", "direct")
MERGED = Figure("merged", f"events of 100,000 that came together with the one before, {_PACED}", "")


def _as_fast_as_they_go(visit: Visit, results: Results, scale: Scale) -> None:
    visit.pace()
    requests = [visit.contender.stream()]
    visit.load(requests, 32, seconds=scale.warm_up)
    load = visit.load(requests, 32, seconds=scale.seconds)
    results.add(STREAM_RATE, visit.contender.name, load.rate)
    results.add(EVENT_RATE, visit.contender.name, load.event_rate)


def _paced(visit: Visit, results: Results, scale: Scale) -> None:
    visit.pace(INTERVAL)
    name, requests = visit.contender.name, [visit.contender.stream()]
    if visit.contender.slow:  # it would never catch up with arrivals: all at once, and once
        before = visit.cpu()
        load = visit.load(requests, STREAMS, requests=STREAMS, timeout=120)
        share = (visit.cpu() - before) / load.seconds
    else:
        # Streams begin one after the other, as many a second as keep so many open: where all begin at once, the
        # time to the first event is that of a burst.
        length = EVENTS * INTERVAL
        running = visit.begin_load(
            requests, STREAMS * 2, rate=STREAMS / length, seconds=scale.seconds + 1, warmup=length
        )
        try:
            time.sleep(length * 1.5)
            share = visit.cpu_share(scale.seconds)
            load = visit.finish(running)
        finally:
            running.stop()
    if load.first_event is None or load.event_delay is None:
        raise ContenderFailed("its streams had no events")
    results.add(PACED_CPU, name, share * 100)
    results.add(FIRST_EVENT, name, load.first_event.p50)
    results.add(DELAY_P50, name, load.event_delay.p50)
    results.add(DELAY_P99, name, load.event_delay.p99)
    results.add(MERGED, name, load.merged / load.events * 100_000)


def _without_streams(contender: Contender) -> str | None:
    return None if contender.stream_path else "it has no streams"


MEASURES = [
    Measure("streams", [STREAM_RATE, EVENT_RATE], _as_fast_as_they_go, leaves_out=_without_streams),
    Measure(
        "paced",
        [PACED_CPU, FIRST_EVENT, DELAY_P50, DELAY_P99, MERGED],
        _paced,
        quick=True,
        leaves_out=_without_streams,
        once_if_slow=True,
    ),
]
FIGURES = [STREAM_RATE, EVENT_RATE, PACED_CPU, FIRST_EVENT, ADDED_FIRST, DELAY_P50, DELAY_P99, MERGED]
