"""What load tests count is printed below the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.load.model import model_process

_FIGURES = "load"


@pytest.fixture(scope="session")
def model() -> Iterator[str]:
    """The URL of a model server whose answers follow from the requests."""
    with model_process() as url:
        yield url


@pytest.fixture
def report(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Takes a line of figures."""
    return lambda line: record_property(_FIGURES, line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures of all tests that had some."""
    reports = [each for kind in ("passed", "failed") for each in terminalreporter.getreports(kind)]
    lines = [value for each in reports for name, value in each.user_properties if name == _FIGURES]
    if lines:
        terminalreporter.section("load")
        for line in lines:
            terminalreporter.line(str(line))
