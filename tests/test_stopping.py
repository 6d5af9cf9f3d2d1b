"""SIGTERM and SIGINT, sent to real processes: what is under way ends, nothing new begins, and all of it is stored."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.client import IncompleteRead
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from emulator.trajectory import Status, TurnStatus
from tests.conftest import JOB_ARN
from tests.model_servers import PATIENCE, Exchange, Gate, ModelServerThread, model_server
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient, Reply, check_error
from tests.stored import all_stored, eventually, stored
from tests.test_serve import serving

SIGNALS = (signal.SIGTERM, signal.SIGINT)
FIRST, LAST = b"data: 1\n\n", b"data: [DONE]\n\n"


class Model:
    """Answers what begins with `{"now`; all else waits for the gate, a stream after its first piece."""

    def __init__(self) -> None:
        self.gate = Gate()

    async def __call__(self, exchange: Exchange) -> None:
        """Answer."""
        if exchange.body.startswith(b'{"now') or exchange.method == "GET":
            await exchange.answer(b"{}")
        elif b'"stream"' in exchange.body:
            await exchange.head()
            await exchange.chunks([FIRST])
            await self.gate.passed()
            await exchange.chunks([LAST])
            await exchange.end()
        else:
            await self.gate.passed()
            await exchange.answer(b'{"late": true}')


class Running:
    """An emulator's process, the model server behind it, and clients."""

    def __init__(self, process: subprocess.Popen[str], url: str, model: ModelServerThread, database: Path) -> None:
        self.process, self.url, self.model, self.database = process, url, model, database
        self._clients = ExitStack()

    def client(self) -> RawClient:
        """A client with a connection of its own."""
        return self._clients.enter_context(RawClient(self.url, JOB_ARN, timeout=PATIENCE))

    def begin(self, path: str, trajectory: str, body: bytes = b"{}") -> RawClient:
        """A client whose sample is with the model server."""
        client, before = self.client(), len(self.model.requests)
        client.send_only(path, body, client.sample_headers(trajectory))
        self.model.wait_for_requests(before + 1)
        return client

    def begin_to_stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Tell it to stop; returns when it knows."""
        self.process.send_signal(number)
        eventually(lambda: health(self.url)[1] == "stopping", "the server to know that it stops")

    def ended(self) -> str:
        """Wait for its end, which has to be a good one; what it said on standard error."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert self.process.returncode == 0, errors
        assert "Traceback" not in errors
        # What was committed stands in the file itself, not in a log beside it.
        assert not self.database.with_name(self.database.name + "-wal").exists()
        return errors

    def close(self) -> None:
        self._clients.close()


def health(url: str) -> tuple[int, str]:
    """What a load balancer asks, each time on a new connection."""
    answer = httpx2.get(f"{url}/_emulator/health")
    return answer.status_code, answer.json()["status"]


@contextmanager
def running(folder: Path, model: Model, *options: str) -> Iterator[Running]:
    with (
        model_server(model) as server,
        serving("--model", server.url, "--database", "t.db", *options, cwd=folder) as (process, url, _),
    ):
        it = Running(process, url, server, folder / "t.db")
        try:
            yield it
        finally:
            model.gate.open()
            it.close()


def refused(reply: Reply) -> None:
    """Whether a client is told that it came too late, and that it need not come again."""
    message = check_error(reply, 500, "InternalServiceError", openai="error" in json.loads(reply.body))
    assert message == "The server is stopping"
    assert reply.headers["connection"] == "close"


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_under_way_ends_and_is_stored_while_nothing_new_begins(number: signal.Signals, tmp_path: Path) -> None:
    model = Model()
    with running(tmp_path, model) as it:
        idle, sealing = it.client(), it.client()
        assert idle.sample("before", b'{"now": 1}').status == 200
        assert sealing.sample("sealed", b'{"now": 1}').status == 200
        sampling = it.begin(SAMPLE, "sample")
        streaming = it.begin(STREAM, "stream", b'{"stream": true}')
        stream = streaming.head()
        assert stream.read(len(FIRST)) == FIRST
        it.begin_to_stop(number)
        # Every door is shut, on connections that were there and on new ones.
        for path, client in ((SAMPLE, idle), (STREAM, it.client()), (CHAT, it.client())):
            refused(client.sample("new", b'{"now": 1}', path))
        assert health(it.url) == (503, "stopping")
        # What a rollout does at its end, it still can.
        assert sealing.complete("sealed").status == 200
        assert it.client().reward("sealed", [1.0]).status == 200
        model.gate.open()
        sampled = sampling.receive()
        assert (sampled.status, sampled.body, sampled.headers["connection"]) == (200, b'{"late": true}', "close")
        assert stream.read() == LAST
        it.ended()
        found = {name: (record.status, [turn.status for turn in turns])
                 for (_, name), (record, turns) in all_stored(it.database).items()}  # fmt: skip
    assert found == {
        "before": (Status.OPEN, [TurnStatus.COMPLETED]),
        "sealed": (Status.REWARD_RECEIVED, [TurnStatus.COMPLETED]),
        "sample": (Status.OPEN, [TurnStatus.COMPLETED]),
        "stream": (Status.OPEN, [TurnStatus.COMPLETED]),
    }


