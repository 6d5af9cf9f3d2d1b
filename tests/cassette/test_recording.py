"""What is asked of a real model server goes on the cassette, and comes back from it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.inference.cassette import CassetteError, CassetteServer
from emulator.inference.cassette.file import Recorder, read_cassette
from emulator.inference.model_server import BrokenAnswer, ModelRequest, ModelServerError, ModelServerUnavailable
from emulator.inference.remote import RemoteServer
from tests.model_servers import JSON, Exchange, Gate, ModelServerThread, model_server

CHAT = "/v1/chat/completions"


def chat(said: str = "Hello", path: str = CHAT, trajectory: str = "t", **more: Any) -> ModelRequest:
    body = json.dumps({"messages": [{"role": "user", "content": said}], **more}).encode()
    return ModelRequest(path, body, trajectory_id=trajectory)


async def pieces_of(server: CassetteServer, request: ModelRequest) -> list[bytes]:
    answer = await server.send(request)
    try:
        return [piece async for piece in answer]
    finally:
        answer.close()


async def told(server: CassetteServer, request: ModelRequest) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer."""
    answer = await server.send(request)
    try:
        body = b"".join([piece async for piece in answer])
        kept = {name: answer.headers[name] for name in ("content-type", "retry-after") if name in answer.headers}
        return answer.status, kept, body
    finally:
        answer.close()


def with_server(
    path: Path, model: ModelServerThread | None, work: Callable[[CassetteServer], Awaitable[Any]], **settings: Any
) -> Any:
    """Do some work with a cassette, which records the model server's answers if there is one."""

    async def run() -> Any:
        real = None if model is None else RemoteServer(model.url, connect_timeout=30, api_key="sk-SECRET")
        server = CassetteServer(path, real, **settings)
        await server.start()
        try:
            return await work(server)
        finally:
            await server.aclose()

    return asyncio.run(run())


def counting(status: int = 200, **more: Any) -> Callable[[Exchange], Awaitable[None]]:
    """Each answer says which it is."""

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(json.dumps({"n": exchange.number}).encode(), status, **more)

    return behave


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cassette.yaml"


def test_an_answer_is_asked_for_once_and_comes_back_without_the_model_server(path: Path) -> None:
    with model_server(counting(more_head="retry-after: 5\r\n")) as model:
        recorded = with_server(path, model, lambda server: told(server, chat()))
        again = with_server(path, model, lambda server: told(server, chat()))
        assert len(model.requests) == 1
    replayed = with_server(path, None, lambda server: told(server, chat()))
    assert recorded == again == replayed == (200, {"content-type": JSON, "retry-after": "5"}, b'{"n": 0}')


def test_every_path_is_recorded_with_its_method(path: Path) -> None:
    requests = [
        ModelRequest("/v1/models", method="GET"),
        ModelRequest("/tokenize", b'{"prompt": "a"}'),
        chat(path="/v1/completions"),
        chat(),
    ]

    async def behave(exchange: Exchange) -> None:
        await exchange.answer(f"{exchange.method} {exchange.path}".encode(), content_type="text/plain")

    async def work(server: CassetteServer) -> list[Any]:
        return [await told(server, request) for request in requests]

    with model_server(behave) as model:
        recorded = with_server(path, model, work)
    assert with_server(path, None, work) == recorded
    assert recorded[0][2] == b"GET /v1/models"


def test_what_is_no_sample_is_recorded_once_however_often_it_is_asked(path: Path) -> None:
    async def work(server: CassetteServer) -> None:
        await asyncio.gather(*(told(server, ModelRequest("/v1/models", method="GET")) for _ in range(5)))

    with model_server(counting()) as model:
        with_server(path, model, work)
    assert len(read_cassette(path).entries) == 1


streams = st.lists(st.binary(min_size=1, max_size=20) | st.just(b"data: {}\n\n"), min_size=1, max_size=6)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(streams)
def test_a_stream_comes_back_in_the_pieces_in_which_it_came(tmp_path: Path, sent: list[bytes]) -> None:
    path = tmp_path / "any.yaml"
    path.unlink(missing_ok=True)

    async def behave(exchange: Exchange) -> None:
        await exchange.stream(sent)

    with model_server(behave) as model:
        recorded = with_server(path, model, lambda server: pieces_of(server, chat()))
    assert b"".join(recorded) == b"".join(sent)
    assert with_server(path, None, lambda server: pieces_of(server, chat())) == recorded


