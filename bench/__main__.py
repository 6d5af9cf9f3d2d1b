"""`python -m bench`: measure, print the table, write JSON."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import NoReturn

from bench import native
from bench.contenders import CONTENDERS, QUICK
from bench.figures import bodies, resting, rollouts, samples, streams
from bench.machine import this_machine
from bench.plan import FULL_SCALE, QUICK_SCALE
from bench.processes import available_cores
from bench.results import Results
from bench.rig import open_rig, say
from bench.rounds import run_rounds
from bench.table import terminal
from bench.targets import TARGETS, evaluate

GROUPS = (resting, samples, streams, rollouts, bodies)
MEASURES = [measure for group in GROUPS for measure in group.MEASURES]
FIGURES = [figure for group in GROUPS for figure in group.FIGURES]


def main() -> int:
    """Run it."""
    signal.signal(signal.SIGTERM, _terminated)
    parser = argparse.ArgumentParser("python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few figures and contenders, in about two minutes")
    names = [measure.name for measure in MEASURES]
    parser.add_argument("--only", nargs="+", choices=names, metavar="FIGURE", help=f"of: {', '.join(names)}")
    parser.add_argument(
        "--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME", help=f"of: {', '.join(CONTENDERS)}"
    )
    given = parser.parse_args()
    scale = QUICK_SCALE if given.quick else FULL_SCALE
    measures = [each for each in MEASURES if (each.name in given.only if given.only else each.quick or not given.quick)]
    chosen = [CONTENDERS[name] for name in given.contenders or (QUICK if given.quick else CONTENDERS)]
    results = Results()
    contenders = []
    for each in chosen:
        if (reason := each.missing) is None:
            contenders.append(each)
        else:
            for measure in measures:
                results.skip(measure.figures, each.name, reason)
    native.build()
    cores = available_cores()
    say(str(cores))
    with open_rig(cores) as rig:
        run_rounds(rig, contenders, measures, scale, results)
    results.subtract_direct(FIGURES)
    outcomes = [evaluate(target, results) for target in TARGETS]
    print(this_machine())
    print(terminal(FIGURES, list(CONTENDERS), results, outcomes), end="")
    return 0


def _terminated(_signal: int, _frame: object) -> NoReturn:
    raise SystemExit("terminated")  # an exception: whatever was started is ended on the way out


if __name__ == "__main__":
    sys.exit(main())
