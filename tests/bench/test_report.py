"""What a run leaves behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import report
from bench.machine import this_machine
from bench.report import document, write, write_readme
from bench.results import Figure, Results
from bench.targets import Target, evaluate

RATE = Figure("rate_32", "samples a second", "/s", peer="vllm-router")
TARGET = Target("rate", "rate_32", "normal", 100)


@pytest.fixture
def results() -> Results:
    found = Results()
    for value in (300.0, 100.0, 200.0):
        found.add(RATE, "normal", value)
    found.add(RATE, "vllm-router", 400.0)
    found.skip([RATE], "nginx", "nginx is not installed")
    return found


def test_the_json_holds_every_round_every_reason_and_every_target(results: Results, tmp_path: Path) -> None:
    (tmp_path / "of_an_earlier_run.svg").write_text("")
    run = document(this_machine(), {"rounds": 3}, [RATE], results, [evaluate(TARGET, results)])
    files = write(tmp_path, run, results)
    assert sorted(files) == sorted(tmp_path.iterdir())
    read = json.loads((tmp_path / "results.json").read_text())
    figure = read["figures"]["rate_32"]
    assert figure["measured"]["normal"] == {"median": 200.0, "over_peer": 0.5, "rounds": [300.0, 100.0, 200.0]}
    assert figure["not_measured"] == {"nginx": "nginx is not installed"}
    assert read["targets"] == [
        {"about": "rate", "bound": "at most 100", "value": 200.0, "verdict": "MISSED", "reason": ""}
    ]
    assert {"processor", "cores", "memory_gib", "kernel", "python", "date", "commit"} <= read["machine"].keys()


def test_the_readme_is_rewritten_between_its_markers_only(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results: begin -->\nold\n<!-- results: end -->\nafter\n")
    monkeypatch.setattr(report, "README", readme)
    write_readme("A quiet machine.", [RATE], ["vllm-router", "normal"], results, [evaluate(TARGET, results)])
    text = readme.read_text()
    assert text.startswith("before\n<!-- results: begin -->\n")
    assert text.endswith("<!-- results: end -->\nafter\n")
    assert "old" not in text
    assert "A quiet machine." in text
    assert "| samples a second (/s, × vllm-router) | 400 | 200 (0.500×) |" in text


def test_the_readme_of_the_benchmark_has_the_markers() -> None:
    assert len(report._MARKED.findall(report.README.read_text())) == 1
