"""Scripting the model in a test: in order, by match, errors, streams; and what fails the test."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import boto3
import openai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from emulator.testing import (
    JobRuntime,
    NotScripted,
    Reply,
    Request,
    Rhythm,
    Rollout,
    Rule,
    UnexpectedRequests,
    UnusedReplies,
)
from tests.plugin.test_fixture import AGENT, run

pytest_plugins = ["pytester"]


@pytest.fixture(scope="module")
def shared() -> Iterator[JobRuntime]:
    with JobRuntime() as runtime:
        yield runtime


@pytest.fixture
def runtime(shared: JobRuntime) -> JobRuntime:
    shared.reset()
    return shared


def ask(rollout: Rollout, text: str, **options: Any) -> Any:
    """What the OpenAI client makes of the model's answer."""
    with openai.OpenAI(**rollout.openai, max_retries=0) as client:
        messages: list[Any] = [{"role": "user", "content": text}]
        answer: Any = client.chat.completions.create(model="default", messages=messages, **options)
        return list(answer) if options.get("stream") else answer


def said(rollout: Rollout, text: str = "hello") -> str | None:
    content: str | None = ask(rollout, text).choices[0].message.content
    return content


def test_replies_are_given_in_order_whichever_trajectory_asks(runtime: JobRuntime) -> None:
    runtime.model.reply("one")
    runtime.model.reply("two", times=2)
    rollouts = [runtime.new_rollout() for _ in range(3)]
    assert [said(rollout) for rollout in rollouts] == ["one", "two", "two"]
    assert runtime.model.unused == []
    assert [trajectory.turns[0].text for trajectory in runtime.trajectories] == ["one", "two", "two"]


def test_a_reply_is_for_the_requests_that_match(runtime: JobRuntime) -> None:
    one, two = runtime.new_rollout(instance={"prompt": "p", "level": 3}), runtime.new_rollout()
    runtime.model.reply("weather", last="weather in [A-Z]", times=None)
    runtime.model.reply("for two", trajectory=two.trajectory_id)
    runtime.model.reply("of level 3", row={"level": 3}, turn=1)
    runtime.model.reply("shouted", when=lambda request: request.last.isupper())
    assert said(one, "What is the weather in Rome?") == "weather"
    assert said(two, "anything") == "for two"
    assert said(one, "anything") == "of level 3"
    assert said(two, "ANYTHING") == "shouted"
    assert said(two, "weather in Paris") == "weather"


def test_tool_calls_are_pairs_of_name_and_arguments(runtime: JobRuntime) -> None:
    runtime.model.reply(
        tool_calls=[("lookup", {"city": "Rome"}), ("lookup", {"city": "Paris"})], reasoning="Two cities."
    )
    rollout = runtime.new_rollout()
    ask(rollout, "hello", tools=[{"type": "function", "function": {"name": "lookup", "parameters": {}}}])
    (turn,) = runtime.trajectory(rollout).turns
    assert [json.loads(call["function"]["arguments"]) for call in turn.tool_calls] == [
        {"city": "Rome"},
        {"city": "Paris"},
    ]
    assert turn.finish_reason == "tool_calls"
    assert turn.message is not None
    assert turn.message["reasoning"] == "Two cities."


def test_a_stream_has_its_rhythm_and_is_put_together_afterwards(runtime: JobRuntime) -> None:
    runtime.model.reply("one two three", rhythm=Rhythm(by="word"))
    rollout = runtime.new_rollout()
    pieces = [chunk.choices[0].delta.content for chunk in ask(rollout, "count", stream=True) if chunk.choices]
    assert [piece for piece in pieces if piece] == ["one", " two", " three"]
    (turn,) = runtime.trajectory(rollout).turns
    assert (turn.streamed, turn.text) == (True, "one two three")
    assert [event["choices"][0]["delta"].get("content") for event in turn.response.events][1:4] == [
        "one",
        " two",
        " three",
    ]
    with pytest.raises(ValueError, match="the response of turn 0 is no JSON"):
        turn.response.json()


