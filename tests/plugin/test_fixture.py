"""The pytest plugin, in pytest runs of its own: a clean emulator for each test, whatever else runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.testing import JobRuntime, MissingPackage, NotRunning

pytest_plugins = ["pytester"]

#: An agent that samples once, and a test module's imports.
AGENT = """
import json, os

import boto3
import pytest

def agent(metadata, text="hello"):
    client = boto3.client("sagemakerjobruntime")
    rollout = {"JobArn": metadata["jobArn"], "TrajectoryId": metadata["rolloutId"]}
    body = {"messages": [{"role": "user", "content": text}]}
    client.sample(**rollout, Body=json.dumps(body).encode())
    client.complete_rollout(**rollout)
    client.update_reward(**rollout, Rewards=[0.5])
"""


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """Run the tests that were made."""
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", "-p", "no:asyncio", *arguments)


def outcomes(pytester: pytest.Pytester, *arguments: str) -> dict[str, int]:
    """What a run of the tests that were made comes to."""
    return run(pytester, *arguments).parseoutcomes()


def test_an_agent_that_reads_its_environment_finds_the_emulator(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
def test_agent(job_runtime):
    rollout = job_runtime.new_rollout("hello")
    agent(rollout.metadata)
    trajectory = job_runtime.trajectory(rollout)
    assert (trajectory.status, trajectory.rewards, trajectory.eligible) == ("reward-received", [0.5], True)
    assert trajectory.instance == {"prompt": "hello"}
    (turn,) = trajectory.turns
    assert turn.request.json() == {"messages": [{"role": "user", "content": "hello"}]}
    assert turn.message == turn.response.json()["choices"][0]["message"]
    assert turn.usage["total_tokens"] == trajectory.usage["total_tokens"] > 0
"""
    )
    assert outcomes(pytester) == {"passed": 1}


