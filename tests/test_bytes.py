"""Bytes: whatever the model writes, and however it cuts it up, arrives and is captured as it was."""

from __future__ import annotations

import asyncio
import http.client
import random
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emulator.trajectory import TurnStatus
from tests.model_servers import (
    EVENTS,
    JSON,
    PATIENCE,
    Exchange,
    Gate,
)
from tests.raw_client import CHAT, SAMPLE, STREAM
from tests.rig import MakeRig, rigs
from tests.stored import stored_turns

MEBIBYTE = 1 << 20
DONE = b"data: [DONE]\n\n"
PATHS = [SAMPLE, STREAM, CHAT]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRig]:
    with rigs(tmp_path_factory.mktemp("rigs")) as make:
        yield make


def cut(text: bytes, places: list[int]) -> list[bytes]:
    """The text in pieces, cut at the places (modulo its length)."""
    edges = sorted({0, len(text), *(place % (len(text) + 1) for place in places)})
    return [text[start:end] for start, end in pairwise(edges)]


# Whatever the bytes are


def test_random_bodies_and_answers_travel_and_are_stored_as_they_are(rig: MakeRig) -> None:
    answers: list[bytes] = []

    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(answers[-1], content_type="application/octet-stream")

    with rig(behaviour) as it:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.binary(min_size=1, max_size=4000), st.binary(max_size=4000), st.sampled_from(PATHS))
        def check(body: bytes, answer: bytes, path: str) -> None:
            answers.append(answer)
            name = f"{it.trajectory}/{len(answers)}"
            reply = it.client.sample(name, body, path)
            assert (reply.status, reply.body) == (200, answer)
            assert reply.headers["content-type"] == "application/octet-stream"
            assert it.model.requests[-1].body == body
            (turn,) = stored_turns(it.database, name)
            assert (turn.status, turn.request, turn.response) == (TurnStatus.COMPLETED, body, answer)
            assert turn.content_type == "application/octet-stream"

        check()


SSE = (
    'data: {"choices":[{"delta":{"content":"Zwölf 🦊 und €"}}]}\r\n\r\n'
    ': a comment\n\ndata: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n'
).encode() + DONE


def test_chunks_may_be_cut_anywhere_even_inside_a_character_or_a_line(rig: MakeRig) -> None:
    pieces: list[list[bytes]] = []

    async def behaviour(exchange: Exchange) -> None:
        await exchange.stream(pieces[-1])

    with rig(behaviour) as it:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(st.integers(0, len(SSE)), max_size=20), st.sampled_from(PATHS))
        def check(places: list[int], path: str) -> None:
            pieces.append(cut(SSE, places))
            name = f"{it.trajectory}/{len(pieces)}"
            reply = it.client.sample(name, b'{"stream": true}', path)
            assert (reply.status, reply.body) == (200, SSE)
            (turn,) = stored_turns(it.database, name)
            assert (turn.status, turn.response) == (TurnStatus.COMPLETED, SSE)

        check()


def test_the_head_of_an_answer_may_be_cut_anywhere_too(rig: MakeRig) -> None:
    whole = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n{"a": 1}'

    async def behaviour(exchange: Exchange) -> None:
        for index in range(len(whole)):
            await exchange.send(whole[index : index + 1])
            await asyncio.sleep(0)

    with rig(behaviour) as it:
        for path in PATHS:
            assert it.sample(b"{}", path).body == b'{"a": 1}'
    assert [turn.response for turn in it.turns()] == [b'{"a": 1}'] * 3


