"""How a job is shown: as the SDK shows it, on a terminal; else in lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from emulator.terminal import make_console, visible

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


class Progress:
    """A job on its way: a table that is kept up to date on a terminal, else a line for each change. Standard error."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._line = ""
        self._closing = ExitStack()

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True, markup=False, emoji=False, highlight=False)
            self._live = self._closing.enter_context(Live(console=console, auto_refresh=False, transient=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def show(self, job: Mapping[str, Any]) -> None:
        """The job as it is now."""
        if self._live is not None:
            self._live.update(_table(job), refresh=True)
            return
        line = f"{job['JobStatus']}  {job['SecondaryStatus']}  {_in_a_line(_figures(_output(job)))}".rstrip()
        if line != self._line:
            self._line = line
            print(visible(line), file=sys.stderr, flush=True)


def print_job(job: Mapping[str, Any]) -> None:
    """All of a job that people look for."""
    make_console().print(_table(job))


def _table(job: Mapping[str, Any]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD if sys.stdout.isatty() else None, pad_edge=False, show_header=False)
    for name, text in _rows(job):
        table.add_row(name, visible(text))
    return table


def _rows(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "job", job["JobName"]
    yield "arn", job["JobArn"]
    yield "status", f"{job['JobStatus']} ({job['SecondaryStatus']})"
    output = _output(job)
    yield from _figures(output).items()
    if job.get("FailureReason"):
        yield "failure", job["FailureReason"]
    if package := output.get("OutputModelPackageArn"):
        yield "model package", package
    if details := output.get("MlflowDetails"):
        yield "mlflow", f"{details.get('ExperimentName')} / {details.get('RunName')}"
    for each in job.get("SecondaryStatusTransitions", []):
        took = f"{(each['EndTime'] - each['StartTime']).total_seconds():.1f} s" if "EndTime" in each else "…"
        yield "", f"{each['StartTime']:%H:%M:%S}  {took:>8}  {each['Status']:<12} {each.get('StatusMessage', '')}"


def _output(job: Mapping[str, Any]) -> dict[str, Any]:
    document = json.loads(job["JobConfigDocument"])
    found: dict[str, Any] = document.get("ServiceOutput", {})
    return found


def _figures(output: Mapping[str, Any]) -> dict[str, str]:
    """Step, rollouts and tokens, as far as they are known."""
    figures = {}
    if progress := output.get("ProgressInfo"):
        figures["step"] = f"{progress.get('CurrentStep', 0)}/{progress.get('MaxSteps', '?')}"
    if rollouts := output.get("RolloutInfo"):
        figures["rollouts"] = f"{rollouts.get('Completed', 0)}/{rollouts.get('Total', '?')}"
    if tokens := output.get("BillableTokenUsage"):
        counts = (f"{name.removesuffix('TokenCount').lower()} {count:,}" for name, count in tokens.items())
        figures["tokens"] = ", ".join(counts)
    return figures


def _in_a_line(figures: Mapping[str, str]) -> str:
    return "  ".join(f"{name} {text}" for name, text in figures.items())
