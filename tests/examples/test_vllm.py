"""Examples against the real vLLM, 32 rows four times each: the rewards differ, and the report says what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from emulator.settings import Settings
from emulator.testing import running_server
from emulator.trajectory import Status
from tests.contract.conftest import vllm_settings, wait_until_ready
from tests.examples.agents import SERVERS
from tests.examples.driving import Run, drive
from tests.examples.recomputing import recomputed

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]

ROWS, GROUP_SIZE = 32, 4

#: The lower the temperature, the more often this small model writes a call of the tool as it shall be.
SAMPLING = ("--temperature", "0.5", "--max-tokens", "64")


@dataclass(frozen=True)
class Emulator:
    """In front of vLLM."""

    url: str
    database: Path


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """One whose model is ready."""
    folder = tmp_path_factory.mktemp("examples-vllm")
    database = folder / "trajectories.db"
    choice: dict[str, Any] = {"vllm_log": str(folder / "vllm.log"), **vllm_settings()}
    settings = Settings(port=0, database=str(database), **choice)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with running_server(settings) as server, httpx2.Client(base_url=f"{server.url}/_emulator") as management:
            wait_until_ready(management, folder / "vllm.log")
            yield Emulator(server.url, database)


@pytest.mark.parametrize("name", ["boto3_streaming", "openai_tools", "strands_handler", "langchain_agent"])
def test_rewards_differ_and_the_report_says_what_is_stored(
    name: str, example: Callable[[str], str], emulator: Emulator
) -> None:
    run = drive(
        name, example(name) if name in SERVERS else None, emulator.database, *SAMPLING,
        "--endpoint", emulator.url, "--limit", str(ROWS), "--group-size", str(GROUP_SIZE),
        "--rate", "none", "--concurrency", "16", "--retries", "1",
    )  # fmt: skip
    assert (run.report["counts"]["planned"], run.report["counts"]["not_run"]) == (ROWS * GROUP_SIZE, 0)
    assert run.report["metrics"] == pytest.approx(recomputed(run, rows=ROWS, group_size=GROUP_SIZE), abs=1e-12)
    assert_rewards_differ(run)


def assert_rewards_differ(run: Run) -> None:
    """Some rollouts get their reward and others do not, within groups too: there is something to learn from them."""
    metrics = run.report["metrics"]
    assert 0 < metrics["reward/mean"] < 1, run.printed
    assert metrics["reward/std_within_groups"] > 0, run.printed
    assert metrics["reward/pass_at_1"] < metrics["reward/pass_at_4"], run.printed
    assert {trajectory.status for trajectory, _ in run.stored.values()} == {Status.REWARD_RECEIVED}
