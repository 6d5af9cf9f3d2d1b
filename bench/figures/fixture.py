"""What the pytest plugin costs a test suite: tests with its fixture beside tests without, in one run of pytest."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.contenders import Contender
from bench.plan import Scale, Study
from bench.processes import end, start
from bench.results import Figure, Results
from bench.rig import ContenderFailed, Rig, say

TESTS = 100

#: What a test module imports besides: nothing, or the clients that an agent has anyway.
SUITES = {"bare suite": "", "boto3, openai": "import boto3, openai\n"}

COLUMNS = tuple(SUITES)
FIRST = Figure(
    "fixture_first", "job_runtime: set up and tear down of the first test, more than without", "ms", columns=COLUMNS
)
EACH = Figure("fixture_each", "job_runtime: the same of each further test, mean", "ms", columns=COLUMNS)
STOP = Figure("fixture_stop", "job_runtime: the end of the session", "ms", columns=COLUMNS)
FOREIGN = Figure("fixture_foreign", "a suite that does not use it: importing the plugin", "ms", columns=COLUMNS)

_TESTS = f"""
import pytest

@pytest.mark.parametrize("number", range({TESTS}))
def test_without(number):
    pass

@pytest.mark.parametrize("number", range({TESTS}))
def test_with(job_runtime, number):
    pass

def test_after():
    pass
"""

#: Times set-up and tear-down of each test, around all fixtures.
_CONFTEST = """
import json, time
import pytest

spent = {}

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    began = time.perf_counter()
    yield
    spent[item.name] = time.perf_counter() - began

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item, nextitem):
    began = time.perf_counter()
    yield
    spent[item.name] += time.perf_counter() - began

def pytest_sessionfinish(session):
    with open("spent.json", "w") as file:
        json.dump(spent, file)
"""

_IMPORT = """
import time
import pytest
%s
began = time.perf_counter()
import emulator.pytest_plugin
print(1e3 * (time.perf_counter() - began))
"""


def _fixture(rig: Rig, _contenders: Sequence[Contender], results: Results, scale: Scale) -> None:
    rounds = 2 * scale.rounds + 1
    for _ in range(rounds + 1):
        for column, imports in SUITES.items():
            try:
                spent, imported = _run(rig, imports)
            except ContenderFailed as error:
                results.fail([FIRST, EACH, STOP, FOREIGN], column, str(error))
                continue
            if not results.values.get(("warm-up", column)):  # the first run compiles what others find compiled
                results.values["warm-up", column] = [0.0]
                continue
            without = statistics.median(spent[f"test_without[{number}]"] for number in range(1, TESTS))
            each = [spent[f"test_with[{number}]"] - without for number in range(TESTS)]
            results.add(FIRST, column, 1e3 * each[0])
            results.add(EACH, column, 1e3 * statistics.fmean(each[1:]))
            results.add(STOP, column, 1e3 * (spent["test_after"] - without))
            results.add(FOREIGN, column, imported)
    for column in COLUMNS:
        results.values.pop(("warm-up", column), None)
    say(f"the pytest plugin, {rounds} rounds")


def _run(rig: Rig, imports: str) -> tuple[dict[str, float], float]:
    """Seconds of each test's fixtures, and milliseconds of the plugin's import. Raises ContenderFailed."""
    folder = Path(tempfile.mkdtemp(prefix="fixture-", dir=rig.folder))
    try:
        (folder / "pytest.ini").write_text("[pytest]\n")  # else that of this repository would count
        (folder / "conftest.py").write_text(_CONFTEST)
        (folder / "test_fixture.py").write_text(imports + _TESTS)
        # Other plugins of this environment are no part of what is measured.
        plugins = ["-p", "emulator.pytest_plugin", "-p", "no:cacheprovider"]
        pytest = [sys.executable, "-m", "pytest", "-q", *plugins, f"--rootdir={folder}", str(folder)]
        _finish(rig, pytest, folder, {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
        log = _finish(rig, [sys.executable, "-c", _IMPORT % imports], folder, {})
        spent: dict[str, float] = json.loads((folder / "spent.json").read_text())
        return spent, float(log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _finish(rig: Rig, command: list[str], folder: Path, environment: dict[str, str]) -> str:
    """Run a command to its end; what it said. Raises ContenderFailed."""
    log = folder / "log"
    process = start(["env", "-C", str(folder), *command], rig.cores.contender, log, environment)
    try:
        status = process.wait(60)
    finally:
        end(process)
    if status:
        raise ContenderFailed(f"pytest ended with {status}: {log.read_text()[-300:]}")
    return log.read_text()


STUDIES = [Study("fixture", [FIRST, EACH, STOP, FOREIGN], _fixture, quick=True)]
FIGURES = [FIRST, EACH, STOP, FOREIGN]
