"""What a run shows: its progress on standard error, and at the end a table on standard output."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.terminal import make_console, visible

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from emulator.trainer.rollouts import RolloutResult

#: Seconds between two lines of progress where there is no terminal.
LINES_APART = 10.0

#: Reasons that the table shows of each kind of failure; the report has all.
SHOWN_REASONS = 5


class View:
    """The progress of a run: a bar on a terminal, else a line now and then."""

    def __init__(self, planned: int, results: Sequence[RolloutResult] = ()) -> None:
        """`results`: of the run so far, which is resumed."""
        self._planned = planned
        self._over = self._failed = self._tokens = 0
        self._rewards = 0.0
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._next_line = time.monotonic() + LINES_APART
        self._closing = ExitStack()
        for result in results:
            self._count(result)

    def __enter__(self) -> View:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

            self._bar = Progress(
                TextColumn("rollouts"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[figures]}"),
                TimeElapsedColumn(), console=Console(stderr=True, markup=False, emoji=False, highlight=False),
            )  # fmt: skip
            self._closing.enter_context(self._bar)
            self._task = self._bar.add_task("", total=self._planned, completed=self._over, figures=self._figures())
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def finished(self, result: RolloutResult) -> None:
        """Another rollout is over."""
        self._count(result)
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self._over, figures=self._figures())
        elif self._over == self._planned or time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + LINES_APART
            self.line(f"{self._over}/{self._planned} rollouts, {self._figures()}")

    def line(self, text: str) -> None:
        """Show a line beside the progress: our own, or what an agent's process wrote."""
        shown = visible(text)
        if self._bar is not None:
            self._bar.console.print(shown)
        else:
            print(shown, file=sys.stderr, flush=True)

    def _count(self, result: RolloutResult) -> None:
        self._over += 1
        self._tokens += result.prompt_tokens + result.response_tokens
        if result.reward is None:
            self._failed += 1
        else:
            self._rewards += result.reward

    def _figures(self) -> str:
        rewarded = self._over - self._failed
        mean = f"{self._rewards / rewarded:.3f}" if rewarded else "–"
        return f"mean reward {mean}, {self._failed} failed, {self._tokens:,} tokens"


def print_table(document: Mapping[str, Any], path: Path) -> None:
    """The report in short."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    console = make_console()
    counts, metrics, tokens = document["counts"], document["metrics"], document["tokens"]
    table = Table("", "", box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False, show_header=False)

    def row(name: str, text: str) -> None:
        table.add_row(name, visible(text))

    def numbers(prefix: str, *names: str) -> str:
        shown = ((name, metrics.get(prefix.format(name))) for name in names)
        return "  ".join(f"{name} {value:.4g}" for name, value in shown if value is not None)

    row("job", document["run"]["job_arn"])
    row("rollouts", f"{counts['planned']} planned: {counts['rewarded']} rewarded, {counts['failed']} failed, "
                    f"{counts['not_run']} not run; {counts['attempts']} attempts")  # fmt: skip
    row("reward", numbers("reward/{}", "mean", "std", "min", "max", "valid_mean", "zero_frac"))
    row("within groups", numbers("reward/{}_within_groups", "mean", "std", "min", "max"))
    for name, key in (("pass@k", "reward/pass_at_"), ("pass^k", "reward/pass_power_")):
        row(name, "  ".join(f"{k.removeprefix(key)}: {v:.4g}" for k, v in metrics.items() if k.startswith(key)))
    row("turns", numbers("turns/{}", "mean", "min", "max"))
    row("tokens", f"{tokens['prompt']:,} prompt, {tokens['response']:,} response")
    for failure in document["failures"]:
        row("failed", f"{failure['count']} × {failure['text']}")
        for each in failure["reasons"][:SHOWN_REASONS]:
            row("", f"{each['count']} × {each['reason']}")
        if (more := len(failure["reasons"]) - SHOWN_REASONS) > 0:
            row("", f"… and {more} other reasons")
    found = document["verdict"]["counts"]
    row("conduct", "  ".join(f"{kind}: {count}" for kind, count in found.items()) or "nothing to complain of")
    row("report", str(path))
    console.print(table)
    sys.stdout.flush()
