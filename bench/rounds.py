"""Rounds over the contenders: each is started, measured and ended, and then the next, so that drift hits all alike."""

from __future__ import annotations

import time
from collections.abc import Sequence

from bench.contenders import Contender
from bench.plan import Measure, Scale
from bench.results import Results
from bench.rig import ContenderFailed, Rig, Visit, say


def run_rounds(
    rig: Rig, contenders: Sequence[Contender], measures: Sequence[Measure], scale: Scale, results: Results
) -> None:
    """Measure all contenders that can be run."""
    broken: set[str] = set()
    for number in range(scale.rounds):
        for contender in contenders:
            if contender.name in broken:
                continue
            began = time.monotonic()
            try:
                with rig.visit(contender) as visit:
                    for measure in measures:
                        if number and contender.slow and measure.once_if_slow:
                            continue
                        _measure(visit, measure, results, scale)
            except ContenderFailed as error:
                broken.add(contender.name)
                for measure in measures:
                    results.fail(measure.figures, contender.name, f"{contender.name} {error}")
                say(f"  {contender.name} {error}")
            say(f"round {number + 1} of {scale.rounds}: {contender.name}, {time.monotonic() - began:.0f} s")


def _measure(visit: Visit, measure: Measure, results: Results, scale: Scale) -> None:
    contender = visit.contender
    if (reason := measure.leaves_out(contender)) is not None:
        results.skip(measure.figures, contender.name, reason)
        return
    try:
        measure.run(visit, results, scale)
    except (ContenderFailed, OSError) as error:
        results.fail(measure.figures, contender.name, str(error))
        say(f"  {contender.name}: {measure.name}: {error}")
        if visit.process.poll() is not None:
            raise ContenderFailed(f"ended with {visit.process.returncode} during {measure.name}") from None
