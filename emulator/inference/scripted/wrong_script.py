"""What is wrong with a rule file, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong."""

    line: int
    message: str


class WrongScript(Exception):
    """A rule file cannot be used; its text is one line, `problems` are all that was found."""

    def __init__(self, path: Path, problems: Sequence[Problem]) -> None:
        self.path = path
        self.problems = sorted(problems, key=lambda problem: problem.line)
        first = self.lines[0]
        if len(problems) > 1:
            first += f" (and {len(problems) - 1} more: `job-runtime-local script check` lists them)"
        super().__init__(first)

    @property
    def lines(self) -> list[str]:
        """Each problem as `FILE:LINE: what is wrong`."""
        return [f"{self.path}:{each.line}: {each.message}" for each in self.problems]


def line_of(error: BaseException, path: Path) -> int | None:
    """The innermost line of a Python file that an error came from; None if it did not."""
    traceback, line = error.__traceback__, None
    while traceback is not None:
        if traceback.tb_frame.f_code.co_filename == str(path):
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line
