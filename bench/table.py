"""Results as text: a block a figure for the terminal, two tables for the README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.results import Figure, Results
from bench.targets import Outcome


def shown(value: float) -> str:
    """A number with three digits that matter, thousands apart."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    digits = 1 if size >= 10 else 2 if size >= 1 else 3
    return f"{value:.{digits}f}"


def _verdict(outcome: Outcome) -> str:
    if outcome.value is None:
        return f"{outcome.verdict}: {outcome.reason}"
    return outcome.verdict


def outcome_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, str, str, str]]:
    """What was promised, the bound, the value, the verdict."""
    return [
        (
            outcome.target.about,
            outcome.target.shown_bound,
            "–" if outcome.value is None else f"{shown(outcome.value)} {outcome.target.unit}".strip(),
            _verdict(outcome),
        )
        for outcome in outcomes
    ]


def terminal(
    figures: Sequence[Figure], contenders: Sequence[str], results: Results, outcomes: Sequence[Outcome]
) -> str:
    """Everything, for a terminal."""
    lines: list[str] = []
    for figure in figures:
        block = list(_block(figure, contenders, results, outcomes))
        if block:
            peer = f", and over {figure.peer}'s" if figure.peer else ""
            lines += [f"{figure.title} ({figure.unit}{peer})", *block, ""]
    lines += ["Targets", *_columns(outcome_rows(outcomes))]
    return "\n".join(lines) + "\n"


def _block(figure: Figure, contenders: Sequence[str], results: Results, outcomes: Sequence[Outcome]) -> Iterator[str]:
    for contender in contenders:
        value = results.median(figure.name, contender)
        if value is None:
            if reason := results.reason(figure.name, contender):
                yield f"  {contender:<14} {'–':>10}  {reason}"
            continue
        ratio = results.ratio(figure, contender)
        times = "" if ratio is None else f"{shown(ratio)}×"
        held = [
            f"{outcome.target.about}: {outcome.target.shown_bound}: {outcome.verdict}"
            for outcome in outcomes
            if (outcome.target.figure, outcome.target.contender) == (figure.name, contender)
        ]
        yield f"  {contender:<14} {shown(value):>10} {times:>9}  {'; '.join(held)}".rstrip()


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def markdown(
    figures: Sequence[Figure], contenders: Sequence[str], results: Results, outcomes: Sequence[Outcome]
) -> str:
    """The targets, then a row a figure and a column a contender."""
    lines = ["| Target | Bound | Measured | |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in outcome_rows(outcomes)]
    measured = [each for each in contenders if any(results.median(figure.name, each) is not None for figure in figures)]
    lines += ["", "| Figure | " + " | ".join(measured) + " |", "|---" * (len(measured) + 1) + "|"]
    for figure in figures:
        cells = [_cell(figure, contender, results) for contender in measured]
        if any(cells):
            peer = f"; × {figure.peer}" if figure.peer else ""
            lines.append(f"| {figure.title} ({figure.unit}{peer}) | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(figure: Figure, contender: str, results: Results) -> str:
    value = results.median(figure.name, contender)
    if value is None:
        return "failed" if (figure.name, contender) in results.failed else ""
    ratio = results.ratio(figure, contender)
    return shown(value) + (f" ({shown(ratio)}×)" if ratio is not None else "")
