"""Faults and the verdict, as a test has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emulator.faults import Fault, InvalidFault
from emulator.testing import JobRuntime, NoSuchTrajectory
from tests.plugin.test_fixture import AGENT, run

pytest_plugins = ["pytester"]

BODY = b'{"messages": [{"role": "user", "content": "hello"}]}'


@pytest.fixture(scope="module")
def shared() -> Iterator[JobRuntime]:
    with JobRuntime() as runtime:
        yield runtime


@pytest.fixture
def runtime(shared: JobRuntime) -> JobRuntime:
    shared.reset()
    return shared


def test_calls_suffer_a_fault_until_the_reset(runtime: JobRuntime) -> None:
    given = runtime.fault("quota", operation="Sample")
    client, rollout = runtime.client, runtime.new_rollout()
    with pytest.raises(client.exceptions.ServiceQuotaExceededException):
        client.sample(**rollout.keywords, Body=BODY)
    assert given.struck == 1
    runtime.reset()
    client.sample(**runtime.new_rollout().keywords, Body=BODY)
    assert runtime.faults.given == []


def test_faults_can_be_given_as_objects(runtime: JobRuntime) -> None:
    runtime.faults.add(Fault("error", error="ConflictException", operation="CompleteRollout", times=1))
    client, rollout = runtime.client, runtime.new_rollout()
    client.sample(**rollout.keywords, Body=BODY)
    with pytest.raises(client.exceptions.ConflictException):
        client.complete_rollout(**rollout.keywords)
    client.complete_rollout(**rollout.keywords)


def test_a_fault_that_cannot_be_is_refused(runtime: JobRuntime) -> None:
    with pytest.raises(InvalidFault, match="no kind of fault"):
        runtime.fault("flood")


def test_the_verdict_is_on_one_rollout_or_on_all(runtime: JobRuntime) -> None:
    client, good, bad = runtime.client, runtime.new_rollout(), runtime.new_rollout()
    for rollout in (good, bad):
        client.sample(**rollout.keywords, Body=BODY)
    client.complete_rollout(**good.keywords)
    client.update_reward(**good.keywords, Rewards=[1.0])
    assert runtime.verdict(good).findings == []
    assert [finding.kind for finding in runtime.verdict(bad).findings] == ["never-sealed"]
    assert runtime.verdict(bad, rollout_timeout=60).findings == []
    assert runtime.verdict().counts() == {"never-sealed": 1}


def test_there_is_no_verdict_on_what_is_not_there(runtime: JobRuntime) -> None:
    runtime.new_rollout(trajectory_id="t-1")
    with pytest.raises(NoSuchTrajectory, match="no trajectory 't-2'; there is only 't-1'"):
        runtime.verdict("t-2")
    assert [finding.kind for finding in runtime.verdict("t-1").findings] == ["never-sampled", "never-sealed"]


def test_the_report_of_a_failed_test_shows_the_verdict(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
def test_agent(job_runtime):
    rollout = job_runtime.new_rollout(trajectory_id="t-1")
    client = job_runtime.client
    client.sample(**rollout.keywords, Body=b'{"messages": [{"role": "user", "content": "hello"}]}')
    assert not job_runtime.verdict(rollout).findings
"""
    )
    result = run(pytester)
    assert result.parseoutcomes() == {"failed": 1}
    result.stdout.fnmatch_lines(["*job_runtime's verdict*", "t-1: never-sealed: left the trajectory open"])
