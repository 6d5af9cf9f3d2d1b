"""What a sample, a seal, a page of the listing and a start cost with few and with many turns stored."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import NORMAL, Contender
from bench.figures.rollouts import complete, first_sample
from bench.fill import filled_copy
from bench.plan import Scale, Study
from bench.results import Figure, Results
from bench.rig import ContenderFailed, Rig, Visit, say
from bench.templates import http_request

#: Turns stored, and what they stand under in the tables.
SIZES = {1_000: "10³ turns", 100_000: "10⁵ turns", 1_000_000: "10⁶ turns"}
COLUMNS = tuple(SIZES.values())

SEALS, PAGES = 1000, 200


def _figure(name: str, title: str, unit: str) -> Figure:
    return Figure(f"stored_{name}", title, unit, COLUMNS[0], columns=COLUMNS)


START = _figure("start", "start to first answer", "s")
P50 = _figure("p50_1", "time of a sample, median, 1 connection", "ms")
RATE = _figure("rate_32", "samples a second, 32 connections", "/s")
SEAL = _figure("seal", "time of a seal, median, 1 connection", "ms")
PAGE_P50 = _figure("page_p50", "time of a page of the listing, median", "ms")
PAGE_P99 = _figure("page_p99", "time of a page of the listing, 99th percentile", "ms")

#: What a plot calls them.
SHORT = {
    START.name: "start",
    P50.name: "sample, median",
    RATE.name: "samples a second",
    SEAL.name: "seal, median",
    PAGE_P50.name: "page, median",
    PAGE_P99.name: "page, p99",
}

FIGURES = [START, P50, RATE, SEAL, PAGE_P50, PAGE_P99]


def _run(rig: Rig, contenders: Sequence[Contender], results: Results, scale: Scale) -> None:
    if NORMAL not in contenders:
        for column in COLUMNS:
            results.skip(FIGURES, column, "it is measured with `normal`, which was not asked for")
        return
    empty = rig.folder / "empty.db"
    with rig.visit(NORMAL, empty):
        pass
    filled = {}
    for size in SIZES:
        say(f"a database with {size:,} turns")
        filled[size] = filled_copy(size, empty)
    for number in range(scale.rounds):
        for size, column in SIZES.items():
            database = rig.folder / "stored.db"
            _copy(filled[size], database)
            try:
                with rig.visit(NORMAL, database) as visit:
                    _measure(visit, column, results, scale)
            except ContenderFailed as error:
                results.fail(FIGURES, column, str(error))
            _remove(database)
            say(f"round {number + 1} of {scale.rounds}: {column} stored")


def _measure(visit: Visit, column: str, results: Results, scale: Scale) -> None:
    sample = [visit.contender.sample()]
    results.add(START, column, visit.started)
    visit.load(sample, 1, seconds=scale.warm_up)
    results.add(P50, column, visit.load(sample, 1, seconds=scale.seconds).latency.p50)
    page = visit.load([http_request("GET", "/_emulator/trajectories", {})], 1, requests=PAGES)
    results.add(PAGE_P50, column, page.latency.p50)
    results.add(PAGE_P99, column, page.latency.p99)
    first = visit.cycles
    visit.load([first_sample(visit.contender)], 32, requests=SEALS, first_cycle=first)
    results.add(SEAL, column, visit.load([complete()], 1, requests=SEALS, first_cycle=first).latency.p50)
    results.add(RATE, column, visit.load(sample, 32, seconds=scale.seconds).rate)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    with target.open("rb") as file:
        os.fsync(file.fileno())  # or the contender's first commits wait until all of the copy is on disk


def _remove(database: Path) -> None:
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()


STUDIES = [Study("growth", FIGURES, _run)]
