"""Servers that are killed in the middle of jobs, and databases that take nothing: no job is under way for ever."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from tests.jobs.conftest import AWS, aws_to_kill, training, trajectories
from tests.test_crash import limit_file_size

NAMED = {"JobName": "j", "JobCategory": "AgentRFT"}


@pytest.fixture
def go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Agents go on when it is there."""
    file = tmp_path / "go"
    monkeypatch.setenv("JOBS_TEST_FILE", str(file))
    return file


def check_counts(aws: AWS, job: dict[str, Any], arn: str, rollouts: int) -> None:
    """No rollout was counted twice."""
    eligible = [each for each in trajectories(aws, arn) if each["eligible"]]
    assert len(eligible) == rollouts
    assert len({each["trajectory_id"].rpartition("-")[0] for each in eligible}) == rollouts
    usage = job["Output"]["BillableTokenUsage"]
    for name, member in (("PrefillTokenCount", "prompt_tokens"), ("SampleTokenCount", "completion_tokens")):
        assert usage[name] == sum(each["usage"][member] for each in eligible)


def test_a_job_whose_database_takes_nothing_fails_when_it_takes_something_again(database: Path, go: Path) -> None:
    with aws_to_kill(database, "good_when_there_is_the_file") as aws:
        aws.prepare()
        arn = aws.create(training())
        aws.until(lambda _: len(trajectories(aws, arn)) == 4)
        limit_file_size(aws.server.process.pid, 20_000)  # the log of the server has room, the database has not
        go.touch()
        aws.until(lambda _: "its end cannot be stored yet" in aws.server.log.read_text())
        limit_file_size(aws.server.process.pid, resource.RLIM_INFINITY)
        job = aws.ended()
        assert job["JobStatus"] == "Failed"
        assert "could not be written" in job["FailureReason"]
        aws.client("sagemaker").delete_job(**NAMED)


def test_two_kills_in_a_row_cost_no_rollout_and_count_none_twice(database: Path, go: Path) -> None:
    with aws_to_kill(database, "good_when_there_is_the_file") as aws:
        aws.prepare()
        arn = aws.create(training())
        aws.until(lambda _: len(trajectories(aws, arn)) == 4)
        aws.server.kill()
    with aws_to_kill(database, "good_when_there_is_the_file") as aws:
        aws.until(lambda _: len(trajectories(aws, arn)) == 8)
        go.touch()
        aws.until(lambda job: job["Output"].get("RolloutInfo", {}).get("Completed", 0) > 0)
        aws.server.kill()
    with aws_to_kill(database, "good") as aws:
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        check_counts(aws, job, arn, 8)
        assert "Traceback" not in aws.server.log.read_text()


def test_a_job_that_was_stopping_when_its_server_was_killed_stops(database: Path, go: Path) -> None:
    with aws_to_kill(database, "good_when_there_is_the_file") as aws:
        aws.prepare()
        arn = aws.create(training())
        aws.until(lambda _: len(trajectories(aws, arn)) == 4)
        aws.client("sagemaker").stop_job(**NAMED)
        aws.server.kill()
    with aws_to_kill(database, "never_answers") as aws:
        assert aws.ended(within=20)["JobStatus"] == "Stopped"
