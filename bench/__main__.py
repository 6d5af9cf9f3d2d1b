"""Measure the emulator beside its peers; print the tables, write JSON and plots."""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from bench import native
from bench.contenders import CONTENDERS, QUICK, Contender
from bench.figures import bodies, fixture, growth, many_streams, resting, rollouts, samples, stored, streams
from bench.machine import this_machine
from bench.plan import FULL_SCALE, QUICK_SCALE, Measure, Scale, Study
from bench.processes import Cores, available_cores, others_seconds, raise_file_limit
from bench.report import document, write, write_readme
from bench.results import Results
from bench.rig import open_rig, say
from bench.rounds import run_rounds
from bench.table import terminal
from bench.targets import TARGETS, evaluate

MEASURES = [measure for group in (resting, samples, streams, rollouts, bodies) for measure in group.MEASURES]
STUDIES = [*fixture.STUDIES, *many_streams.STUDIES, *growth.STUDIES, *stored.STUDIES]
FIGURES = [
    figure
    for group in (samples, streams, many_streams, rollouts, bodies, stored, resting, growth, fixture)
    for figure in group.FIGURES
]

#: The last full run stands in the repository; others do not.
RESULTS, SCRATCH = Path(__file__).parent / "results", native.BUILD / "results"

#: More of the machine than this, taken by other processes, and figures are theirs as much as ours.
QUIET = 0.05


def main() -> int:
    """Run it."""
    signal.signal(signal.SIGTERM, _terminated)
    given = _parse()
    scale = QUICK_SCALE if given.quick else FULL_SCALE
    if given.rounds:
        scale = dataclasses.replace(scale, rounds=given.rounds)
    is_full = not (given.quick or given.only or given.contenders or given.rounds)
    measures = [each for each in MEASURES if (each.name in given.only if given.only else each.quick or not given.quick)]
    studies = [each for each in STUDIES if (each.name in given.only if given.only else each.quick or not given.quick)]
    chosen = [CONTENDERS[name] for name in given.contenders or (QUICK if given.quick else CONTENDERS)]

    machine, cores = this_machine(), available_cores()
    began, others = time.monotonic(), others_seconds()
    raise_file_limit()
    try:
        native.build()
    except native.LoadError as error:
        sys.exit(str(error))
    say(f"{machine}; {cores}")
    results = _measure(chosen, measures, studies, scale, cores)
    outcomes = [evaluate(target, results) for target in TARGETS]

    seconds = time.monotonic() - began
    others_share = (others_seconds() - others) / seconds / (os.cpu_count() or 1)
    how = f"{scale.rounds} rounds in {seconds / 60:.0f} minutes; {cores}; others took {others_share:.0%} of the machine"
    if others_share > QUIET:
        how += ": rates and times say little, it wants to be run again on a quiet machine"
    print(f"{machine}.\n{how}.\n")
    print(terminal(FIGURES, list(CONTENDERS), results, outcomes))
    about = {
        "cores": str(cores),
        "rounds": scale.rounds,
        "minutes": round(seconds / 60, 1),
        "others_share": round(others_share, 3),
        "contenders": {each.name: _about(each) for each in chosen},
    }
    folder = given.output or (RESULTS if is_full else SCRATCH)
    for file in write(folder, document(machine, about, FIGURES, results, outcomes), results):
        say(f"wrote {file}")
    if given.write_readme:
        write_readme(f"{machine}. {how}.", FIGURES, list(CONTENDERS), results, outcomes)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    names = [each.name for each in (*MEASURES, *STUDIES)]
    parser.add_argument("--quick", action="store_true", help="few figures and contenders, in about two minutes")
    parser.add_argument("--only", nargs="+", choices=names, metavar="FIGURE", help=f"of: {', '.join(names)}")
    parser.add_argument(
        "--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME", help=f"of: {', '.join(CONTENDERS)}"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N", help=f"{FULL_SCALE.rounds}, of a quick run {QUICK_SCALE.rounds}"
    )
    parser.add_argument("--output", type=Path, metavar="DIR", help="where JSON and plots go")
    parser.add_argument("--write-readme", action="store_true", help="put the tables into bench/README.md")
    return parser.parse_args()


def _measure(
    chosen: list[Contender], measures: list[Measure], studies: list[Study], scale: Scale, cores: Cores
) -> Results:
    results = Results()
    contenders = []
    figures = [figure for measure in measures for figure in measure.figures]
    figures += [figure for study in studies for figure in study.figures if not figure.columns]
    for each in chosen:
        if (reason := each.missing) is None:
            contenders.append(each)
        else:
            say(f"{each.name} is not run: {reason}")
            results.skip(figures, each.name, reason)
    with open_rig(cores) as rig:
        if measures:
            run_rounds(rig, contenders, measures, scale, results)
        for study in studies:
            try:
                study.run(rig, contenders, results, scale)
            except Exception as error:  # of whatever kind: it must not take the other figures with it
                say("".join(traceback.format_exception(error)))
                for figure in study.figures:
                    for column in figure.columns or [each.name for each in contenders]:
                        results.fail([figure], column, f"{study.name} broke off: {error!r}")
    results.subtract_direct(FIGURES)
    return results


def _about(contender: Contender) -> dict[str, str]:
    return {"about": contender.about, "version": contender.version() if contender.missing is None else "not installed"}


def _terminated(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit("terminated")  # an exception: whatever was started is ended on the way out


if __name__ == "__main__":
    sys.exit(main())
