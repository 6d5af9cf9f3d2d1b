"""Each example does rollouts for `job-runtime-local rollout`, by the command that its documentation gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.agents import SERVERS
from tests.examples.driving import Run, drive
from tests.examples.recomputing import recomputed


def driven(
    name: str,
    url: str | None,
    database: Path,
    *options: str,
    rows: int = 3,
    group_size: int = 2,
    variables: dict[str, str] | None = None,
) -> Run:
    """A run; its report says what is stored."""
    size = ("--limit", str(rows), "--group-size", str(group_size), "--rate", "none")
    run = drive(name, url, database, *options, *size, "--database", str(database), variables=variables)
    assert run.status == 0, run.printed
    count = rows * group_size
    assert run.report["counts"] == {"planned": count, "rewarded": count, "failed": 0, "not_run": 0, "attempts": count}
    assert run.report["metrics"] == pytest.approx(recomputed(run, rows=rows, group_size=group_size), abs=1e-12)
    return run


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_an_example_that_serves_http_is_driven(name: str, example: Callable[[str], str], database: Path) -> None:
    run = driven(name, example(name), database)
    assert set(run.rewards) == ({0.0} if name == "boto3_streaming" else {1.0})  # as the embedded model has it


def test_the_example_that_is_a_plain_function_is_driven(database: Path) -> None:
    assert set(driven("openai_tools", None, database).rewards) == {1.0}


def test_the_example_that_is_a_lambda_function_is_driven(example: Callable[[str], str], database: Path) -> None:
    variables = {"AGENT_URL": f"{example('boto3_streaming')}/rollout"}
    assert set(driven("lambda_forwarder", None, database, variables=variables).rewards) == {0.0}


@pytest.mark.parametrize("name", ["boto3_streaming", "openai_tools", "openai_agents"])
def test_rewards_differ_with_a_scripted_model_that_is_right_by_chance(
    name: str, example: Callable[[str], str], database: Path
) -> None:
    model = ("--model", "scripted:examples/arithmetic_model.yaml")
    run = driven(name, example(name) if name in SERVERS else None, database, *model, rows=16, group_size=4)
    metrics = run.report["metrics"]
    assert 0 < metrics["reward/mean"] < 1
    assert metrics["reward/std_within_groups"] > 0
    assert metrics["reward/pass_power_4"] < metrics["reward/pass_at_1"] < metrics["reward/pass_at_4"]
