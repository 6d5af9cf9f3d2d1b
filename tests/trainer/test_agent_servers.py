"""Agents behind HTTP: what they are sent, how they are waited for, and what their answers mean."""

from __future__ import annotations

from typing import Any

import pytest

from emulator.trainer.agents import AgentFailed, InvalidAgent, find_agent
from emulator.trainer.rollouts import FailureText
from tests.trainer.agent_server import Answer, Silence, agent_server
from tests.trainer.agents import act, act_later
from tests.trainer.playing import alone, played

SESSION = "x-amzn-bedrock-agentcore-runtime-session-id"

KINDS = {
    "{url}/rollout": ("/rollout", "/health"),
    "{url}": ("/rollout", "/health"),
    "{url}/agents/mine/rollout": ("/agents/mine/rollout", "/agents/mine/health"),
    "agentcore:{url}": ("/invocations", "/ping"),
    "agentcore:{url}/invocations": ("/invocations", "/ping"),
    "lambda:{url}": ("/2015-03-31/functions/function/invocations", "/"),
}


@pytest.mark.parametrize("target", KINDS)
def test_each_kind_is_asked_in_its_own_way(target: str) -> None:
    with agent_server(act) as server:
        results = played(target.format(url=server.url), [{"prompt": "Why?", "id": 3}], group_size=2)
        assert [result.reward for result, _ in results] == [1.0, 1.0]
        ask, look = KINDS[target]
        assert {path for path, _, _ in server.asked} == {ask}
        assert set(server.looked) == {look}
        for _, headers, body in server.asked:
            assert headers["content-type"] == "application/json"
            assert body["prompt"] == "Why?"
            assert body["instance"] == {"prompt": "Why?", "id": 3}
            if target.startswith("agentcore"):
                assert headers[SESSION].startswith(body["metadata"]["trajectory_id"])
                assert len(headers[SESSION]) >= 33
            else:
                assert SESSION not in headers
        sessions = {headers.get(SESSION) for _, headers, _ in server.asked}
        assert len(sessions) == (2 if target.startswith("agentcore") else 1)


def test_an_agent_may_answer_at_once_and_do_its_work_later() -> None:
    with agent_server(act_later) as server:
        ((result, _),) = played(server.url, [{"turns": 3}])
    assert (result.reward, len(result.turns)) == (1.0, 3)


def test_it_is_waited_for_until_it_is_ready() -> None:
    with agent_server(act) as server:
        server.unready = 2
        ((result, _),) = played(server.url, [{}])
        assert result.reward == 1.0
        assert len(server.looked) == 3


def test_one_that_does_not_get_ready_is_named_with_the_reason() -> None:
    with agent_server(act) as server:
        server.unready = 1_000
        with pytest.raises(AgentFailed, match=r"127.0.0.1:[0-9]+/health was not ready within 0.3 s: it answered 503"):
            alone(find_agent(server.url).start(0.3))
    with pytest.raises(AgentFailed, match=r"Connection refused by 127.0.0.1"):
        alone(find_agent(server.url).start(0.1))


def test_one_without_a_health_page_is_ready_as_it_answers() -> None:
    """The documented samples have none."""

    def missing(_: dict[str, Any]) -> Any:
        raise Answer(404, b"")

    with agent_server(missing) as server:
        alone(find_agent(server.url + "/rollout").start(1))


def answers(status: int, body: bytes) -> Any:
    """An agent that answers so, whatever it is asked."""

    def agent(_: dict[str, Any]) -> Any:
        raise Answer(status, body)

    return agent


def silent(_: dict[str, Any]) -> Any:
    raise Silence


@pytest.mark.parametrize("retries", [0, 2])
@pytest.mark.parametrize(
    ("agent", "reason"),
    [
        (answers(500, b"out\nof order"), "the agent answered 500: out of order"),
        (answers(404, b""), "the agent answered 404: without a word"),
        (answers(403, b"x" * 1000), f"the agent answered 403: {'x' * 299}…"),
        (answers(200, b'{"errorType": "AccessDenied", "error": "no"}'), "the agent refused: AccessDenied: no"),
        (silent, "the agent gave no answer: "),
    ],
)
def test_one_that_refuses_is_quoted_and_asked_again(agent: Any, reason: str, retries: int) -> None:
    with agent_server(agent) as server:
        ((result, _),) = played(server.url, [{}], retries=retries)
        assert len(server.asked) == retries + 1  # and none of them twice
    assert len({body["metadata"]["rolloutId"] for _, _, body in server.asked}) == retries + 1
    assert result.failure is not None
    assert result.failure.text is FailureText.NO_SAMPLES
    assert result.failure.reason.startswith(reason)


@pytest.mark.parametrize(
    "body", [b"", b"not JSON", b"[1, 2]", b'{"errorType": null}', b'{"status": "ok"}', b"[" * 100_000]
)
def test_whatever_else_an_agent_answers_means_nothing(body: bytes) -> None:
    def agent(request: dict[str, Any]) -> Any:
        act(request)
        raise Answer(202, body)

    with agent_server(agent) as server:
        ((result, _),) = played(server.url, [{}])
    assert result.reward == 1.0


def test_one_that_answers_without_sampling_fails_when_its_time_is_over() -> None:
    with agent_server(act) as server:
        ((result, _),) = played(server.url, [{"do": "return"}], timeout=0.5)
    assert result.failure is not None
    assert result.failure.reason == "not done within 0.5 s; the agent had answered"


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("ftp://host", "names no agent; these would"),
        ("agent", "names no agent; these would"),
        ("http://", "must look like http://HOST:PORT"),
        ("http://host:70000", "must look like http://HOST:PORT"),
        ("http://user:secret@host", "must have no user, password or fragment"),
        ("agentcore:host", "must look like http://HOST:PORT"),
        ("python:module", "is named like python:MODULE:FUNCTION"),
        ("lambda:module", "is named like lambda:FILE.py"),
        ("lambda:absent.py", "there is no file absent.py"),
    ],
)
def test_a_target_that_names_no_agent_is_refused(target: str, problem: str) -> None:
    with pytest.raises(InvalidAgent, match=problem):
        find_agent(target)
