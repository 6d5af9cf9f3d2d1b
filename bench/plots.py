"""Which figures are drawn, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.charts import Row, dot_plot
from bench.contenders import CONTENDERS
from bench.figures import growth
from bench.results import Results


@dataclass(frozen=True, slots=True)
class Plot:
    """One chart: figures that share an axis."""

    name: str
    title: str
    axis: str
    series: Mapping[str, str]  #: what the legend calls it, and the figure
    is_log: bool = True


PLOTS = (
    Plot("rate", "Samples a second, 32 connections", "samples a second", {"": "rate_32"}),
    Plot("time_1", "Time of a sample, 1 connection", "ms", {"median": "p50_1", "99th percentile": "p99_1"}),
    Plot("time_32", "Time of a sample, 32 connections", "ms", {"median": "p50_32", "99th percentile": "p99_32"}),
    Plot("cpu", "Processor time of a sample", "µs", {"": "cpu"}),
    Plot("streams", "256 streams, an event each 10 ms", "% of a core", {"": "paced_cpu"}, is_log=False),
    Plot("first_event", "Time to the first event of 256 streams", "ms", {"": "first_event"}),
    Plot(
        "memory",
        "Memory",
        "MB",
        {"at rest": "memory", "with 2,000 streams open": "many_memory", "after 100,000 samples": "memory_after"},
    ),
    Plot("start", "Start to first answer", "s", {"": "start"}),
)


def write_plots(results: Results, folder: Path) -> list[Path]:
    """Draw all for which there are values."""
    written = []
    for plot in PLOTS:
        rows = _rows(plot, results)
        if rows:
            written.append(folder / f"{plot.name}.svg")
            written[-1].write_text(dot_plot(plot.title, plot.axis, rows, is_log=plot.is_log))
    if rows := _growth_rows(results):
        written.append(folder / "growth.svg")
        title = "What many stored turns cost (10³ turns: 1)"
        written[-1].write_text(dot_plot(title, "times the figure with 10³ turns", rows, is_log=False))
    return written


def _rows(plot: Plot, results: Results) -> list[Row]:
    rows = []
    for contender in CONTENDERS.values():
        medians = {name: results.median(figure, contender.name) for name, figure in plot.series.items()}
        values = {name: value for name, value in medians.items() if value is not None}
        if values:
            name = f"ours, {contender.name}" if contender.is_ours else contender.name
            rows.append(Row(name, contender.is_ours, values))
    return rows


def _growth_rows(results: Results) -> list[Row]:
    rows = []
    for figure in growth.FIGURES:
        ratios = {column: results.ratio(figure, column) for column in growth.COLUMNS[1:]}
        values = {column: ratio for column, ratio in ratios.items() if ratio is not None}
        if values:
            rows.append(Row(growth.SHORT[figure.name], True, values))
    return rows
