"""A run in small: real contenders, a real model server, a real load."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import native, rig
from bench.contenders import DIRECT, MEMORY
from bench.figures import rollouts, samples, streams
from bench.plan import Measure, Scale
from bench.processes import available_cores
from bench.results import Results
from bench.rig import Rig, Visit, open_rig
from bench.rounds import run_rounds
from bench.templates import http_request

SCALE = Scale(rounds=2, seconds=0.1, warm_up=0.05)


@pytest.fixture
def small_rig(tmp_path: Path, programs: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    """A rig that writes into this test's folder."""
    monkeypatch.setattr(rig, "BUILD", tmp_path)
    native.build()
    with open_rig(available_cores()) as opened:
        yield opened
    assert list(tmp_path.iterdir()) == []


def test_every_contender_has_a_value_a_round(small_rig: Rig) -> None:
    results = Results()
    measures = [samples.closed_loop(1), *streams.MEASURES[:1], *rollouts.MEASURES]
    run_rounds(small_rig, [DIRECT, MEMORY], measures, SCALE, results)
    assert results.failed == {}
    for figure in (samples.rate(1), samples.p50(1), samples.p99(1), *streams.MEASURES[0].figures):
        for contender in ("direct", "memory"):
            values = results.values[figure.name, contender]
            assert len(values) == SCALE.rounds
            assert min(values) > 0
    assert results.reason("pairs", "direct") == "it has no such operation"
    assert len(results.values["pairs", "memory"]) == SCALE.rounds


def test_paced_streams_begin_one_after_the_other_and_none_is_late(small_rig: Rig) -> None:
    results = Results()
    (paced,) = (measure for measure in streams.MEASURES if measure.name == "paced")
    run_rounds(small_rig, [DIRECT], [paced], dataclasses.replace(SCALE, rounds=1), results)
    assert results.failed == {}
    for figure in paced.figures:
        assert results.median(figure.name, "direct") is not None
    share = results.median(streams.PACED_CPU.name, "direct")
    assert share is not None
    assert 0 < share < 200


def test_a_contender_that_does_not_start_is_failed_with_its_last_words(small_rig: Rig) -> None:
    broken = dataclasses.replace(
        DIRECT, command=lambda _place: [sys.executable, "-c", "raise SystemExit('no licence')"]
    )
    results = Results()
    run_rounds(small_rig, [broken, MEMORY], [samples.closed_loop(1)], SCALE, results)
    assert results.reason("rate_1", "direct") == "FAILED: direct ended with 1 before it answered: no licence"
    assert len(results.values["rate_1", "memory"]) == SCALE.rounds


def test_answers_that_are_errors_fail_the_figure_and_not_the_run(small_rig: Rig) -> None:
    def ask_for_nothing(visit: Visit, _results: Results, _scale: Scale) -> None:
        visit.load([http_request("POST", "/nowhere", {})], 1, requests=3)

    results = Results()
    measures = [Measure("nothing", [samples.CPU], ask_for_nothing), samples.closed_loop(1)]
    run_rounds(small_rig, [MEMORY], measures, SCALE, results)
    reason = results.reason("cpu", "memory")
    assert reason is not None
    assert reason.startswith("FAILED: 3 answers, 3 of them no success (statuses {'404': 3})")
    assert results.median("rate_1", "memory")


def test_the_model_server_paces_as_it_is_told(small_rig: Rig) -> None:
    with small_rig.visit(DIRECT) as visit:
        visit.pace(0.02, 5)
        load = visit.load([DIRECT.stream()], 2, requests=2)
    assert load.events == 10
    assert load.latency.p50 >= 4 * 20 * 0.9
    assert load.first_event is not None


def test_what_load_prints_is_read_in_milliseconds() -> None:
    times = {"mean": 1500.0, "p50": 1000.0, "p90": 2000.0, "p99": 3000.0, "p999": 3500.0, "max": 4000.0}
    document = json.loads(
        '{"requests":2,"errors":0,"lost":0,"bytes":9,"seconds":1.0,"rate":2.0,"connections":1,"status":{"200":2},'
        '"first_event_us":null,"event_delay_us":null,"events":0,"event_rate":0,"merged":0,"behind":0}'
    )
    load = native.Load.read(document | {"latency_us": times})
    assert load.wrong == 0
    assert (load.latency.p50, load.latency.max) == (1.0, 4.0)
    assert load.first_event is None
