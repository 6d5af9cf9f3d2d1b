"""A server that is told to stop: samples in flight get their answers, or are kept as aborted."""

from __future__ import annotations

import threading
from contextlib import ExitStack, suppress
from http.client import IncompleteRead
from pathlib import Path

import pytest

from emulator.trajectory import TurnStatus
from tests.conftest import JOB_ARN
from tests.model_servers import PATIENCE, ClientLeft, Exchange, Gate, model_server
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient
from tests.rig import emulator_before
from tests.stored import eventually_stored, stored

PATHS = (SAMPLE, STREAM, CHAT)


def test_a_sample_in_flight_gets_its_answer_although_the_server_is_told_to_stop(database: Path) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await gate.passed()
        await exchange.answer(b'{"late": true}')

    with model_server(behaviour) as model:
        replies = []
        with emulator_before(model, database) as server, RawClient(server.url, JOB_ARN) as client:
            thread = threading.Thread(target=lambda: replies.append(client.sample("t", b"{}")))
            thread.start()
            model.wait_for_requests(1)
            server.stop()
            gate.open()
            thread.join(PATIENCE)
    assert [(reply.status, reply.body) for reply in replies] == [(200, b'{"late": true}')]
    assert [turn.status for turn in stored(database, "t")[1]] == [TurnStatus.COMPLETED]


@pytest.mark.parametrize("path", PATHS)
def test_a_sample_that_the_server_will_not_wait_for_is_aborted_and_kept(
    database: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def behaviour(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        await exchange.until_client_left()
        raise ClientLeft

    with model_server(behaviour) as model, ExitStack() as clients:
        with emulator_before(model, database, shutdown_timeout=0) as server:
            client = clients.enter_context(RawClient(server.url, JOB_ARN))
            client.send_only(path, b"{}", client.sample_headers("t"))
            model.wait_for_requests(1)
        model.wait_until_left()
        # An error if nothing has left yet, else an answer that breaks off: never one that looks whole.
        with suppress(IncompleteRead):
            reply = client.receive()
            assert (reply.status, reply.error, reply.message) == (
                500,
                "InternalServiceError",
                "The server is stopping",
            )
    (turn,) = eventually_stored(database, "t")
    assert turn.status is TurnStatus.ABORTED
    assert "Traceback" not in caplog.text