def test_the_pauses_of_a_stream_are_recorded(path: Path) -> None:
    gate = Gate()

    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        await gate.passed()
        await exchange.chunks([b"data: 2\n\n"])
        await exchange.end()

    async def work(server: CassetteServer) -> float:
        answer = await server.send(chat())
        paused = 0.0
        async for piece in answer:
            if piece == b"data: 1\n\n":
                since = asyncio.get_running_loop().time()
                while paused < 0.01:
                    await told(server, ModelRequest("/v1/models", method="GET"))
                    paused = asyncio.get_running_loop().time() - since
                gate.open()
        return paused

    async def either(exchange: Exchange) -> None:
        await (behave(exchange) if exchange.path == CHAT else exchange.answer(b"{}"))

    with model_server(either) as model:
        paused = with_server(path, model, work)
    *_, entry = read_cassette(path).entries
    _, second = entry.recorded.answer.pieces
    assert second.after >= round(paused, 4) - 0.0001


SLOW = """\
cassette: 1
---
request: {path: /v1/chat/completions, json: {messages: [{role: user, content: Hello}]}}
answer:
  status: 200
  after: 0
  stream:
  - {after: 0, event: first}
  - {after: 3600, event: second}
...
"""


def test_without_pauses_an_answer_comes_at_once(path: Path) -> None:
    path.write_text(SLOW)
    assert len(with_server(path, None, lambda server: pieces_of(server, chat()))) == 2


def test_with_pauses_it_comes_as_slowly_as_it_did(path: Path) -> None:
    path.write_text(SLOW)

    async def work(server: CassetteServer) -> None:
        pieces = aiter(await server.send(chat()))
        assert await anext(pieces) == b"data: first\n\n"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(pieces), 0.01)

    with_server(path, None, work, pauses=True)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_what_the_model_says_of_a_request_is_recorded(status: int, path: Path) -> None:
    with model_server(counting(status)) as model:
        recorded = with_server(path, model, lambda server: told(server, chat()))
    assert with_server(path, None, lambda server: told(server, chat())) == recorded
    assert recorded[0] == status


@pytest.mark.parametrize("status", [401, 403, 408, 429, 500, 502, 503])
def test_what_it_says_of_itself_or_of_who_asks_is_passed_on_and_asked_again(status: int, path: Path) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.answer(b"{}", status if exchange.number == 0 else 200)

    async def work(server: CassetteServer) -> list[int]:
        return [(await told(server, chat()))[0] for _ in range(2)]

    with model_server(behave) as model:
        assert with_server(path, model, work) == [status, 200]
    assert [entry.recorded.answer.status for entry in read_cassette(path).entries] == [200]


def test_a_stream_that_reports_an_error_is_not_recorded(path: Path) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.stream([b"data: {}\n\n", b'data: {"error": {"message": "out of memory"}}\n\n'])

    with model_server(behave) as model:
        assert b"out of memory" in b"".join(with_server(path, model, lambda server: pieces_of(server, chat())))
    assert read_cassette(path).entries == []


def test_an_answer_that_broke_off_is_not_recorded(path: Path) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: {}\n\n"])
        exchange.cut()

    async def work(server: CassetteServer) -> None:
        with pytest.raises(BrokenAnswer):
            await pieces_of(server, chat())

    with model_server(behave) as model:
        with_server(path, model, work)
    assert read_cassette(path).entries == []


