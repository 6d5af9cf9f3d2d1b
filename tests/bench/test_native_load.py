"""load against servers that answer in every way."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter, defaultdict
from itertools import pairwise

import pytest

from tests.bench.native_programs import Load
from tests.model_servers import Behaviour, Exchange, ModelServerThread, model_server

DONE = b"data: [DONE]\n\n"
NUMBERS = '{"connection":"@CONNECTION@","cycle":"@CYCLE_____@","trajectory":"@TRAJECTORY@","kind":"%s"}'


def port_of(server: ModelServerThread) -> int:
    """Where it listens."""
    return int(server.url.rpartition(":")[2])


def event(content: str) -> bytes:
    """A piece of a stream."""
    return b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, "delta": {"content": content}}]}).encode()


async def answer(exchange: Exchange) -> None:
    """The shortest good answer."""
    await exchange.answer(b"{}")


def numbers_sent(server: ModelServerThread) -> list[tuple[int, int, int, str]]:
    """What became of the placeholders, request by request: connection, cycle, trajectory, kind."""
    bodies = [json.loads(exchange.body) for exchange in server.requests]
    for body in bodies:
        assert {len(body[name]) for name in ("connection", "cycle", "trajectory")} == {12}
    return [(int(body["connection"]), int(body["cycle"]), int(body["trajectory"]), body["kind"]) for body in bodies]


def test_connections_cycles_and_trajectories_are_numbered(load: Load) -> None:
    files = tuple(load.file(NUMBERS % kind, name=kind) for kind in ("ask", "tell", "end"))
    with model_server(answer) as server:
        arguments = ("--connections", 4, "--requests", 120, "--turns", 3, "--first-cycle", 700)
        assert load(port_of(server), *arguments, files=files)["errors"] == 0
        sent = numbers_sent(server)
    assert len(sent) == 120
    assert {connection for connection, *_ in sent} == {0, 1, 2, 3}
    of_connection = defaultdict(list)
    for connection, cycle, trajectory, kind in sent:
        of_connection[connection].append((cycle, trajectory, kind))
    owners: dict[int, int] = {}
    for connection, steps in of_connection.items():
        assert [kind for *_, kind in steps] == (["ask", "tell", "end"] * len(steps))[: len(steps)]
        cycles = [cycle for cycle, _, kind in steps if kind == "ask"]
        assert all(earlier < later for earlier, later in pairwise(cycles))
        for number, (cycle, trajectory, _) in enumerate(steps):
            assert cycle == cycles[number // 3]
            assert trajectory == cycles[number // 9 * 3], "a trajectory has three cycles"
            assert owners.setdefault(trajectory, connection) == connection
    assert min(cycle for _, cycle, *_ in sent) == 700
    assert max(Counter(cycle for _, cycle, *_ in sent).values()) == 3, "a cycle is one pass"


def test_runs_that_begin_at_other_cycles_share_no_trajectory(load: Load) -> None:
    file = load.file(NUMBERS % "ask")
    with model_server(answer) as server:
        for first in (0, 1000):
            load(port_of(server), "--connections", 3, "--requests", 60, "--first-cycle", first, files=(file,))
        trajectories = [trajectory for _, _, trajectory, _ in numbers_sent(server)]
    assert not set(trajectories[:60]) & set(trajectories[60:])


def test_what_the_warm_up_sends_is_not_counted(load: Load) -> None:
    with model_server(answer) as server:
        report = load(port_of(server), "--connections", 2, "--requests", 10, "--warmup", 0.1)
        assert report["requests"] == sum(report["status"].values()) == 10
        assert len(server.requests) > 10


def test_every_status_is_counted_as_an_answer(load: Load) -> None:
    async def refuse_some(exchange: Exchange) -> None:
        await exchange.answer(b"{}", (200, 429, 500)[exchange.number % 3])

    with model_server(refuse_some) as server:
        report = load(port_of(server), "--connections", 1, "--requests", 30)
    assert (report["requests"], report["errors"]) == (30, 0)
    assert report["status"] == {"200": 10, "429": 10, "500": 10}


async def in_single_bytes(exchange: Exchange) -> None:
    body = b"".join(b"%X;ext=1\r\n%b\r\n" % (1, bytes([byte])) for byte in event("hello") + event("t1") + DONE)
    head = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream; charset=utf-8\r\n"
    for byte in head + b"TRANSFER-ENCODING: Chunked\r\n\r\n" + body + b"0\r\nX-Trailer: yes\r\n\r\n":
        await exchange.send(bytes([byte]))


async def with_other_line_ends(exchange: Exchange) -> None:
    pieces = b": comment\r\nevent: a\r\ndata:1\r\ndata:2\r\n\r\n\r\nid: 7\r\n\r\ndata: t\r\n\r\ndata: [DONE]\r\n\r\n"
    await exchange.answer(pieces, content_type="text/event-stream")


async def until_the_connection_ends(exchange: Exchange) -> None:
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + event("a") + event("b") + DONE)
    exchange.cut()


@pytest.mark.parametrize("behaviour", [in_single_bytes, with_other_line_ends, until_the_connection_ends])
def test_events_are_found_however_they_come(load: Load, behaviour: Behaviour) -> None:
    with model_server(behaviour) as server:
        report = load(port_of(server), "--connections", 2, "--requests", 4)
    counts = {name: report[name] for name in ("requests", "errors", "lost", "events")}
    assert counts == {"requests": 4, "errors": 0, "lost": 0, "events": 8}


def test_events_in_one_piece_are_merged(load: Load) -> None:
    async def four_at_once(exchange: Exchange) -> None:
        await exchange.answer(event("a") * 4 + DONE, content_type="text/event-stream")

    with model_server(four_at_once) as server:
        report = load(port_of(server), "--connections", 1, "--requests", 5)
    assert (report["events"], report["merged"]) == (20, 15)
    assert report["event_delay_us"] is None, "no event says when it was written"
    assert report["first_event_us"] is not None


def test_the_delay_of_an_event_counts_from_its_writing(load: Load) -> None:
    async def a_second_late(exchange: Exchange) -> None:
        written = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - 10**9
        await exchange.stream([event("no time"), event(f"t{written}"), event("t12x"), DONE])

    with model_server(a_second_late) as server:
        report = load(port_of(server), "--connections", 1, "--requests", 5)
    assert report["events"] == 15
    assert report["event_delay_us"]["p50"] >= 10**6 * 0.99
    assert report["event_delay_us"]["max"] < 60 * 10**6


def test_a_stream_without_its_end_is_lost(load: Load) -> None:
    async def forget_the_end(exchange: Exchange) -> None:
        await exchange.stream([event("a")])

    async def cut_it(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([event("a")])
        exchange.cut()

    with model_server(forget_the_end) as server:
        report = load(port_of(server), "--connections", 1, "--requests", 3)
        assert (report["requests"], report["errors"], report["lost"]) == (3, 0, 3)
        server.behave(cut_it)
        report = load(port_of(server), "--connections", 1, "--requests", 3)
        assert (report["requests"], report["errors"], report["lost"]) == (0, 3, 3)
        assert report["latency_us"] is None


def test_connections_that_the_server_closes_are_opened_again(load: Load) -> None:
    async def close(exchange: Exchange) -> None:
        await exchange.answer(b"{}", more_head="Connection: close\r\n")
        exchange.cut()

    with model_server(close) as server:
        report = load(port_of(server), "--connections", 3, "--requests", 60)
    assert (report["requests"], report["errors"]) == (60, 0)


def test_an_answer_without_a_body_is_whole(load: Load) -> None:
    async def no_content(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")

    with model_server(no_content) as server:
        report = load(port_of(server), "--connections", 1, "--requests", 5)
    assert (report["requests"], report["status"]) == (5, {"204": 5})


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"HTTP/1.1 200",
        b"220 smtp.example.com\r\n\r\n",
        b"HTTP/1.1 2000 Many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno field\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}}\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"x" * 2**17,
    ],
)
def test_what_is_no_answer_is_an_error(load: Load, wrong: bytes) -> None:
    async def answer_wrongly(exchange: Exchange) -> None:
        await exchange.send(wrong)
        exchange.cut()

    with model_server(answer_wrongly) as server:
        report = load(port_of(server), "--connections", 1, "--requests", 2)
        open_loop = load(port_of(server), "--connections", 1, "--requests", 2, "--rate", 100)
    assert (report["requests"], report["errors"], report["status"]) == (0, 2, {})
    assert (open_loop["requests"], open_loop["errors"], open_loop["status"]) == (0, 2, {})


def test_an_answer_that_takes_too_long_is_an_error(load: Load) -> None:
    async def never_answer(exchange: Exchange) -> None:
        await exchange.until_client_left()

    with model_server(never_answer) as server:
        report = load(port_of(server), "--connections", 3, "--requests", 3, "--timeout", 0.1)
        assert (report["requests"], report["errors"]) == (0, 3)
        # One connection: requests of an open loop that never get their turn are errors, too, and it ends by itself.
        report = load(port_of(server), "--connections", 1, "--requests", 50, "--rate", 1000, "--timeout", 0.2)
        assert (report["requests"], report["errors"]) == (0, 50)


def test_an_open_loop_counts_the_wait_for_a_connection(load: Load) -> None:
    async def take_time(exchange: Exchange) -> None:
        await asyncio.sleep(0.02)
        await exchange.answer(b"{}")

    with model_server(take_time) as server:
        report = load(port_of(server), "--connections", 1, "--requests", 10, "--rate", 1000)
    assert (report["requests"], report["behind"]) == (10, 9)
    assert report["latency_us"]["max"] >= 185_000, "the last was due after 9 ms, and nine others went before"


def test_an_answer_before_the_request_is_all_sent_is_taken(load: Load) -> None:
    def refuse(listener: socket.socket) -> None:
        connections = []
        for _ in range(3):
            connections.append(listener.accept()[0])
            connections[-1].recv(1)  # and no more, so that it cannot all be sent
            connections[-1].sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n")
        finished.wait(60)
        for connection in connections:
            connection.close()

    finished = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,), daemon=True)
        thread.start()
        file = load.file(b"x" * 2**25)
        report = load(listener.getsockname()[1], "--connections", 1, "--requests", 3, files=(file,))
        finished.set()
        thread.join(30)
    assert not thread.is_alive()
    assert (report["errors"], report["status"]) == (0, {"413": 3})


def test_ipv6_is_loopback_too(load: Load) -> None:
    listener = socket.create_server(("::1", 0), family=socket.AF_INET6)

    def serve() -> None:
        connection, _ = listener.accept()
        while connection.recv(65536):
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        connection.close()

    with listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        address = f"[::1]:{listener.getsockname()[1]}"
        ended = load.try_to(address, "--connections", 1, "--requests", 2, "--request", load.file())
        thread.join(30)
    assert json.loads(ended.stdout)["requests"] == 2
