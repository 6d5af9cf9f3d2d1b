"""Results as text: a block a figure for the terminal, two tables for the README."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.results import Figure, Results
from bench.targets import NOT_ASKED, Outcome


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


def outcome_rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
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
        block = list(_block(figure, figure.columns or contenders, results, outcomes))
        if block:
            lines += [f"{figure.title}{_in(figure, results)}", *block, ""]
    asked = [outcome for outcome in outcomes if outcome.reason != NOT_ASKED]
    lines += ["Targets", *_columns(outcome_rows(asked))]
    if others := len(outcomes) - len(asked):
        lines.append(f"  and {others} of figures that were not asked for")
    return "\n".join(lines) + "\n"


def _in(figure: Figure, results: Results) -> str:
    """Its unit, and what the ratios are to."""
    has_peer = figure.peer is not None and results.median(figure.name, figure.peer) is not None
    known = [figure.unit] * bool(figure.unit) + [f"× {figure.peer}"] * has_peer
    return f" ({', '.join(known)})" if known else ""


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
            f"{_bound(outcome)}: {outcome.verdict}"
            for outcome in outcomes
            if (outcome.target.figure, outcome.target.contender) == (figure.name, contender)
        ]
        yield f"  {contender:<14} {shown(value):>10} {times:>9}  {'; '.join(held)}".rstrip()


def _bound(outcome: Outcome) -> str:
    """`at least 0.45 × vllm-router`, or `… × rate_32` where another figure is meant."""
    target = outcome.target
    if target.over is None:
        return target.shown_bound
    figure, contender = target.over
    return f"{target.shown_bound} {contender}{'' if figure == target.figure else f' ({figure})'}"


def _columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if not rows:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def markdown(
    figures: Sequence[Figure], contenders: Sequence[str], results: Results, outcomes: Sequence[Outcome]
) -> str:
    """The targets; a row a figure and a column a contender; the same for figures with columns of their own."""
    lines = ["| Target | Bound | Measured | |", "|---|---|---|---|"]
    lines += ["| " + " | ".join(row) + " |" for row in outcome_rows(outcomes)]
    for columns in dict.fromkeys(figure.columns for figure in figures):
        alike = [figure for figure in figures if figure.columns == columns]
        lines += ["", *_matrix(alike, columns or contenders, results)]
    return "\n".join(lines) + "\n"


def _matrix(figures: Sequence[Figure], columns: Sequence[str], results: Results) -> Iterator[str]:
    known = results.names()
    measured = [each for each in columns if any(results.median(figure.name, each) is not None for figure in figures)]
    yield "| Figure | " + " | ".join(measured) + " |"
    yield "|---" + "|---:" * len(measured) + "|"
    for figure in figures:
        if figure.name in known:
            yield (
                f"| {figure.title}{_in(figure, results)} | "
                + " | ".join(_cell(figure, each, results) for each in measured)
                + " |"
            )


def _cell(figure: Figure, contender: str, results: Results) -> str:
    value = results.median(figure.name, contender)
    if value is None:
        return "failed" if (figure.name, contender) in results.failed else ""
    ratio = results.ratio(figure, contender)
    return shown(value) + (f" ({shown(ratio)}×)" if ratio is not None else "")