def test_a_kept_connection_ends_with_the_answer_to_whatever_comes_on_it(tmp_path: Path) -> None:
    model = Model()
    with running(tmp_path, model) as it:
        request = f"GET /v1/models HTTP/1.1\r\nHost: {it.url.removeprefix('http://')}\r\n\r\n".encode()
        with socket.create_connection((urlsplit(it.url).hostname, urlsplit(it.url).port), PATIENCE) as kept:
            kept.sendall(request)
            assert b"connection: close" not in kept.recv(65536)
            it.begin(SAMPLE, "t")
            it.begin_to_stop()
            kept.sendall(request.replace(b"GET /v1/models", b"POST /sample"))
            answer = b"".join(iter(lambda: kept.recv(65536), b""))  # to the end of the connection
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"connection: close" in answer
        model.gate.open()
        it.ended()


@pytest.mark.parametrize("path", [SAMPLE, STREAM, CHAT])
def test_what_does_not_end_in_time_is_broken_off_and_stored_as_aborted(path: str, tmp_path: Path) -> None:
    with running(tmp_path, Model(), "--shutdown-timeout", "0.2") as it:
        client = it.begin(path, "t", b'{"stream": true}' if path == STREAM else b"{}")
        it.process.send_signal(signal.SIGTERM)
        if path == STREAM:
            with pytest.raises(IncompleteRead):
                client.receive()
        else:
            refused(client.receive())
        errors = it.ended()
        (turn,) = stored(it.database, "t")[1]
    assert (turn.status, turn.response) == (TurnStatus.ABORTED, FIRST if path == STREAM else b"")
    assert "1 requests under way are broken off" in errors


@pytest.mark.parametrize("second", SIGNALS)
def test_a_second_signal_ends_it_at_once_and_loses_nothing(second: signal.Signals, tmp_path: Path) -> None:
    with running(tmp_path, Model(), "--shutdown-timeout", "3600") as it:
        with RawClient(it.url, JOB_ARN) as client:
            for _ in range(20):
                assert client.sample("acknowledged", b'{"now": 1}').status == 200
        sampling = it.begin(SAMPLE, "waiting")
        streaming = it.begin(STREAM, "waiting", b'{"stream": true}')
        it.begin_to_stop()
        assert it.process.poll() is None
        it.process.send_signal(second)
        refused(sampling.receive())
        with pytest.raises(IncompleteRead):
            streaming.receive()
        it.ended()
        assert [turn.status for turn in stored(it.database, "acknowledged")[1]] == [TurnStatus.COMPLETED] * 20
        assert {turn.status for turn in stored(it.database, "waiting")[1]} == {TurnStatus.ABORTED}
        assert len(stored(it.database, "waiting")[1]) == 2


def test_a_hundred_at_once_all_end_well(tmp_path: Path) -> None:
    model = Model()
    with running(tmp_path, model, "--shutdown-timeout", "60") as it:
        clients = []
        for number in range(100):
            body = b'{"stream": true}' if number % 2 else b"{}"
            clients.append(it.client())
            clients[-1].send_only(STREAM if number % 2 else SAMPLE, body, clients[-1].sample_headers(f"t-{number}"))
        it.model.wait_for_requests(100)
        it.begin_to_stop()
        model.gate.open()
        assert {client.receive().body for client in clients} == {b'{"late": true}', FIRST + LAST}
        it.ended()
        found = all_stored(it.database)
    assert len(found) == 100
    assert {turn.status for _, turns in found.values() for turn in turns} == {TurnStatus.COMPLETED}


def test_clients_that_keep_coming_do_not_keep_it_running(tmp_path: Path) -> None:
    model = Model()
    with running(tmp_path, model, "--shutdown-timeout", "3600") as it:
        it.begin(SAMPLE, "t")
        it.begin_to_stop()
        model.gate.open()
        with suppress(OSError):  # until nobody listens any more
            while True:
                refused(it.client().sample("new", b'{"now": 1}'))
        it.ended()


def test_a_client_that_does_not_read_is_not_waited_for_longer_than_others(tmp_path: Path) -> None:
    async def talks(exchange: Exchange) -> None:
        await exchange.head()
        for _ in range(1000):
            await exchange.chunks([b"data: %b\n\n" % (b"x" * 100_000)])

    with model_server(talks) as model:
        options = ("--model", model.url, "--database", "t.db", "--shutdown-timeout", "0.2")
        with serving(*options, cwd=tmp_path) as (process, url, _), RawClient(url, JOB_ARN) as client:
            client.begin(STREAM, b"{}", client.sample_headers("t"))
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 0
    (turn,) = stored(tmp_path / "t.db", "t")[1]
    assert turn.status is TurnStatus.ABORTED


def test_a_request_that_is_still_on_its_way_is_answered_when_the_time_is_up(tmp_path: Path) -> None:
    with running(tmp_path, Model(), "--shutdown-timeout", "0.2") as it:
        client = it.client()
        client.send_half(SAMPLE, client.sample_headers("t"))
        eventually(lambda: it.client().sample("other", b'{"now": 1}').status == 200, "an answer")
        it.process.send_signal(signal.SIGTERM)
        refused(client.receive())
        it.ended()


def test_an_idle_server_does_not_wait_for_connections_that_nobody_uses(tmp_path: Path) -> None:
    with running(tmp_path, Model(), "--shutdown-timeout", "3600") as it:
        clients = [it.client() for _ in range(5)]
        for client in clients:
            client.sample("t", b'{"now": 1}')
        it.process.send_signal(signal.SIGTERM)
        assert it.ended() == ""
