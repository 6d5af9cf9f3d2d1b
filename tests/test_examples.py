"""The examples run, against the embedded model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.server import Server
from emulator.store import queries
from emulator.store.database import read_engine
from emulator.trajectory import Status
from examples import calculator
from examples.reward import reward

ROOT = Path(__file__).parent.parent


def run(*arguments: str, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | (environment or {}),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("agent", ["boto3_agent", "openai_agent"])
def test_an_agent_does_a_whole_rollout_of_several_turns(agent: str, server: Server, database: Path) -> None:
    environment = {
        "AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME": server.url,
        "OPENAI_BASE_URL": f"{server.url}/v1",
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
    }
    printed = run("-m", f"examples.{agent}", "First work out 9 * 9, then 81 * 9.", "729", environment=environment)
    assert printed == "1.0\n"
    with read_engine(database).connect() as connection:
        (trajectory,) = queries.list_trajectories(connection, queries.TrajectoryFilter(), limit=10)
    assert (trajectory.status, trajectory.rewards, trajectory.turns) == (Status.REWARD_RECEIVED, [1.0], 3)
    assert trajectory.eligible


def test_the_demo_shows_every_trajectory_with_its_turns_tokens_and_reward() -> None:
    printed = run("-m", "examples.demo", "--limit", "2", environment={"COLUMNS": "120"})
    assert "4/4" in printed
    assert printed.count("reward-received") == 4
    assert "tokens out" in printed


def test_a_demo_whose_rollouts_break_says_so_and_fails() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--limit", "1", "--model", "http://127.0.0.1:9", "--patience", "0"],
        check=False,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "the model server was not ready in time" in done.stderr


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * 7 + 5", "89"),
        ("-(3 - 10) / 2", "3.5"),
        ("144 / 12", "12"),
        ("1 / 0", "error: division by zero"),
        ("__import__('os')", "error: only numbers, + - * / and parentheses"),
        ("9 ** 9 ** 9", "error: only numbers, + - * / and parentheses"),
        ("2 +", "error: invalid syntax (<unknown>, line 1)"),
    ],
)
def test_the_calculator_calculates_and_does_nothing_else(expression: str, value: str) -> None:
    assert calculator.calculate(expression) == value


def test_a_reward_is_for_the_last_number_of_the_answer() -> None:
    assert reward("12 * 7 is 84, so the answer is 89.", "89") == 1.0
    assert reward("The answer is 1,234", "1234") == 1.0
    assert reward("I do not know", "89") == 0.0
    assert reward("89 or 90", "89") == 0.0