def test_a_stream_of_10000_chunks_arrives_and_is_stored_whole(rig: MakeRig) -> None:
    pieces = [b"data: %d\n\n" % number for number in range(10_000)] + [DONE]

    async def behaviour(exchange: Exchange) -> None:
        await exchange.stream(pieces)

    with rig(behaviour) as it:
        assert it.sample(b"{}", STREAM).body == b"".join(pieces)
    assert it.turns()[0].response == b"".join(pieces)


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_stream_of_32_mib_is_passed_on_as_it_comes_and_captured_whole(rig: MakeRig, path: str) -> None:
    """The model sends a part only after the part before has reached the client."""
    parts = 16
    piece = b"data: " + b"x" * (64 * 1024 - 8) + b"\n\n"
    part = [piece] * (2 * MEBIBYTE // len(piece))
    gates = [Gate() for _ in range(parts)]

    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        for gate in gates:
            await gate.passed()
            await exchange.chunks(part)
        await exchange.chunks([DONE])
        await exchange.end()

    with rig(behaviour) as it:
        response = it.begin(path)
        received = []
        for gate in gates:
            gate.open()
            received.append(response.read(2 * MEBIBYTE))
        rest = response.read()
    assert b"".join(received) == b"".join(part) * parts
    assert rest == DONE
    (turn,) = it.turns()
    assert turn.status is TurnStatus.COMPLETED
    assert turn.response == b"".join(received) + rest
    assert len(turn.response) > 32 * MEBIBYTE


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_client_that_does_not_read_stops_the_model_and_gets_all_of_it_when_it_does(rig: MakeRig, path: str) -> None:
    piece = b"data: " + b"x" * (64 * 1024 - 8) + b"\n\n"
    stalled = threading.Event()
    sent_before: list[int] = []

    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        for number in range(1000):
            writing = asyncio.ensure_future(exchange.chunks([piece]))
            done, _ = await asyncio.wait([writing], timeout=None if stalled.is_set() else 0.5)
            if not done:
                sent_before.append(number)
                stalled.set()
                await writing
        await exchange.chunks([DONE])
        await exchange.end()

    with rig(behaviour) as it:
        response = it.begin(path)
        assert stalled.wait(PATIENCE)
        assert it.turns() == []
        assert response.read() == piece * 1000 + DONE
        assert sent_before[0] * len(piece) < 32 * MEBIBYTE  # what fits into sockets on the way, and not the half of it
        (turn,) = it.turns()
        assert (turn.status, len(turn.response)) == (TurnStatus.COMPLETED, 1000 * len(piece) + len(DONE))


@pytest.mark.parametrize("path", PATHS)
def test_a_body_and_an_answer_of_32_mib_work(rig: MakeRig, path: str) -> None:
    body = random.Random(1).randbytes(MEBIBYTE) * 32

    async def behaviour(exchange: Exchange) -> None:
        await exchange.answer(exchange.body[::-1], content_type="application/octet-stream")

    with rig(behaviour) as it:
        reply = it.sample(body, path)
    assert reply.status == 200
    assert reply.body == body[::-1]
    (turn,) = it.turns()
    assert (turn.request, turn.response) == (body, body[::-1])


# The turn is there before the client can know that it is over


def ends_of_streams() -> dict[str, list[bytes]]:
    text = b'data: {"a": 1}\n\n'
    return {
        "in a piece of its own": [text, DONE],
        "with what came before": [text, text + DONE],
        "cut in two": [text, b"data: [DO", b"NE]\n\n"],
        "cut in two, and more after it": [text, b"data: [DO", b"NE]\n\n: " + b"x" * 100 + b"\n\n"],
        "with a long comment after it": [text + DONE + b": " + b"x" * 100 + b"\n\n"],
        "alone": [DONE],
        "without a space": [text, b"data:[DONE]\n\n"],
        "after carriage returns": [b"data: 1\r\rdata: [DONE]\r\r"],
        "byte by byte": [bytes([byte]) for byte in text + DONE],
    }


@pytest.mark.parametrize("end", ends_of_streams())
def test_a_turn_is_committed_before_the_done_event_leaves(rig: MakeRig, end: str) -> None:
    pieces = ends_of_streams()[end]
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks(pieces)
        await gate.passed()
        await exchange.end()

    with rig(behaviour) as it:
        received = Received(it.begin(STREAM))
        # The body has no end yet, so nothing can be committed. What would leave now, would leave in this time.
        assert not received.wait_for(b"[DONE]", seconds=0.1)
        assert it.turns() == []
        gate.open()
        assert received.wait_for(b"[DONE]")
        assert [turn.status for turn in it.turns()] == [TurnStatus.COMPLETED]
        assert received.whole() == b"".join(pieces)


@pytest.mark.parametrize(("path", "content_type"), [(STREAM, JSON), (STREAM, EVENTS), (CHAT, EVENTS)])
def test_a_turn_without_a_done_event_is_committed_before_its_end_leaves(
    rig: MakeRig, path: str, content_type: str
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.stream([b"one", b"two", b"three"], content_type)

    with rig(behaviour) as it:
        response = it.begin(path)
        assert response.read() == b"onetwothree"
        assert [turn.status for turn in it.turns()] == [TurnStatus.COMPLETED]


def test_what_is_said_about_done_in_a_text_holds_nothing_back(rig: MakeRig) -> None:
    told = b'data: {"content": "I end with data: [DONE]"}\n\n'
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([told])
        await gate.passed()
        await exchange.chunks([DONE])
        await exchange.end()

    with rig(behaviour) as it:
        response = it.begin(STREAM)
        assert response.read(len(told)) == told
        gate.open()
        assert response.read() == DONE


class Received:
    """What has arrived of an answer, read in a thread of its own."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self._bytes = bytearray()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait_for(self, text: bytes, seconds: float = PATIENCE) -> bool:
        """Whether the text has arrived, or does so in time."""
        with self._changed:
            return self._changed.wait_for(lambda: text in self._bytes, seconds)

    def whole(self) -> bytes:
        """The whole body."""
        self._thread.join(PATIENCE)
        return bytes(self._bytes)

    def _read(self) -> None:
        while piece := self._response.read1():
            with self._changed:
                self._bytes += piece
                self._changed.notify_all()
