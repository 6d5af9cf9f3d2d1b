"""docs/testing.md: its examples are one test suite, which passes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.plugin.test_fixture import run

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = (ROOT / "docs" / "testing.md").read_text()

#: Each file that the document shows, by its name.
FILES = dict(re.findall(r"```(?:python|ini)\n# ([\w.]+)\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """The document's files in a folder."""
    for name, text in FILES.items():
        (pytester.path / name).write_text(text)
    return pytester


def test_every_example_names_its_file() -> None:
    assert len(FILES) == len(re.findall(r"^```(?:python|ini)$", TEXT, re.MULTILINE)) > 6


@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("test_") and "settings" not in name])
def test_the_examples_pass(suite: pytest.Pytester, name: str) -> None:
    (suite.path / "pytest.ini").unlink()
    outcomes = run(suite, name).parseoutcomes()
    assert set(outcomes) == {"passed"}
    assert outcomes["passed"] == len(re.findall(r"^ *(?:async )?def test_", FILES[name], re.MULTILINE))


def test_the_example_of_settings_passes_with_its_ini_file(suite: pytest.Pytester) -> None:
    assert run(suite, "test_settings.py").parseoutcomes() == {"passed": 2}


def test_the_readme_s_example_passes(suite: pytest.Pytester) -> None:
    (suite.path / "pytest.ini").unlink()
    example = re.search(r"```py\n(.*?)```", README.read_text(), re.DOTALL)
    assert example is not None
    suite.makepyfile(test_readme="from agent import run as my_agent\n\n" + example[1])
    assert run(suite, "test_readme.py").parseoutcomes() == {"passed": 1}


def test_unittest_runs_its_example_without_pytest(suite: pytest.Pytester) -> None:
    command = [sys.executable, "-W", "error", "-m", "unittest", "test_with_unittest"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=suite.path)
    assert done.returncode == 0, done.stderr
    assert "pytest" not in done.stderr


def test_the_report_of_a_failed_test_is_as_it_is_shown(suite: pytest.Pytester) -> None:
    (suite.path / "pytest.ini").unlink()
    suite.makepyfile(
        test_weather="""
from agent import run

def test_weather(job_runtime):
    job_runtime.model.reply("rainy")
    run(job_runtime.new_rollout("How is Rome?", instance={"answer": "sunny"}, trajectory_id="weather-1").payload)
    assert job_runtime.trajectory("weather-1").rewards == [1.0]
"""
    )
    shown = re.search(r"```text\n(.*?)```", TEXT, re.DOTALL)
    assert shown is not None
    result = run(suite, "test_weather.py")
    assert result.parseoutcomes() == {"failed": 1}
    result.stdout.fnmatch_lines([line.replace("…", "*") for line in shown[1].splitlines()])
