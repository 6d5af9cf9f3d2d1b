"""The SageMaker SDK does whole rollouts: its tokens, its feedback client, its handler and its two adapters.

They run in one process of the SDK's own environment, `sagemaker_rollouts`; the tests read its report and the
databases of the two emulators, one lenient, one strict, that it talked to.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.environments import client_variables, program
from tests.clients.question import ANSWER
from tests.clients.rollouts import KEY_PAIR, StoredRollout, stored_rollout
from tests.conftest import JOB_ARN
from tests.stored import all_stored

MODES = ("lenient", "strict")
BAD_TOKEN = "Authentication failed: Please make sure your API Key is valid"


@dataclass(frozen=True)
class Report:
    """What the rollouts returned or raised in the SDK's process, and what the emulators stored of them."""

    rollouts: dict[str, dict[str, dict[str, Any]]]
    looked_up: list[str]
    folder: Path

    def returned(self, mode: str, name: str) -> Any:
        """What a rollout returned; it must not have raised."""
        outcome = self.rollouts[mode][name]
        assert outcome["raised"] is None, outcome["where"]
        return outcome["returned"]

    def raised(self, mode: str, name: str) -> str:
        """What a rollout raised."""
        outcome = self.rollouts[mode][name]
        assert outcome["raised"] is not None, f"it returned {outcome['returned']}"
        text: str = outcome["raised"]
        return text

    def stored(self, mode: str, name: str) -> StoredRollout:
        """A rollout whose turns are all there."""
        rollout = stored_rollout(self.folder / f"{mode}.db", f"{mode}-{name}")
        rollout.assert_whole_rollout()
        assert rollout.trajectory.job_arn == JOB_ARN
        return rollout

    def is_stored(self, mode: str, name: str) -> bool:
        """Whether there is a trajectory at all."""
        return (JOB_ARN, f"{mode}-{name}") in all_stored(self.folder / f"{mode}.db")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Every rollout of the program, done once."""
    folder = tmp_path_factory.mktemp("sagemaker")
    python, result = str(program("sagemaker", "python")), folder / "report.json"
    lenient = Settings(port=0, database=str(folder / "lenient.db"))
    strict = Settings(
        port=0, database=str(folder / "strict.db"), auth="strict", key_pairs=(KEY_PAIR,), account="123456789012"
    )
    with running_server(lenient) as first, running_server(strict) as second:
        command = [python, "-m", "tests.clients.sagemaker_rollouts", str(result), JOB_ARN]
        done = subprocess.run(
            [*command, f"lenient={first.url}", f"strict={second.url}"],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
            env=client_variables(),
        )
    assert done.returncode == 0, done.stderr
    return Report(**json.loads(result.read_text()), folder=folder)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    """Whether the emulator verifies the tokens."""
    name: str = request.param
    return name


def test_nothing_but_this_machine_was_looked_up(report: Report) -> None:
    assert report.looked_up == []


@pytest.mark.parametrize("name", ["langchain_whole", "langchain_stream", "langchain_async_stream", "strands_async"])
def test_an_adapters_agent_does_a_whole_rollout(name: str, mode: str, report: Report) -> None:
    assert report.returned(mode, name) == {"answer": ANSWER, "reward": 1.0}
    rollout = report.stored(mode, name)
    assert rollout.state == ("reward-received", "ready", [1.0], True)
    streams = name != "langchain_whole"
    assert {(turn.content_type or "").startswith("text/event-stream") for turn in rollout.turns} == {streams}


def test_the_langchain_adapters_asynchronous_client_fails_before_it_sends_anything(mode: str, report: Report) -> None:
    # A defect of sagemaker-train 1.27, not of the emulator: httpx awaits hooks, and the adapter's is a plain function.
    assert report.raised(mode, "langchain_async_adapter").startswith("TypeError: object NoneType can't be used")
    assert not report.is_stored(mode, "langchain_async_adapter")


def test_a_strands_agent_without_the_handler_does_a_whole_rollout(mode: str, report: Report) -> None:
    assert report.returned(mode, "strands_standalone") == {"answer": ANSWER}
    assert report.stored(mode, "strands_standalone").state == ("reward-received", "ready", [1.0], True)


@pytest.mark.parametrize("name", ["strands_async", "strands_standalone"])
def test_the_strands_adapter_sends_the_inference_parameters_in_either_spelling(
    name: str, mode: str, report: Report
) -> None:
    for turn in report.stored(mode, name).turns:
        request = json.loads(turn.request)
        assert (request["temperature"], request["max_tokens"], request["top_p"]) == (0.5, 200, 0.75)
        assert request["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize(("name", "rewards"), [("handler_sync", [0.5]), ("handler_async", [0.0, 0.25, 1.0])])
def test_the_handler_seals_and_rewards_what_the_agent_returns(
    name: str, rewards: list[float], mode: str, report: Report
) -> None:
    assert report.returned(mode, name)["answer"] == ANSWER
    assert report.stored(mode, name).state == ("reward-received", "ready", rewards, True)


def test_the_handler_only_seals_what_has_no_reward(mode: str, report: Report) -> None:
    assert report.returned(mode, "handler_without_reward") == {"answer": ANSWER}
    assert report.stored(mode, "handler_without_reward").state == ("ready", "ready", None, False)


@pytest.mark.parametrize("name", ["handler_that_raises", "handler_async_that_raises"])
def test_the_handler_reports_an_exception_as_failed(name: str, mode: str, report: Report) -> None:
    assert report.raised(mode, name) == "RuntimeError: the agent failed"
    assert report.stored(mode, name).state == ("reward-received", "failed", [0.0], False)


def test_the_handler_reports_an_error_status_as_failed(mode: str, report: Report) -> None:
    assert report.returned(mode, "handler_with_status_error")["status"] == "error"
    assert report.stored(mode, "handler_with_status_error").state == ("reward-received", "failed", [0.0], False)


@pytest.mark.parametrize("name", ["handler_with_status_skipped", "handler_that_returns_no_dict"])
def test_the_handler_leaves_open_what_says_nothing(name: str, mode: str, report: Report) -> None:
    assert report.returned(mode, name) in ({"status": "skipped"}, ANSWER)
    assert report.stored(mode, name).state == ("open", None, None, False)


def test_the_handler_recognizes_a_trajectory_that_is_sealed_already(mode: str, report: Report) -> None:
    returned = report.returned(mode, "handler_of_a_sealed_trajectory")
    assert returned["status"] == "skipped"
    assert "not in valid status" in returned["error"]
    assert report.stored(mode, "handler_of_a_sealed_trajectory").state == ("reward-received", "ready", [0.75], True)


def test_the_feedback_client_completes_and_rewards(mode: str, report: Report) -> None:
    assert report.returned(mode, "feedback_complete") == {"answer": ANSWER}
    assert report.stored(mode, "feedback_complete").state == ("reward-received", "ready", [1.0], True)


def test_the_feedback_client_reports_an_error_as_failed(mode: str, report: Report) -> None:
    assert report.returned(mode, "feedback_error") == {"answer": ANSWER}
    assert report.stored(mode, "feedback_error").state == ("reward-received", "failed", [0.0], False)


def test_the_feedback_client_finds_the_endpoint_in_the_environment(mode: str, report: Report) -> None:
    assert report.returned(mode, "feedback_through_the_environment") == {"answer": ANSWER}
    rollout = report.stored(mode, "feedback_through_the_environment")
    assert rollout.state == ("reward-received", "ready", [0.0, 0.0, 1.0], True)


def test_a_second_report_is_a_conflict_and_changes_nothing(mode: str, report: Report) -> None:
    assert report.raised(mode, "feedback_twice").startswith("HTTPError: 409 Client Error: Conflict")
    assert report.stored(mode, "feedback_twice").state == ("reward-received", "ready", [0.25], True)


def test_feedback_for_an_unknown_trajectory_is_swallowed_by_the_sdk(mode: str, report: Report) -> None:
    assert report.returned(mode, "feedback_for_no_trajectory") == {}
    assert not report.is_stored(mode, "feedback_for_no_trajectory")


@pytest.mark.parametrize("name", ["wrong_secret", "wrong_region"])
def test_a_wrong_token_is_refused_where_it_is_verified(name: str, report: Report) -> None:
    assert report.returned("lenient", name) == {"answer": ANSWER}
    assert report.raised("strict", name) == f"PermissionDeniedError: Error code: 403 - {BAD_TOKEN}"
    assert not report.is_stored("strict", name)


def test_feedback_with_a_wrong_token_is_refused_where_it_is_verified(report: Report) -> None:
    assert report.returned("lenient", "feedback_with_wrong_secret") == {"answer": ANSWER}
    assert report.raised("strict", "feedback_with_wrong_secret").startswith("HTTPError: 403 Client Error: Forbidden")
    assert report.stored("strict", "feedback_with_wrong_secret").state == ("open", None, None, False)
