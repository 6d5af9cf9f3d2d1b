"""Jobs and rollouts that are made known before their first Sample."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2
import pytest

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import ask
from tests.managed import assert_error, ids, listed, trajectory_url


@pytest.fixture(scope="module")
def idle_server() -> Iterator[Server]:
    """A server for requests that are refused: it stays empty, whoever asks."""
    with running_server() as server:
        yield server


@contextmanager
def strict_server() -> Iterator[Server]:
    settings = Settings(port=0, durability="memory", jobs="strict", trajectories="dispatched")
    with running_server(settings) as server:
        yield server


def test_registered_jobs_and_trajectories_are_accepted_others_are_not(job_arn: str) -> None:
    rollout = {"job_arn": job_arn, "trajectory_id": "日本/1"}
    with strict_server() as server:
        unknown = httpx2.post(f"{server.url}/_emulator/trajectories", json=rollout)
        assert assert_error(unknown, 400, "ValidationException") == "Could not find job"
        for _ in range(2):  # again: no difference
            assert httpx2.post(f"{server.url}/_emulator/jobs", json={"job_arn": job_arn}).json() == {}
            assert httpx2.post(f"{server.url}/_emulator/trajectories", json=rollout).json() == {}
        ask(server.url, job_arn, "日本/1", [{"role": "user", "content": "Hello"}])
        assert ids(listed(server)) == ["日本/1"]


def register(server: Server, **members: object) -> None:
    answer = httpx2.post(f"{server.url}/_emulator/trajectories", content=json.dumps(members).encode())
    assert answer.json() == {}


def test_a_rollout_keeps_its_group_and_its_row_of_the_dataset(server: Server, job_arn: str) -> None:
    row = {"prompt": "2 + 2? \0 \ud800", "more": [{"answer": 4.0, "big": 2**70}], "none": None}
    register(server, job_arn=job_arn, trajectory_id="t-1", group="g-1", instance=row)
    ask(server.url, job_arn, "t-1", [{"role": "user", "content": "Hello"}])
    document = httpx2.get(trajectory_url(server, job_arn, "t-1")).json()
    assert (document["group"], document["instance"]) == ("g-1", row)
    assert listed(server)["trajectories"][0]["group"] == "g-1"


def test_a_trajectory_that_there_is_stays_as_it_is_when_it_is_registered_again(server: Server, job_arn: str) -> None:
    register(server, job_arn=job_arn, trajectory_id="t-1", group="g-1", instance={"prompt": "one"})
    register(server, job_arn=job_arn, trajectory_id="t-1", group="g-2", instance={"prompt": "two"})
    document = httpx2.get(trajectory_url(server, job_arn, "t-1")).json()
    assert (document["group"], document["instance"]) == ("g-1", {"prompt": "one"})


def test_a_trajectory_of_nobody_s_dataset_has_neither(server: Server, job_arn: str) -> None:
    ask(server.url, job_arn, "t-1", [{"role": "user", "content": "Hello"}])
    document = httpx2.get(trajectory_url(server, job_arn, "t-1")).json()
    assert (document["group"], document["instance"]) == (None, None)


@pytest.mark.parametrize(
    ("path", "body", "name"),
    [
        ("jobs", b"{}", "ValidationException"),
        ("jobs", b"", "ValidationException"),
        ("jobs", b'{"job_arn": "arithmetic"}', "ValidationException"),
        ("jobs", b'{"job_arn": 1}', "SerializationException"),
        ("jobs", b"[]", "SerializationException"),
        ("jobs", b"{", "SerializationException"),
        ("trajectories", b'{"job_arn": "ARN"}', "ValidationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": ""}', "ValidationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": "a\\nb"}', "ValidationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": "\\ud800"}', "SerializationException"),
        ("trajectories", json.dumps({"job_arn": "ARN", "trajectory_id": "x" * 257}).encode(), "ValidationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": "t", "group": 1}', "SerializationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": "t", "group": ""}', "ValidationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": "t", "group": "\\u0000"}', "ValidationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": "t", "instance": "row"}', "SerializationException"),
        ("trajectories", b'{"job_arn": "ARN", "trajectory_id": "t", "instance": {"x": NaN}}', "SerializationException"),
    ],
)
def test_what_cannot_be_is_not_registered(idle_server: Server, job_arn: str, path: str, body: bytes, name: str) -> None:
    answer = httpx2.post(f"{idle_server.url}/_emulator/{path}", content=body.replace(b"ARN", job_arn.encode()))
    assert_error(answer, 400, name)
    assert listed(idle_server)["trajectories"] == []


def test_a_body_that_is_too_large_is_refused(job_arn: str) -> None:
    with running_server(Settings(port=0, durability="memory", max_request_bytes=100)) as server:
        answer = httpx2.post(f"{server.url}/_emulator/jobs", json={"job_arn": job_arn, "more": "x" * 100})
        assert_error(answer, 400, "ValidationException")