def test_an_answer_whose_client_left_is_not_recorded_and_the_model_server_is_let_go(path: Path) -> None:
    async def behave(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: {}\n\n"])
        await exchange.until_client_left()
        exchange.cut()

    async def work(server: CassetteServer) -> None:
        answer = await server.send(chat())
        async for _ in answer:
            break
        answer.close()

    with model_server(behave) as model:
        with_server(path, model, work)
    assert read_cassette(path).entries == []


def test_a_replay_whose_client_left_is_given_again(path: Path) -> None:
    with model_server(counting()) as model:
        with_server(path, model, lambda server: told(server, chat()))

    async def work(server: CassetteServer) -> None:
        (await server.send(chat())).close()
        assert (await told(server, chat()))[0] == 200
        assert (await told(server, chat()))[0] == 404

    with_server(path, None, work, repeat=False)


def test_no_key_and_no_header_of_a_client_is_stored(path: Path) -> None:
    head = "set-cookie: sk-COOKIE\r\nx-request-id: sk-ID\r\n"
    with model_server(counting(more_head=head)) as model:
        request = chat()
        request.header_lines = b"authorization: Bearer sk-CLIENT\r\n"
        request.job_arn = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/x"
        request.instance = '{"row": "sk-ROW"}'
        with_server(path, model, lambda server: told(server, request))
        assert model.requests[0].headers["authorization"]
    written = path.read_text()
    for secret in ("sk-", "authorization", "cookie", "123456789012"):
        assert secret not in written


def test_fields_that_are_ignored_may_differ(path: Path) -> None:
    with model_server(counting()) as model:
        with_server(path, model, lambda server: told(server, chat(user="a", seed=1)))

    async def work(server: CassetteServer) -> None:
        assert (await told(server, chat(user="b", seed=1)))[0] == 200
        assert (await told(server, chat(user="b", seed=2)))[0] == 404

    with_server(path, None, work, ignored=[("user",)])


def test_what_is_not_there_is_refused_with_the_nearest_request(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with model_server(counting()) as model:
        with_server(path, model, lambda server: told(server, chat("What is 6 * 7?")))
    status, _, body = with_server(path, None, lambda server: told(server, chat("What is 6 * 8?")))
    error = json.loads(body)["error"]
    assert (status, error["type"], error["param"]) == (404, "not_on_cassette", "messages[0].content")
    assert 'messages[0].content: asked "What is 6 * 8?", recorded "What is 6 * 7?"' in error["message"]
    assert f"{path} has no answer" in error["message"]
    assert "(line 3, trajectory t)" in error["message"]
    assert error["message"] in caplog.messages


def test_what_is_asked_more_often_than_it_was_is_refused_if_that_is_wanted(path: Path) -> None:
    with model_server(counting()) as model:
        with_server(path, model, lambda server: told(server, chat()))

    async def work(server: CassetteServer) -> bytes:
        await told(server, chat())
        return (await told(server, chat()))[2]

    assert b"one answer to this request, and all were given" in with_server(path, None, work, repeat=False)
    assert with_server(path, None, work) == b'{"n": 0}'


def test_nobody_there_to_record_is_said(path: Path) -> None:
    async def work() -> None:
        server = CassetteServer(path, RemoteServer("http://127.0.0.1:1"))
        await server.start()
        assert not (await server.health()).ready
        with pytest.raises(ModelServerUnavailable):
            await server.send(chat())
        await server.aclose()

    asyncio.run(work())
    assert read_cassette(path).entries == []


def test_a_cassette_that_cannot_be_written_fails_the_answer_and_stays_whole(path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.stat

    async def work(server: CassetteServer) -> None:
        assert (await told(server, chat("a")))[0] == 200
        resource.setrlimit(resource.RLIMIT_FSIZE, (size().st_size + 10, hard))
        try:
            with pytest.raises(ModelServerError, match="File too large"):
                await told(server, chat("b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert read_cassette(path).incomplete is None
        assert (await told(server, chat("c")))[0] == 200

    with model_server(counting()) as model:
        with_server(path, model, work)
    assert [b'"c"' in entry.recorded.body for entry in read_cassette(path).entries] == [False, True]


def test_a_model_server_that_cannot_start_leaves_the_cassette_to_others(path: Path) -> None:
    class Unable(RemoteServer):
        async def start(self) -> None:
            raise ModelServerUnavailable("no vLLM")

    with pytest.raises(ModelServerUnavailable, match="no vLLM"):
        asyncio.run(CassetteServer(path, Unable("http://127.0.0.1:1")).start())
    Recorder(path, ()).close()


def test_a_wrong_cassette_is_refused_at_the_start(path: Path) -> None:
    path.write_text("cassette: 1\n---\nrequest: 1\n...\n")
    with pytest.raises(CassetteError, match=r"cassette.yaml:3: "):
        asyncio.run(CassetteServer(path).start())


def test_at_the_stop_it_says_what_the_cassette_was_good_for(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def both(server: CassetteServer) -> None:
        await told(server, chat("a"))
        await told(server, chat("b"))

    caplog.set_level(logging.INFO)
    with model_server(counting()) as model:
        with_server(path, model, both)
        assert caplog.messages[-1] == f"{path}: recorded 2, replayed 0, never used 0 of 0"
    with_server(path, None, lambda server: told(server, chat("a")))
    assert caplog.messages[-1] == f"{path}: replayed 1, never used 1 of 2"
    with_server(path, None, lambda server: told(server, chat("c")))
    assert caplog.messages[-1] == f"{path}: replayed 0, never used 2 of 2, had no answer to 1"


def test_half_a_character_in_a_request_is_no_hindrance(path: Path) -> None:
    request = ModelRequest(CHAT, b'{"messages": [{"content": "\\ud800"}]}', trajectory_id="t")
    longer = ModelRequest(CHAT, b'{"messages": [{"content": "\\ud800"}, {"content": "b"}]}', trajectory_id="t", turn=1)

    async def work(server: CassetteServer) -> list[Any]:
        return [await told(server, request), await told(server, longer)]

    with model_server(counting()) as model:
        recorded = with_server(path, model, work)
    assert with_server(path, None, work) == recorded
