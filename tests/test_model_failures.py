"""Models that misbehave, answers that are too large, clients that go away: what the others see, and what is stored."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.model_servers import (
    EVENTS,
    PATIENCE,
    Behaviour,
    ClientLeft,
    Exchange,
    Gate,
)
from tests.raw_client import CHAT, SAMPLE, STREAM
from tests.rig import MakeRig, rigs, says_nothing
from tests.stored import stored

DONE = b"data: [DONE]\n\n"
PATHS = [SAMPLE, STREAM, CHAT]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRig]:
    with rigs(tmp_path_factory.mktemp("rigs")) as make:
        yield make


# Model servers that misbehave


def breaks_off(*pieces: bytes, content_type: str = EVENTS) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.head(content_type)
        await exchange.chunks(pieces)
        exchange.cut()

    return behaviour


def says(raw: bytes) -> Behaviour:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.send(raw)
        exchange.cut()

    return behaviour


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_stream_whose_model_dies_ends_in_an_error_and_never_in_a_completed_turn(rig: MakeRig, path: str) -> None:
    with rig(breaks_off(b"data: 1\n\n", b"data: 2\n\n")) as it:
        response = it.begin(path)
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        assert caught.value.partial in (b"data: 1\n\ndata: 2\n\n", b"data: 1\n\n")
        turn = it.eventual_turn()
        assert (turn.status, turn.response) == (TurnStatus.FAILED, b"data: 1\n\ndata: 2\n\n")
        assert turn.error
        assert it.another_client().reward(it.trajectory, [1.0]).status == 409  # and the server goes on


def test_a_done_event_of_a_stream_that_breaks_off_right_after_it_never_reaches_the_client(rig: MakeRig) -> None:
    with rig(breaks_off(b"data: 1\n\n", DONE)) as it:
        response = it.begin(STREAM)
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        assert DONE not in caught.value.partial
        turn = it.eventual_turn()
        assert turn.status is TurnStatus.FAILED


def test_a_whole_answer_whose_model_dies_is_an_internal_service_error(rig: MakeRig) -> None:
    with rig(says(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")) as it:
        for path in (SAMPLE, CHAT):
            reply = it.sample(b"{}", path)
            assert (reply.status, reply.error) == (500, "InternalServiceError")
            assert "9 of 100 bytes" in reply.message
    assert [(turn.status, turn.response) for turn in it.turns()] == [(TurnStatus.FAILED, b"only this")] * 2


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x00\xff" * 100,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnothex\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000,
    ],
    ids=["nothing", "bytes", "ssh", "length", "chunk", "gzip", "999", "099", "101", "endless head"],
)
@pytest.mark.parametrize("path", PATHS)
def test_garbage_from_the_model_is_an_internal_service_error(rig: MakeRig, path: str, raw: bytes) -> None:
    with rig(says(raw)) as it:
        try:
            reply = it.sample(b"{}", path)
        except http.client.IncompleteRead:
            assert path == STREAM  # the head was fine; what came after it was not
        else:
            assert (reply.status, reply.error) == (500, "InternalServiceError")
            assert reply.message
        turn = it.eventual_turn()
        assert turn.status is TurnStatus.FAILED


@pytest.mark.parametrize("path", PATHS)
def test_a_model_that_never_answers_is_given_up_and_notices(rig: MakeRig, path: str) -> None:
    with rig(says_nothing, model_answer_timeout=0.1) as it:
        reply = it.sample(b"{}", path)
        assert (reply.status, reply.error) == (500, "InternalServiceError")
        assert "0.1 s" in reply.message
    (turn,) = it.turns()
    assert (turn.status, turn.http_status, turn.response) == (TurnStatus.FAILED, None, b"")


def test_a_model_that_falls_silent_in_mid_stream_is_given_up(rig: MakeRig) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        await exchange.until_client_left()
        exchange.cut()

    with rig(behaviour, model_idle_timeout=0.1) as it:
        with pytest.raises(http.client.IncompleteRead):
            it.begin(STREAM).read()
        turn = it.eventual_turn()
        assert (turn.status, turn.response) == (TurnStatus.FAILED, b"data: 1\n\n")


def test_a_model_server_that_is_not_there_is_an_internal_service_error(rig: MakeRig) -> None:
    with rig(says_nothing, model="http://127.0.0.1:1") as it:
        for path in PATHS:
            reply = it.sample(b"{}", path)
            assert (reply.status, reply.error) == (500, "InternalServiceError")
            assert "127.0.0.1:1" in reply.message
    assert [turn.status for turn in it.turns()] == [TurnStatus.FAILED] * 3


# More than may be captured


@pytest.mark.parametrize("path", [SAMPLE, CHAT])
def test_an_answer_beyond_the_limit_is_an_error_and_no_completed_turn(rig: MakeRig, path: str) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(b"x" * int(exchange.body))

    with rig(behaviour, max_answer_bytes=1000) as it:
        assert it.sample(b"1000", path).status == 200
        reply = it.sample(b"1001", path)
        assert (reply.status, reply.error) == (500, "InternalServiceError")
        assert "--max-answer-bytes" in reply.message
    first, second = it.turns()
    assert (first.status, len(first.response)) == (TurnStatus.COMPLETED, 1000)
    assert second.status is TurnStatus.FAILED
    assert second.error is not None
    assert "1000 bytes" in second.error


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_stream_beyond_the_limit_breaks_off_and_the_model_is_stopped(rig: MakeRig, path: str) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        while True:
            await exchange.chunks([b"data: " + b"x" * 1000 + b"\n\n"])

    with rig(behaviour, max_answer_bytes=100_000) as it:
        with pytest.raises(http.client.IncompleteRead):
            it.begin(path).read()
        it.model.wait_until_left()
        turn = it.eventual_turn()
        assert turn.status is TurnStatus.FAILED
        assert len(turn.response) <= 100_000
        assert turn.error is not None
        assert "--max-answer-bytes" in turn.error


# Clients that go away, and seals that come too early


@pytest.mark.parametrize("path", PATHS)
def test_a_turn_whose_answer_ends_after_the_seal_goes_to_its_client_and_is_discarded(rig: MakeRig, path: str) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await gate.passed()
        await exchange.stream([b"data: late\n\n", DONE])

    with rig(behaviour) as it:
        replies = []
        thread = threading.Thread(target=lambda: replies.append(it.sample(b"{}", path)))
        thread.start()
        it.model.wait_for_requests(1)
        other = it.another_client()
        assert other.complete(it.trajectory).status == 200
        gate.open()
        thread.join(PATIENCE)
        assert [(reply.status, reply.body) for reply in replies] == [(200, b"data: late\n\n" + DONE)]
        trajectory, (turn,) = stored(it.database, it.trajectory)
        assert (turn.status, turn.response) == (TurnStatus.DISCARDED, b"data: late\n\n" + DONE)
        assert (trajectory.status, trajectory.turns) == (Status.READY, 0)
        assert other.reward(it.trajectory, [1.0]).status == 200  # one for the whole of it; there is no turn that counts


def test_a_turn_whose_client_goes_away_in_mid_stream_is_aborted_with_the_bytes_so_far(rig: MakeRig) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        await exchange.until_client_left()
        raise ClientLeft

    with rig(behaviour) as it:
        response = it.begin(STREAM)
        assert response.read(9) == b"data: 1\n\n"
        response.close()
        it.client.close()
        it.model.wait_until_left()
        turn = it.eventual_turn()
        assert (turn.status, turn.response, turn.http_status) == (TurnStatus.ABORTED, b"data: 1\n\n", 200)


@pytest.mark.parametrize("size", [2, 100_000, 1_000_000])  # uvicorn stops reading at 64 KiB of a body
@pytest.mark.parametrize("path", PATHS)
def test_a_turn_whose_client_goes_away_before_the_answer_is_aborted(rig: MakeRig, path: str, size: int) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.until_client_left()
        raise ClientLeft

    with rig(behaviour) as it:
        leaving = it.another_client()
        leaving.send_only(path, b"x" * size, leaving.sample_headers(it.trajectory))
        it.model.wait_for_requests(1)
        leaving.close()
        it.model.wait_until_left()
        turn = it.eventual_turn()
        assert (turn.status, turn.response, turn.http_status) == (TurnStatus.ABORTED, b"", None)
        assert it.client.complete(it.trajectory).status == 200  # an aborted turn does not stand in the way


def test_a_client_that_goes_away_in_mid_request_leaves_nothing(rig: MakeRig) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(b"{}")

    with rig(behaviour) as it:
        head = f"POST /sample HTTP/1.1\r\nHost: x\r\nX-Amzn-SageMaker-Job-Arn: {JOB_ARN}\r\n"
        head += "X-Amzn-SageMaker-Trajectory-Id: t\r\nContent-Length: 100\r\n\r\nonly this"
        with socket.create_connection(("127.0.0.1", urlsplit(it.url).port or 0)) as half:
            half.sendall(head.encode())
        assert it.client.sample("other", b"{}").status == 200
        assert it.model.requests[0].headers["content-length"] == "2"
    assert it.turns() == []


# Models that fail in the words of a stream


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("event", [b'data: {"error": {"message": "boom"}}\n\n', b'data:{ "error" :{}}\r\n\r\n'])
def test_a_stream_that_reports_an_error_is_a_failed_turn_although_its_http_is_in_order(
    rig: MakeRig, path: str, event: bytes
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.stream([b'data: {"choices": []}\n\n', event[:9], event[9:], DONE])

    with rig(behaviour) as it:
        reply = it.sample(b"{}", path)
        assert (reply.status, reply.body) == (200, b'data: {"choices": []}\n\n' + event + DONE)
        (turn,) = it.turns()
        assert (turn.status, turn.response) == (TurnStatus.FAILED, reply.body)


def test_a_text_that_speaks_of_errors_is_no_error(rig: MakeRig) -> None:
    text = b'data: {"choices": [{"delta": {"content": "data: {\\"error\\": 1}"}}]}\n\n'

    async def behaviour(exchange: Exchange) -> None:
        await exchange.stream([text, DONE])

    with rig(behaviour) as it:
        it.sample(b"{}", STREAM)
        (turn,) = it.turns()
        assert turn.status is TurnStatus.COMPLETED


# A reset meanwhile


@pytest.mark.parametrize("path", [SAMPLE, CHAT])
def test_a_sample_whose_trajectory_is_reset_meanwhile_is_not_answered_as_if_it_were_stored(
    rig: MakeRig, path: str
) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await gate.passed()
        await exchange.answer(b"{}")

    with rig(behaviour) as it, ThreadPoolExecutor(1) as pool:
        asked = len(it.model.requests)
        reply = pool.submit(it.sample, b"{}", path)
        it.model.wait_for_requests(asked + 1)
        assert it.another_client().call("/_emulator/reset").status == 200
        gate.open()
        assert (reply.result(PATIENCE).status, reply.result().error) == (500, "InternalServiceError")
