"""Examples against the real vLLM, 32 rows four times each, recorded; then once more from the cassette, without vLLM."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
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
NAMES = ["boto3_streaming", "openai_tools", "strands_handler", "langchain_agent"]

#: The lower the temperature, the more often this small model writes a call of the tool as it shall be.
#: Without retries: whose attempts failed is chance, and a cassette holds so many attempts and no more.
OPTIONS = (
    "--limit", str(ROWS), "--group-size", str(GROUP_SIZE), "--temperature", "0.5", "--max-tokens", "64",
    "--rate", "none", "--concurrency", "16", "--retries", "0",
)  # fmt: skip


@dataclass(frozen=True)
class Recording:
    """What was done with vLLM, which has ended."""

    runs: Mapping[str, Run]
    cassette: Path
    database: Path


@pytest.fixture(scope="module")
def recording(example: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """A run of each example."""
    folder = tmp_path_factory.mktemp("examples-vllm")
    database, cassette, log = folder / "trajectories.db", folder / "cassette.yaml", folder / "vllm.log"
    choice: dict[str, Any] = {**vllm_settings(), "vllm_log": str(log), "database": str(database)}
    choice |= {"record": choice["model"], "model": f"cassette:{cassette}"}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("HF_HUB_OFFLINE", "1")
        environment.setenv("VLLM_CPU_KVCACHE_SPACE", "1")
        with running_server(Settings(port=0, **choice)) as server:
            with httpx2.Client(base_url=f"{server.url}/_emulator") as management:
                wait_until_ready(management, log)
            runs = {
                name: drive(name, url_of(name, example), database, *OPTIONS, "--endpoint", server.url)
                for name in NAMES
            }  # fmt: skip
    return Recording(runs, cassette, database)


def url_of(name: str, example: Callable[[str], str]) -> str | None:
    """Where an example listens, if it does."""
    return example(name) if name in SERVERS else None


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


def test_rewards_differ(name: str, recording: Recording) -> None:
    """Some rollouts get their reward and others do not, within groups too: there is something to learn from them."""
    run = recording.runs[name]
    assert (run.report["counts"]["planned"], run.report["counts"]["not_run"]) == (ROWS * GROUP_SIZE, 0)
    assert {trajectory.status for trajectory, _ in run.stored.values()} == {Status.REWARD_RECEIVED}
    metrics = run.report["metrics"]
    assert 0 < metrics["reward/mean"] < 1, run.printed
    assert metrics["reward/std_within_groups"] > 0, run.printed
    assert metrics["reward/pass_at_1"] < metrics["reward/pass_at_4"], run.printed


def test_the_report_says_what_is_stored(name: str, recording: Recording) -> None:
    run = recording.runs[name]
    assert run.report["metrics"] == pytest.approx(recomputed(run, rows=ROWS, group_size=GROUP_SIZE), abs=1e-12)


def test_the_cassette_replays_the_run_byte_for_byte_with_no_model_server(
    name: str, example: Callable[[str], str], recording: Recording, tmp_path: Path
) -> None:
    once = recording.runs[name]
    again = drive(
        name, url_of(name, example), tmp_path / "again.db", *OPTIONS, "--database", str(tmp_path / "again.db"),
        "--model", f"cassette:{recording.cassette}", "--cassette-used-up", "refuse",
    )  # fmt: skip
    assert conversations(again) == conversations(once)
    assert again.report["metrics"] == once.report["metrics"]


def conversations(run: Run) -> Counter[tuple[tuple[bytes, bytes, str | None], ...]]:
    """Each trajectory's bytes, and how many have the same: rollouts have other names in each run."""
    return Counter(
        tuple((turn.request, turn.response, turn.content_type) for turn in turns) for _, turns in run.stored.values()
    )
