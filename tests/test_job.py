"""A job moves as its table says, and in no other way."""

from __future__ import annotations

import itertools

import pytest
from botocore.loaders import Loader

from emulator.job import (
    ACTIVE,
    MAX_TRANSITIONS,
    NEXT,
    Category,
    InvalidMove,
    Job,
    JobArn,
    JobStatus,
    SecondaryStatus,
    Transition,
    move,
)

SHAPES = Loader().load_service_model("sagemaker", "service-2")["shapes"]
ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/arithmetic"


def a_job(status: SecondaryStatus = SecondaryStatus.STARTING) -> Job:
    return Job(
        arn=ARN,
        category=Category.TRAINING,
        name="arithmetic",
        role_arn="arn:aws:iam::123456789012:role/r",
        schema_version="1.0.0",
        document="{}",
        created_at=1,
        modified_at=1,
        transitions=(Transition(status, 1, message="Job created"),),
    )


def test_the_statuses_are_those_of_the_service_model() -> None:
    assert list(JobStatus) == SHAPES["JobStatus"]["enum"]
    assert set(SecondaryStatus) == set(SHAPES["JobSecondaryStatus"]["enum"])
    assert list(Category) == SHAPES["JobCategory"]["enum"]
    assert SHAPES["JobSecondaryStatusTransitions"]["max"] == MAX_TRANSITIONS


@pytest.mark.parametrize(("before", "to"), [*itertools.product(SecondaryStatus, SecondaryStatus)])
def test_a_job_moves_where_its_table_says(before: SecondaryStatus, to: SecondaryStatus) -> None:
    job = a_job(before)
    if to.primary in NEXT[before.primary]:
        assert move(job, to, 2).secondary_status is to
    else:
        with pytest.raises(InvalidMove, match=f"is {before.primary}, and cannot become {to.primary}"):
            move(job, to, 2)


def test_every_status_can_end() -> None:
    for status in JobStatus:
        reached = {status}
        while JobStatus.DELETING not in reached:
            more = reached.union(*(NEXT[each] for each in reached))
            assert more != reached, f"{status} cannot end"
            reached = more


def test_transitions_follow_each_other() -> None:
    job = move(a_job(), SecondaryStatus.DOWNLOADING, 5, "Downloading input data")
    assert job.transitions == (
        Transition(SecondaryStatus.STARTING, 1, 5, "Job created"),
        Transition(SecondaryStatus.DOWNLOADING, 5, None, "Downloading input data"),
    )
    assert (job.modified_at, job.ended_at, job.failure_reason) == (5, None, None)


def test_a_status_tells_what_it_is_at_without_another_transition() -> None:
    job = move(a_job(SecondaryStatus.TRAINING), SecondaryStatus.TRAINING, 9, "step 2/10")
    assert job.transitions == (Transition(SecondaryStatus.TRAINING, 1, None, "step 2/10"),)


def test_a_job_that_completed_has_an_empty_reason_one_that_failed_its_own() -> None:
    completed = move(a_job(SecondaryStatus.TRAINING), SecondaryStatus.COMPLETED, 7, "Job completed")
    assert (completed.failure_reason, completed.ended_at, completed.transitions[-1].end) == ("", 7, 7)
    failed = move(a_job(), SecondaryStatus.FAILED, 7, reason="ClientError: no prompts")
    assert (failed.failure_reason, failed.ended_at, failed.status) == ("ClientError: no prompts", 7, JobStatus.FAILED)


def test_deleting_keeps_when_the_job_ended() -> None:
    job = move(move(a_job(), SecondaryStatus.FAILED, 7, reason="no"), SecondaryStatus.DELETING, 9)
    assert (job.ended_at, job.failure_reason, job.status) == (7, "no", JobStatus.DELETING)


def test_only_the_last_transitions_are_kept() -> None:
    job = a_job()
    for time in range(2, 202):
        to = SecondaryStatus.RESTARTING if time % 2 else SecondaryStatus.TRAINING
        job = move(job, to, time)
    assert len(job.transitions) == MAX_TRANSITIONS
    assert job.transitions[-1].start == 201


def test_those_under_way_are_the_ones_that_can_be_told_to_do_something() -> None:
    assert {status for status in JobStatus if JobStatus.FAILED in NEXT[status]} == ACTIVE


def test_an_arn_is_its_parts() -> None:
    assert str(JobArn.parse(ARN)) == ARN