def test_errors_come_as_a_model_server_s(runtime: JobRuntime) -> None:
    runtime.model.error(429, "slow down", retry_after=3)
    runtime.model.error(503)
    runtime.model.reply("at last")
    rollout = runtime.new_rollout()
    with pytest.raises(openai.RateLimitError, match="slow down") as caught:
        ask(rollout, "hello")
    assert caught.value.response.headers["retry-after"] == "3"
    with pytest.raises(openai.InternalServerError):
        ask(rollout, "hello")
    assert said(rollout) == "at last"
    assert [(turn.status, turn.http_status) for turn in runtime.trajectory(rollout).turns] == [
        ("failed", 429),
        ("failed", 503),
        ("completed", 200),
    ]


def test_rules_of_any_kind_can_be_added(runtime: JobRuntime) -> None:
    rule = runtime.model.add(Rule(["a", Reply("b")], then="loop"))
    rollout = runtime.new_rollout()
    assert [said(rollout) for _ in range(3)] == ["a", "b", "a"]
    assert runtime.model.uses(rule) == 3


def test_without_replies_the_model_answers_as_ever_and_a_reset_leads_back_there(runtime: JobRuntime) -> None:
    rollout = runtime.new_rollout()
    before = said(rollout)
    runtime.model.reply("scripted")
    runtime.reset()
    assert said(rollout) == before
    runtime.model.check(strict=True)


def test_a_request_without_a_reply_is_refused_and_found_by_the_check(runtime: JobRuntime) -> None:
    runtime.model.reply("one")
    runtime.model.reply("two", last="another")
    rollout = runtime.new_rollout(trajectory_id="t")
    assert said(rollout) == "one"
    with pytest.raises(openai.BadRequestError, match="No scripted reply is left for this request"):
        ask(rollout, "hello again")
    with pytest.raises(UnexpectedRequests) as caught:
        runtime.model.check()
    assert str(caught.value).splitlines() == [
        "the model was asked what no scripted reply was left for:",
        "<Request: turn 1 of t, last 'hello again'>",
        "  1. reply('one'): all of its replies were given",
        "  2. reply('two'): last: wanted /another/, found 'hello again'",
    ]


def test_otherwise_answers_what_no_reply_fits(runtime: JobRuntime) -> None:
    runtime.model.reply("one")
    runtime.model.otherwise(lambda request: request.last.upper())
    rollout = runtime.new_rollout()
    assert [said(rollout), said(rollout)] == ["one", "HELLO"]
    runtime.model.check(strict=True)


def test_replies_that_are_left_fail_a_strict_check_only(runtime: JobRuntime) -> None:
    runtime.model.reply("one", times=3)
    said(runtime.new_rollout())
    runtime.model.check()
    with pytest.raises(UnusedReplies, match=r"reply\('one'\): used 1 of 3 times"):
        runtime.model.check(strict=True)


def test_another_model_cannot_be_scripted(runtime: JobRuntime) -> None:
    with JobRuntime(model=runtime.url) as other, pytest.raises(NotScripted, match=f"here {runtime.url} answers"):
        other.model.reply("hello")


def test_a_request_that_waits_for_the_model_is_broken_off_by_the_reset(runtime: JobRuntime) -> None:
    asked = threading.Event()

    def arrives(_request: Request) -> bool:
        asked.set()
        return True

    runtime.model.reply("never", delay=600, when=arrives)
    rollout = runtime.new_rollout()
    body = json.dumps({"messages": [{"role": "user", "content": "x"}]}).encode()

    def sample() -> None:
        client = boto3.client("sagemakerjobruntime", config=Config(retries={"total_max_attempts": 1}))
        with pytest.raises(ClientError, match="InternalServiceError"):
            client.sample(**rollout.keywords, Body=body)
        client.close()

    thread = threading.Thread(target=sample)
    thread.start()
    assert asked.wait(20)
    runtime.reset()
    thread.join(20)
    assert not thread.is_alive()
    assert runtime.trajectories == []


