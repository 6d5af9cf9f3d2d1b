"""What a run leaves behind: JSON, plots, and the tables of the README."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import Machine
from bench.plots import write_plots
from bench.results import Figure, Results
from bench.table import markdown
from bench.targets import Outcome

README = Path(__file__).parent / "README.md"
_MARKED = re.compile(r"(<!-- results: begin -->\n).*?(<!-- results: end -->)", re.DOTALL)


def document(
    machine: Machine, about: dict[str, Any], figures: Sequence[Figure], results: Results, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    """A run as JSON: every value of every round, and what was not measured and why."""
    return {
        "machine": machine.document(),
        **about,
        "figures": {figure.name: _figure(figure, results) for figure in figures if figure.name in results.names()},
        "targets": [
            {
                "about": outcome.target.about,
                "bound": outcome.target.shown_bound,
                "value": outcome.value,
                "verdict": outcome.verdict,
                "reason": outcome.reason,
            }
            for outcome in outcomes
        ],
    }


def _figure(figure: Figure, results: Results) -> dict[str, Any]:
    contenders = results.contenders(figure.name)
    return {
        "title": figure.title,
        "unit": figure.unit,
        "peer": figure.peer,
        "measured": {
            name: {
                "median": median,
                "over_peer": results.ratio(figure, name),
                "rounds": results.values[figure.name, name],
            }
            for name in contenders
            if (median := results.median(figure.name, name)) is not None
        },
        "not_measured": {
            name: reason for name in contenders if (reason := results.reason(figure.name, name)) is not None
        },
    }


def write(folder: Path, run: dict[str, Any], results: Results) -> list[Path]:
    """Write results.json and the plots, in place of those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob("*.svg"):
        stale.unlink()
    file = folder / "results.json"
    file.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")
    return [file, *write_plots(results, folder)]


def write_readme(
    conditions: str,
    figures: Sequence[Figure],
    contenders: Sequence[str],
    results: Results,
    outcomes: Sequence[Outcome],
) -> None:
    """Put the tables of this run between the README's markers."""
    tables = f"{conditions}\n\n{markdown(figures, contenders, results, outcomes)}"
    README.write_text(_MARKED.sub(lambda found: found[1] + tables + found[2], README.read_text()))
