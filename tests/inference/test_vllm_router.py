"""Two model servers behind a real vllm-router, and the emulator in front: what goes through it, and what a death does.

The model servers do as they are told; two real vLLMs are in test_vllm_router_real.py.
"""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from emulator.settings import Settings
from emulator.testing import running_server
from emulator.trajectory import TurnStatus
from tests.conftest import JOB_ARN
from tests.model_servers import Exchange, Gate, ModelServerThread, model_server
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient, check_error
from tests.stored import eventually, eventually_stored, stored_turns
from tests.vllm_router import vllm_router

EVENTS = [b'data: {"n": %d}\n\n' % number for number in range(5)] + [b"data: [DONE]\n\n"]


class ScriptedModel:
    """Answers with its name and the request's `user`, or as the request tells it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.holds = False  #: whether it leaves requests unanswered
        self.gate = Gate()  #: what streams wait for after their second event

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(b"{}", 200 if exchange.path == "/health" else 404)
            return
        if self.holds:
            await exchange.until_client_left()
            exchange.cut()
            return
        asked = json.loads(exchange.body)
        if asked.get("stream"):
            await exchange.head()
            await exchange.chunks(EVENTS[:2])
            await self.gate.passed()
            await exchange.chunks(EVENTS[2:])
            await exchange.end()
            return
        answer = {"server": self.name, "user": asked.get("user")}
        if status := asked.get("fails_with"):
            answer = {"error": {"message": f"{status}, as told"}}
        await exchange.answer(json.dumps(answer).encode(), status or 200, more_head="retry-after: 7\r\n")


class Rack:
    """An emulator, before a router, before two model servers."""

    def __init__(self, folder: Path, stack: ExitStack, *options: str) -> None:
        self.models = [ScriptedModel("first"), ScriptedModel("second")]
        self._lives = [ExitStack(), ExitStack()]
        for life in self._lives:
            stack.enter_context(life)
        self.servers = [
            life.enter_context(model_server(model)) for life, model in zip(self._lives, self.models, strict=True)
        ]
        self.router = stack.enter_context(
            vllm_router([server.url for server in self.servers], folder / "router.log", *options)
        )
        self.database = folder / "trajectories.db"
        settings = Settings(port=0, database=str(self.database), durability="normal", model=self.router)
        self.url = stack.enter_context(running_server(settings)).url
        self.client = stack.enter_context(RawClient(self.url, JOB_ARN))

    def end(self, number: int) -> None:
        """End a model server with all its connections, as if its process had been killed."""
        self._lives[number].close()


@contextmanager
def rack(folder: Path, *options: str, policy: str = "round_robin") -> Iterator[Rack]:
    with ExitStack() as stack:
        yield Rack(folder, stack, "--policy", policy, *options)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rack]:
    """For tests that leave both model servers well."""
    with rack(tmp_path_factory.mktemp("rack")) as it:
        yield it


def chat(**more: Any) -> bytes:
    return json.dumps({"model": "default", "messages": [{"role": "user", "content": "Hello"}], **more}).encode()


def samples_of(server: ModelServerThread) -> list[Exchange]:
    """What a model server was asked, but for its health."""
    return [each for each in server.requests if each.method == "POST"]


def test_both_model_servers_get_work_and_every_answer_is_stored_as_it_was(shared: Rack) -> None:
    replies = [shared.client.sample("shared-work", chat(user=f"work-{number}")) for number in range(8)]
    assert [json.loads(reply.body)["user"] for reply in replies] == [f"work-{number}" for number in range(8)]
    assert Counter(json.loads(reply.body)["server"] for reply in replies) == {"first": 4, "second": 4}
    turns = stored_turns(shared.database, "shared-work")
    assert [(turn.request, turn.response) for turn in turns] == [
        (chat(user=f"work-{number}"), reply.body) for number, reply in enumerate(replies)
    ]


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_stream_comes_through_event_by_event(path: str, shared: Rack) -> None:
    gate = Gate()
    for model in shared.models:
        model.gate = gate
    response = shared.client.begin(path, chat(stream=True), shared.client.sample_headers(f"streamed-{path}"))
    assert response.read(len(b"".join(EVENTS[:2]))) == b"".join(EVENTS[:2])  # and the model waits
    gate.open()
    assert response.read() == b"".join(EVENTS[2:])
    (turn,) = stored_turns(shared.database, f"streamed-{path}")
    assert (turn.status, turn.response) == (TurnStatus.COMPLETED, b"".join(EVENTS))


def as_the_model_got(body: bytes, rack: Rack) -> Any:
    """A request, as it arrives at one of the model servers."""
    before = [len(samples_of(server)) for server in rack.servers]
    assert rack.client.sample("rewritten", body).status == 200
    (asked,) = [each for count, server in zip(before, rack.servers, strict=True) for each in samples_of(server)[count:]]
    assert stored_turns(rack.database, "rewritten")[-1].request == body
    return json.loads(asked.body)


def test_the_router_writes_the_body_anew_and_what_decides_on_the_answer_arrives(shared: Rack) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    sent = {
        "model": "default",
        "messages": [
            {"role": "system", "content": "né 日本 \x00 😀"},
            {"role": "user", "content": [{"type": "text", "text": "Hello"}], "name": "somebody"},
            {"role": "assistant", "content": "I add", "reasoning": "well …", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "2"},
        ],
        "tools": [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}],
        "tool_choice": "required",
        "temperature": 0.1,
        "max_tokens": 16,
        "seed": 2**53 + 1,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 0,
        "return_token_ids": True,
        "logit_bias": {"50": -1.5},
        "response_format": {"type": "json_schema", "json_schema": {"name": "sum", "schema": {"type": "object"}}},
        "chat_template_kwargs": {"enable_thinking": False},
        "unknown": {"nested": [1.5, None, "x"]},
    }
    asked = as_the_model_got(json.dumps(sent).encode(), shared)
    assert {name: asked.get(name) for name in sent} == sent


def test_the_router_drops_what_it_does_not_know_inside_messages_and_tools(shared: Rack) -> None:
    message = {"role": "user", "content": "Hello"}
    function = {"name": "add", "parameters": {"type": "object"}}
    sent = {
        "model": "default",
        "messages": [{**message, "cache_control": {"type": "ephemeral"}}],
        "tools": [{"type": "function", "function": {**function, "strict": True}}],
    }
    asked = as_the_model_got(json.dumps(sent).encode(), shared)
    assert (asked["messages"], asked["tools"][0]["function"]) == ([message], function)


@pytest.mark.parametrize("policy", ["consistent_hash", "sticky_least_loaded"])
def test_a_rollout_stays_with_one_model_server_and_rollouts_are_spread(policy: str, tmp_path: Path) -> None:
    with rack(tmp_path, policy=policy) as own:
        servers = []
        for number in range(12):
            replies = [own.client.sample(f"kept-{number}", chat(user=str(turn))) for turn in range(3)]
            (server,) = {json.loads(reply.body)["server"] for reply in replies}
            servers.append(server)
        assert len(set(servers)) == 2


def test_what_the_model_refuses_keeps_its_own_words(shared: Rack) -> None:
    reply = shared.client.sample("refused", chat(fails_with=400))
    assert check_error(reply, 400, "ValidationException") == "400, as told"
    reply = shared.client.sample("refused", chat(fails_with=400), CHAT)
    assert (reply.status, json.loads(reply.body)) == (400, {"error": {"message": "400, as told"}})
    turns = stored_turns(shared.database, "refused")
    assert [(turn.status, turn.http_status) for turn in turns] == [(TurnStatus.FAILED, 400)] * 2


def test_a_body_that_the_router_cannot_read_is_refused_in_its_words(shared: Rack) -> None:
    reply = shared.client.sample("unreadable", b'{"model": "default"}')
    assert "missing field `messages`" in check_error(reply, 400, "ValidationException")
    (turn,) = stored_turns(shared.database, "unreadable")
    assert (turn.status, turn.http_status) == (TurnStatus.FAILED, 422)


@pytest.mark.parametrize(
    ("status", "answer", "error"), [(503, 500, "InternalServiceError"), (429, 429, "ThrottlingException")]
)
def test_a_model_server_that_is_not_able_is_asked_again_by_the_router_and_at_last_believed(
    status: int, answer: int, error: str, tmp_path: Path
) -> None:
    with rack(tmp_path, "--retry-max-retries", "3", "--retry-initial-backoff-ms", "1") as own:
        reply = own.client.sample("overloaded", chat(fails_with=status))
        assert check_error(reply, answer, error) == f"{status}, as told"
        assert reply.headers.get("retry-after") == ("7" if status == 429 else None)
        assert sum(len(samples_of(server)) for server in own.servers) == 3
        (turn,) = stored_turns(own.database, "overloaded")
        assert (turn.status, turn.http_status) == (TurnStatus.FAILED, status)


@pytest.mark.parametrize("retries", [True, False], ids=["retries", "no-retries"])
def test_when_a_model_server_dies_nothing_that_was_answered_is_lost_or_doubled(retries: bool, tmp_path: Path) -> None:
    clients, each = 8, 12
    with rack(tmp_path, *([] if retries else ["--disable-retries"])) as own:

        def rollout(number: int) -> list[tuple[bytes, int, bytes]]:
            with RawClient(own.url, JOB_ARN) as client:
                bodies = [chat(user=f"{number}-{turn}") for turn in range(each)]
                replies = [client.sample(f"rollout-{number}", body, (SAMPLE, CHAT)[number % 2]) for body in bodies]
            return [(body, reply.status, reply.body) for body, reply in zip(bodies, replies, strict=True)]

        own.models[0].holds = True  # all clients will wait for it, one after the other
        with ThreadPoolExecutor(clients) as pool:
            rollouts = [pool.submit(rollout, number) for number in range(clients)]
            eventually(lambda: len(samples_of(own.servers[0])) == clients, "all clients at the first model server")
            own.end(0)
        outcomes = {f"rollout-{number}": rollout.result() for number, rollout in enumerate(rollouts)}

        answered = [outcome for rollout in outcomes.values() for outcome in rollout if outcome[1] == 200]
        assert all(json.loads(body)["user"] == json.loads(response)["user"] for body, _, response in answered)
        if retries:
            assert len(answered) == clients * each
        else:  # those that were under way, and those that met the dead one before the router had given it up
            assert clients <= clients * each - len(answered) < clients * each / 2
        for trajectory, outcome in outcomes.items():
            turns = stored_turns(own.database, trajectory)
            assert [(turn.request, turn.status is TurnStatus.COMPLETED) for turn in turns] == [
                (body, status == 200) for body, status, _ in outcome
            ]
            assert [turn.response for turn in turns if turn.status is TurnStatus.COMPLETED] == [
                response for _, status, response in outcome if status == 200
            ]
        later = own.client.sample("later", chat(user="later"))
        assert json.loads(later.body) == {"server": "second", "user": "later"}


def test_a_stream_whose_model_server_dies_breaks_off_for_its_client_and_the_next_one_does_not(tmp_path: Path) -> None:
    with rack(tmp_path) as own:
        response = own.client.begin(STREAM, chat(stream=True), own.client.sample_headers("broken"))
        assert response.read(len(b"".join(EVENTS[:2]))) == b"".join(EVENTS[:2])
        asked = next(number for number, server in enumerate(own.servers) if samples_of(server))
        own.end(asked)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        (turn,) = eventually_stored(own.database, "broken")
        assert (turn.status, turn.response) == (TurnStatus.FAILED, b"".join(EVENTS[:2]))
        own.models[1 - asked].gate.open()
        with RawClient(own.url, JOB_ARN) as client:
            for _ in range(2):  # one of them is the dead one's turn
                assert client.sample("whole", chat(stream=True), STREAM).body == b"".join(EVENTS)
