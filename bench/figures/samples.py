"""Plain samples: rates and times, in a closed loop and at a rate, and the processor time they take."""

from __future__ import annotations

from bench.plan import Measure, Scale
from bench.results import Figure, Results
from bench.rig import Visit

CONNECTIONS = (1, 32, 256)

#: Samples a second that arrive whether others were answered or not.
ARRIVALS = (200, 1500)


def rate(connections: int) -> Figure:
    """Samples a second, each connection sending the next when it has the answer."""
    return Figure(f"rate_{connections}", f"samples a second, {_shown(connections)}", "/s", peer="vllm-router")


def p50(connections: int) -> Figure:
    """Their median time."""
    return Figure(f"p50_{connections}", f"time of a sample, median, {_shown(connections)}", "ms", peer="direct")


def p99(connections: int) -> Figure:
    """The time that one of a hundred exceeds."""
    return Figure(
        f"p99_{connections}", f"time of a sample, 99th percentile, {_shown(connections)}", "ms", peer="direct"
    )


def added_p50(connections: int) -> Figure:
    """Their median time, less that of the model server direct."""
    name = p50(connections).name
    return Figure(f"added_{name}", f"added to a sample, median, {_shown(connections)}", "ms", "vllm-router", name)


def _shown(connections: int) -> str:
    return f"{connections} connection{'s' if connections > 1 else ''}"


CPU = Figure("cpu", "processor time of a sample, 32 connections", "µs", peer="vllm-router")


def closed_loop(connections: int) -> Measure:
    """Rate and times at so many connections; processor time at 32."""
    figures = [rate(connections), p50(connections), p99(connections)]
    if connections == 32:
        figures.append(CPU)

    def measure(visit: Visit, results: Results, scale: Scale) -> None:
        requests = [visit.contender.sample()]
        visit.load(requests, connections, seconds=scale.warm_up)
        before = visit.cpu()
        load = visit.load(requests, connections, seconds=scale.seconds)
        used = visit.cpu() - before
        name = visit.contender.name
        results.add(rate(connections), name, load.rate)
        results.add(p50(connections), name, load.latency.p50)
        results.add(p99(connections), name, load.latency.p99)
        if connections == 32:
            results.add(CPU, name, used / load.requests * 1e6)

    return Measure(f"rate_{connections}", figures, measure, quick=True)


def open_p50(a_second: int) -> Figure:
    """Median time from when a sample was due."""
    return Figure(f"open_p50_{a_second}", f"time of a sample, median, {a_second:,} a second", "ms", "direct")


def open_p99(a_second: int) -> Figure:
    """The time from when it was due that one of a hundred exceeds."""
    return Figure(f"open_p99_{a_second}", f"time of a sample, 99th percentile, {a_second:,} a second", "ms", "direct")


def added_open(a_second: int) -> list[Figure]:
    """The same less those of the model server direct."""
    return [
        Figure(f"added_{each.name}", f"added to a {each.title.partition(' of a ')[2]}", "ms", "vllm-router", each.name)
        for each in (open_p50(a_second), open_p99(a_second))
    ]


def open_loop(a_second: int) -> Measure:
    """Times when so many samples a second arrive, whether others were answered or not."""
    figures = [open_p50(a_second), open_p99(a_second)]

    def measure(visit: Visit, results: Results, scale: Scale) -> None:
        name = visit.contender.name
        reached = results.values.get((rate(32).name, name))
        if reached and max(reached) < a_second * 1.1:
            results.skip(figures, name, f"it reaches {max(reached):,.0f} a second")
            return
        load = visit.load([visit.contender.sample()], 64, seconds=scale.seconds, rate=a_second)
        results.add(figures[0], name, load.latency.p50)
        results.add(figures[1], name, load.latency.p99)

    return Measure(f"open_{a_second}", figures, measure)


MEASURES = [closed_loop(each) for each in CONNECTIONS] + [open_loop(each) for each in ARRIVALS]
FIGURES = [
    *(rate(each) for each in CONNECTIONS),
    *(figure for each in CONNECTIONS for figure in (p50(each), p99(each))),
    added_p50(1),
    *(figure for each in ARRIVALS for figure in (open_p50(each), open_p99(each), *added_open(each))),
    CPU,
]
