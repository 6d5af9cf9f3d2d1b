"""A rule file, read when the server starts, and again whenever it has changed."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from emulator.inference.scripted.rules import Rules
from emulator.inference.scripted.wrong_script import Problem, WrongScript, line_of

log = logging.getLogger(__name__)


def load(path: Path) -> Rules:
    """The rules of a file: Python where its name ends so, else YAML. Raises WrongScript."""
    try:
        source = path.read_bytes()
    except OSError as error:
        raise WrongScript(path, [Problem(1, error.strerror or "cannot be read")]) from None
    if path.suffix == ".py":
        from emulator.inference.scripted import python_file

        return python_file.parse(source, path)
    from emulator.inference.scripted import yaml_rules

    return yaml_rules.parse(source, path)


class ScriptFile:
    """A rule file that is watched by whoever asks for its rules. Raises WrongScript where it is wrong to begin with."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.problem: str | None = None  #: what is wrong with the file as it is now
        self._stamp = self._look()
        self._rules = load(self.path)

    def rules(self) -> Rules:
        """The rules of the file, as it is now or as it last was right."""
        stamp = self._look()
        if stamp != self._stamp:
            self._stamp = stamp
            self._reload()
        return self._rules

    def describe(self) -> str:
        """What it is, and what is wrong with it, in a few words."""
        rules = self.rules()
        said = f"{rules.count_text} of {self.path}"
        return said if self.problem is None else f"{said} AS IT WAS: it has changed, and is wrong: {self.problem}"

    def place(self, error: BaseException) -> str:
        """Where in the file an error came up, as a beginning of its message; nothing if it did not."""
        line = line_of(error, self.path)
        return "" if line is None else f"{self.path}:{line}: "

    def _look(self) -> tuple[int, ...] | None:
        """What changes when the file does."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - a third of the time of Path.stat, at each request
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _reload(self) -> None:
        try:
            self._rules = load(self.path)
        except WrongScript as error:
            self.problem = str(error)
            log.error("the rules have changed and are wrong; the old ones still answer: %s", "\n".join(error.lines))
        else:
            self.problem = None
            log.warning("%s has changed: %s", self.path, self._rules.count_text)
