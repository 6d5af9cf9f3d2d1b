"""`/_emulator/settled/` and `/_emulator/give-up`: how a trainer in another process follows its rollouts."""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import roll_out
from tests.conftest import JOB_ARN
from tests.managed import assert_error
from tests.stored import PATIENCE

#: With a slash and a space, as an id may have.
ID = "group 1/member 2"


def settled(server: Server, seconds: str = "20") -> httpx2.Response:
    url = f"{server.url}/_emulator/settled/{JOB_ARN}/{quote(ID, safe='')}"
    return httpx2.get(url, params={"seconds": seconds}, timeout=PATIENCE)


def register(server: Server) -> None:
    document = {"job_arn": JOB_ARN, "trajectory_id": ID}
    assert httpx2.post(f"{server.url}/_emulator/trajectories", json=document).status_code == 200


def test_it_answers_when_the_reward_is_there(server: Server) -> None:
    register(server)
    agent = threading.Thread(target=roll_out, args=(server.url, JOB_ARN, ID))
    agent.start()
    answer = settled(server)
    agent.join()
    assert answer.status_code == 200
    document = answer.json()
    assert (document["status"], document["rewards"], document["turns"]) == ("reward-received", [1.0], 2)
    assert settled(server).json() == document


def test_it_answers_with_what_there_is_when_the_time_is_over(server: Server) -> None:
    register(server)
    assert settled(server, "0.05").json()["status"] == "open"


def test_it_answers_when_the_server_stops(database: Path) -> None:
    answers: list[httpx2.Response] = []
    with running_server(Settings(port=0, database=str(database))) as server:
        register(server)
        waiting = threading.Thread(target=lambda: answers.append(settled(server)))
        waiting.start()
        while server.app.open_requests == 0:
            waiting.join(0.01)
    waiting.join()
    assert answers[0].json()["status"] == "open"


@pytest.mark.parametrize("seconds", ["-1", "61", "x", "", "1e3", "nan"])
def test_a_time_that_is_none_is_refused(seconds: str, server: Server) -> None:
    register(server)
    assert "seconds: " in assert_error(settled(server, seconds), 400, "ValidationException")


def test_an_unknown_trajectory_is_not_waited_for(server: Server) -> None:
    assert_error(settled(server), 404, "ResourceNotFoundException")
    assert_error(httpx2.get(f"{server.url}/_emulator/settled/x"), 404, "ResourceNotFoundException")


def test_a_rollout_is_given_up_once(server: Server) -> None:
    register(server)
    document = {"job_arn": JOB_ARN, "trajectory_id": ID}
    answers = [httpx2.post(f"{server.url}/_emulator/give-up", json=document).json() for _ in range(2)]
    assert answers == [{"sealed": True}, {"sealed": False}]
    assert settled(server).json()["completion"] == "failed"
    unknown = httpx2.post(f"{server.url}/_emulator/give-up", json={"job_arn": JOB_ARN, "trajectory_id": "unknown"})
    assert_error(unknown, 404, "ResourceNotFoundException")
