"""What README and docs/rollout.md show of rollouts is so."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest

from emulator.commands.rollout import configure
from emulator.trainer.agents import find_agent
from emulator.trainer.payloads import Destination, InferenceParameters, rollout_request
from emulator.trainer.report import run_metrics
from emulator.trainer.rollouts import Attempt, FailureText, RolloutResult, Row, TurnTokens
from emulator.trajectory import TurnStatus
from tests.commands.rolling import ROOT, report, rolled

README = (ROOT / "README.md").read_text().partition("\n## Roll out\n")[2].partition("\n## ")[0]
DOCUMENT = (ROOT / "docs" / "rollout.md").read_text()

COMMANDS = re.findall(r"^job-runtime-local rollout (.*)$", README + DOCUMENT, re.MULTILINE)


def block(language: str, text: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_agent_of_the_readme_rolls_out(tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(block("py", README))
    shutil.copy(ROOT / "examples" / "arithmetic.jsonl", tmp_path)
    status, out, errors = rolled(tmp_path, *shlex.split(COMMANDS[0]))
    assert status == 0, errors
    assert "rewarded, 0 failed" in out
    assert report(tmp_path)["metrics"]["reward/rollouts_per_prompt"] == 4


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_ones(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_forwarder.py").touch()
    parser = argparse.ArgumentParser()
    configure(parser)
    find_agent(parser.parse_args(shlex.split(command)).agent)


def test_the_request_is_what_an_agent_gets() -> None:
    shown = json.loads(block("json", DOCUMENT))
    metadata = shown["metadata"]
    to = Destination(metadata["job_arn"], metadata["trajectory_id"], metadata["endpoint"], metadata["region"])
    row = Row(0, shown["prompt"], shown["instance"])
    assert shown == rollout_request(row, to, InferenceParameters())


def test_the_failures_are_all_there_are() -> None:
    assert set(re.findall(r"^\| ([TN][^|]+?) \|", DOCUMENT, re.MULTILINE)) >= {text.value for text in FailureText}


def test_the_metrics_are_all_there_are() -> None:
    rows = re.findall(r"^\| (`(?:reward|turns|tokens)/.*?) \|", DOCUMENT, re.MULTILINE)
    named = set()
    for row in rows:
        first, *others = re.findall(r"`(.*?)`", row)
        group, _, name = first.partition("/")
        # `std_…` is short for what the first one has after its `mean`.
        named |= {first} | {f"{group}/{each.replace('…', name.partition('_')[2])}" for each in others}
    turn = TurnTokens(TurnStatus.COMPLETED, 1, 1)
    result = RolloutResult(0, 0, (Attempt("t", None, 1.0),), (1.0,), (turn,))
    made = {re.sub(r"_1$", "_K", name) for name in run_metrics([result], group_size=1)}
    assert named == made