def test_a_test_fails_whose_agent_asked_too_much_even_if_it_swallowed_the_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
def test_agent(job_runtime):
    job_runtime.model.reply("only this")
    rollout = job_runtime.new_rollout("hello")
    agent(rollout.metadata, "first question")
    try:
        agent(job_runtime.new_rollout("hello").metadata, "second question")
    except Exception:
        pass

def test_of_old(job_runtime):
    agent(job_runtime.new_rollout().metadata)
"""
    )
    result = run(pytester)
    assert result.parseoutcomes() == {"failed": 1, "passed": 1}
    result.stdout.fnmatch_lines(
        [
            "the model was asked what no scripted reply was left for:",
            "*last 'second question'>",
            "  1. reply('only this'): all of its replies were given",
            "*- job_runtime -*",
            "── turn 0 · completed*",
            "  first question",
            "  only this",
        ]
    )


@pytest.mark.parametrize("way", ["marker", "ini"])
def test_replies_that_are_left_fail_the_test_if_it_is_strict(pytester: pytest.Pytester, way: str) -> None:
    pytester.makeini(f"[pytest]\njob_runtime_strict = {way == 'ini'}\n")
    pytester.makepyfile(
        f"""
import pytest

@pytest.mark.job_runtime(strict={way == "marker"} or {way == "ini"})
def test_strict(job_runtime):
    job_runtime.model.reply("hello")

@pytest.mark.job_runtime(strict=False)
def test_lenient(job_runtime):
    job_runtime.model.reply("hello")
"""
    )
    result = run(pytester)
    assert result.parseoutcomes() == {"failed": 1, "passed": 1}
    result.stdout.fnmatch_lines(["*scripted replies that nobody asked for:", "*1. reply('hello'): used 0 of 1 times"])


def test_a_function_that_fails_fails_the_test_whatever_the_agent_makes_of_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
def swallow(job_runtime):
    try:
        agent(job_runtime.new_rollout().metadata)
    except Exception:
        pass

def test_an_assertion(job_runtime):
    def answer(request):
        assert request.last == "something else"
    job_runtime.model.otherwise(answer)
    swallow(job_runtime)

def test_pytest_s_own_way(job_runtime):
    job_runtime.model.reply("yes", when=lambda request: pytest.fail("that is not what it asks"))
    swallow(job_runtime)

def test_the_next_one(job_runtime):
    agent(job_runtime.new_rollout().metadata)
"""
    )
    result = run(pytester)
    assert result.parseoutcomes() == {"failed": 2, "passed": 1}
    result.stdout.fnmatch_lines(["*a function that scripts the model failed:", "*test_*.py:*AssertionError*"])
    result.stdout.fnmatch_lines(["*Failed: that is not what it asks"])


def test_a_function_that_asks_the_emulator_which_waits_for_it_is_told_so(runtime: JobRuntime) -> None:
    runtime.model.otherwise(lambda request: str(runtime.new_rollout()))
    with pytest.raises(openai.InternalServerError, match="NotRunning: the emulator is asked by a function"):
        ask(runtime.new_rollout(), "hello")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"tool_calls": [{"name": "weather", "arguments": {}}]}, "pairs of name and arguments"),
        ({"tool_calls": ("weather", {"city": "Rome"})}, "'weather' is neither"),
        ({"content": {"answer": 42}}, "content is a text"),
        ({"turn": "2+"}, "turn: '2\\+' is neither a number nor some"),
        ({"times": 0}, "times: 0 is not"),
    ],
    ids=str,
)
def test_a_reply_that_cannot_be_is_refused_when_it_is_scripted(
    wrong: dict[str, Any], reason: str, runtime: JobRuntime
) -> None:
    with pytest.raises((TypeError, ValueError), match=reason):
        runtime.model.reply(**wrong)
    said(runtime.new_rollout())


def test_an_error_has_the_status_of_one_and_a_rhythm_units_that_there_are(runtime: JobRuntime) -> None:
    with pytest.raises(ValueError, match="status: 200 is not that of an error"):
        runtime.model.error(200)
    with pytest.raises(ValueError, match="by: 'words' is none of token, character, word"):
        Rhythm(by="words")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="size: 0"):
        Rhythm(size=0)