def test_nothing_of_one_test_is_left_to_the_next_in_any_order(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
@pytest.mark.parametrize("number", range(12))
def test_agent(job_runtime, number):
    assert job_runtime.trajectories == []
    agent(job_runtime.new_rollout().metadata)
    assert len(job_runtime.trajectories) == 1

@pytest.mark.parametrize("number", range(4))
def test_without(number):
    assert "AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME" not in os.environ
"""
    )
    pytester.makeconftest(
        """
import random

def pytest_collection_modifyitems(items):
    random.Random(7).shuffle(items)
"""
    )
    assert outcomes(pytester) == {"passed": 16}


def test_workers_of_xdist_have_an_emulator_each(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
@pytest.mark.parametrize("number", range(20))
def test_agent(job_runtime, number):
    agent(job_runtime.new_rollout(trajectory_id="t").metadata, str(number))
    assert job_runtime.trajectory("t").turns[0].messages[-1]["content"] == str(number)
"""
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider", "-p", "no:asyncio", "-n", "2")
    assert result.parseoutcomes() == {"passed": 20}


def test_the_environment_is_as_before_when_the_test_is_over(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of somebody")
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere")
    before = dict(os.environ)
    pytester.makepyfile(
        """
import os

def test_inside(monkeypatch, job_runtime):
    assert "AWS_PROFILE" not in os.environ and "AWS_SESSION_TOKEN" not in os.environ
    assert os.environ["OPENAI_BASE_URL"] == f"{job_runtime.url}/v1"
    assert os.environ["AWS_REGION"] == os.environ["AWS_DEFAULT_REGION"] == "us-west-2"
    monkeypatch.setenv("OPENAI_BASE_URL", "another")

def test_after():
    assert os.environ["AWS_PROFILE"] == "production"
    assert os.environ["OPENAI_BASE_URL"] == "https://elsewhere"
"""
    )
    assert outcomes(pytester) == {"passed": 2}
    assert {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"} == {
        name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"
    }


def test_boto3_s_default_session_is_the_test_s_own(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
boto3.setup_default_session(aws_access_key_id="production", aws_secret_access_key="secret")
production = boto3.DEFAULT_SESSION

def test_lenient(job_runtime):
    agent(job_runtime.new_rollout().metadata)
    assert boto3.DEFAULT_SESSION.get_credentials().access_key == "local"

@pytest.mark.job_runtime(auth="strict", key_pairs=["AKIDEXAMPLE:secret"])
def test_strict(job_runtime):
    agent(job_runtime.new_rollout().metadata)
    assert boto3.DEFAULT_SESSION.get_credentials().access_key == "AKIDEXAMPLE"

def test_after():
    assert boto3.DEFAULT_SESSION is production
"""
    )
    assert outcomes(pytester) == {"passed": 3}


def test_what_a_test_does_to_boto3_s_default_session_goes_with_the_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
@pytest.mark.parametrize("number", range(2))
def test_changes(job_runtime, monkeypatch, number):
    assert boto3.client("sagemakerjobruntime").meta.region_name == "us-west-2"
    boto3.setup_default_session(region_name="eu-west-1")
    assert boto3.client("sagemakerjobruntime").meta.region_name == "eu-west-1"

@pytest.mark.parametrize("number", range(2))
def test_credentials(job_runtime, monkeypatch, number):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"of test {number}")
    assert boto3.client("sagemakerjobruntime") is not None
    assert boto3.DEFAULT_SESSION.get_credentials().access_key == "local"
"""
    )
    assert outcomes(pytester) == {"passed": 4}


def test_a_test_may_stop_the_emulator_and_the_next_one_has_another(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
from emulator.testing import NotRunning

@pytest.mark.parametrize("number", range(2))
def test_agent(job_runtime, number):
    agent(job_runtime.new_rollout().metadata)
    job_runtime.stop()
    with pytest.raises(NotRunning, match="not running"):
        job_runtime.verdict()
    with pytest.raises(Exception, match="Could not connect to the endpoint"):
        agent({"jobArn": job_runtime.job_arn, "rolloutId": "t"})
"""
    )
    assert outcomes(pytester) == {"passed": 2}


def test_what_is_asked_of_an_emulator_that_does_not_run_is_refused_in_words() -> None:
    with JobRuntime() as runtime:
        runtime.new_rollout()
        assert len(runtime.trajectories) == 1
    for ask in (runtime.reset, runtime.trajectory, runtime.verdict, runtime.new_rollout):
        with pytest.raises(NotRunning, match="before its start, or after its end"):
            ask()
    with pytest.raises(NotRunning, match="make another"):
        runtime.start()
    runtime.stop()


def test_proxies_do_not_stand_between_an_agent_and_the_emulator(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    pytester.makepyfile(
        AGENT
        + """
def test_agent(job_runtime):
    agent(job_runtime.new_rollout().metadata)
"""
    )
    assert outcomes(pytester) == {"passed": 1}


def test_coroutines_use_it_as_functions_do(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(
        AGENT
        + """
import asyncio

from openai import AsyncOpenAI

async def another_agent(rollout):
    async with AsyncOpenAI(**rollout.openai) as client:
        await client.chat.completions.create(model="default", messages=[{"role": "user", "content": "hello"}])
    await asyncio.to_thread(job_runtime_client.complete_rollout, **rollout.keywords)

async def use(job_runtime):
    global job_runtime_client
    job_runtime_client = job_runtime.client
    rollout = job_runtime.new_rollout()
    task = asyncio.create_task(another_agent(rollout))
    trajectory = await job_runtime.wait_for_async(rollout, "ready")
    assert [turn.status for turn in trajectory.turns] == ["completed"]
    await task

@pytest.mark.asyncio
async def test_with_pytest_asyncio(job_runtime):
    await use(job_runtime)

@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_with_anyio(job_runtime, anyio_backend):
    await use(job_runtime)
"""
    )
    assert pytester.runpytest_inprocess("-p", "no:cacheprovider").parseoutcomes() == {"passed": 2}


def test_unittest_cases_take_it_by_usefixtures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
import unittest

@pytest.mark.usefixtures("job_runtime")
class TestAgent(unittest.TestCase):
    def test_agent(self):
        agent({"jobArn": "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/j", "rolloutId": "t"})
"""
    )
    assert outcomes(pytester) == {"passed": 1}


def test_the_session_s_server_is_the_same_for_all_and_leaves_the_environment_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import os

def test_the_server(job_runtime_server):
    assert "OPENAI_BASE_URL" not in os.environ
    assert job_runtime_server.environment["OPENAI_BASE_URL"] == job_runtime_server.base_url
    global url
    url = job_runtime_server.url

def test_the_runtime(job_runtime):
    assert job_runtime.url == url
"""
    )
    assert outcomes(pytester) == {"passed": 2}


def test_a_suite_that_does_not_use_it_imports_nothing_for_it(tmp_path: Path) -> None:
    (tmp_path / "test_foreign.py").write_text(
        "import sys\n"
        "def test_foreign():\n"
        "    ours = {name for name in sys.modules if name.startswith('emulator')}\n"
        "    assert ours == {'emulator', 'emulator.pytest_plugin'}\n"
        "    assert not {'sqlalchemy', 'starlette', 'uvicorn', 'botocore'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:anyio", str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_without_boto3_the_client_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "boto3", None)
    with JobRuntime() as runtime:
        runtime.new_rollout()
        with pytest.raises(MissingPackage, match="boto3 is not installed: pip install boto3"):
            runtime.client  # noqa: B018
