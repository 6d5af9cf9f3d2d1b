"""Each example does rollouts for `job-runtime-local rollout`, by the command that its documentation gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.examples.agents import SERVERS
from tests.examples.driving import Run, drive
from tests.examples.recomputing import recomputed

ROWS, GROUP_SIZE = 3, 2


def driven(name: str, url: str | None, database: Path, variables: dict[str, str] | None = None) -> Run:
    """A short run; its report says what is stored."""
    options = ("--database", str(database), "--limit", str(ROWS), "--group-size", str(GROUP_SIZE), "--rate", "none")
    run = drive(name, url, database, *options, variables=variables)
    assert run.status == 0, run.printed
    assert run.report["counts"] == {"planned": 6, "rewarded": 6, "failed": 0, "not_run": 0, "attempts": 6}
    assert run.report["metrics"] == pytest.approx(recomputed(run, rows=ROWS, group_size=GROUP_SIZE), abs=1e-12)
    return run


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_an_example_that_serves_http_is_driven(name: str, example: Callable[[str], str], database: Path) -> None:
    run = driven(name, example(name), database)
    assert set(run.rewards) == ({0.0} if name == "boto3_streaming" else {1.0})  # as the embedded model has it


def test_the_example_that_is_a_plain_function_is_driven(database: Path) -> None:
    assert set(driven("openai_tools", None, database).rewards) == {1.0}


def test_the_example_that_is_a_lambda_function_is_driven(example: Callable[[str], str], database: Path) -> None:
    variables = {"AGENT_URL": f"{example('boto3_streaming')}/rollout"}
    assert set(driven("lambda_forwarder", None, database, variables).rewards) == {0.0}
