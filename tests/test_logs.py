"""Log lines: one a request, with what is known of it; and silence where all is well."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from emulator.calls import Calls
from emulator.logs import JSONFormatter, TextFormatter
from emulator.metrics import Metrics
from emulator.store.database import open_database
from emulator.store.statements import Transaction
from emulator.store.writer import StoreError, Writer
from tests.conftest import JOB_ARN
from tests.model_servers import Exchange, model_server
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient
from tests.test_serve import serving


async def answers(exchange: Exchange) -> None:
    """As the body asks."""
    if b"refuse" in exchange.body:
        await exchange.answer(b'{"error": {"message": "tell-nobody"}}', 422)
    elif b"fail" in exchange.body:
        await exchange.answer(b'{"error": {"message": "out of\\nmemory"}}', 500)
    elif b"break" in exchange.body:
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        exchange.cut()
    else:
        await exchange.answer(b"{}")


class Log:
    """A server that logs, and what it has logged when the block is over."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.lines: list[str] = []

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines as JSON, those of requests only."""
        return [line for line in map(json.loads, self.lines) if "request_id" in line]


@contextmanager
def logging_server(folder: Path, *options: str) -> Iterator[tuple[Log, RawClient]]:
    """A server of its own, in front of a model that does as the body asks."""
    with (
        model_server(answers) as model,
        serving("--model", model.url, "--durability", "memory", *options, cwd=folder) as (process, url, _),
        RawClient(url, JOB_ARN) as client,
    ):
        log = Log(url)
        yield log, client
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        log.lines += errors.splitlines()


JSON_LINES = ("--log-format", "json")


def test_each_request_has_one_line_that_says_which_it_was_and_how_it_ended(tmp_path: Path) -> None:
    with logging_server(tmp_path, *JSON_LINES, "--log-level", "debug") as (log, client):
        replies = [
            client.sample("t", b"{}"),
            client.sample("t", b"fail", CHAT),
            client.complete("t"),
            client.sample("t", b"{}"),
            client.call("/nowhere?secret=1", b"{}"),
            client.call("/_emulator/health", method="GET"),
        ]
    assert [line["request_id"] for line in log.records] == [reply.headers["x-amzn-requestid"] for reply in replies]
    sampled, failed, sealed, refused, lost, health = log.records
    seconds, model_seconds = sampled.pop("seconds"), sampled.pop("model_seconds")
    assert 0 < model_seconds < seconds
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4}", sampled.pop("time"))
    assert sampled == {
        "level": "debug",
        "logger": "emulator.calls",
        "message": "POST /sample 200",
        "request_id": replies[0].headers["x-amzn-requestid"],
        "operation": "Sample",
        "job_arn": JOB_ARN,
        "trajectory_id": "t",
        "turn": 0,
        "status": 200,
    }
    assert (failed["level"], failed["status"], failed["error"], failed["turn"]) == ("warning", 500, "ModelError", 1)
    assert (sealed["operation"], sealed["trajectory_id"], sealed["level"]) == ("CompleteRollout", "t", "debug")
    assert (refused["level"], refused["error"], refused["message"]) == (
        "info",
        "ValidationException",
        "POST /sample 400",
    )
    assert (lost["operation"], lost["message"]) == ("Unknown", "POST /nowhere 404")
    assert (health["operation"], health["status"]) == ("Management", 200)


def test_what_is_well_is_not_worth_a_line(tmp_path: Path) -> None:
    with logging_server(tmp_path) as (log, client):
        assert client.sample("t", b"{}").status == 200
        assert client.complete("t").status == 200
        assert client.call("/metrics", method="GET").status == 200
    assert log.lines == []


def test_a_failure_is_a_warning_that_says_why(tmp_path: Path) -> None:
    with logging_server(tmp_path, *JSON_LINES, "--log-level", "warning") as (log, client):
        client.sample("t", b"refuse")
        client.sample("t", b"fail")
        with pytest.raises(IncompleteRead):
            client.sample("t", b"break", STREAM)
    failed, broken = log.records
    assert failed["message"] == "POST /sample 500: out of memory"
    assert failed["error"] == "InternalServiceError"
    assert broken["message"].startswith("POST /sample-with-response-stream 200: Model server: The connection ended")
    assert (broken["error"], broken["status"], broken["turn"]) == ("BrokenStream", 200, 2)


def test_what_a_client_did_wrong_is_a_line_without_its_words(tmp_path: Path) -> None:
    with logging_server(tmp_path, *JSON_LINES) as (log, client):
        client.sample("t", b"refuse")
    (line,) = log.records
    assert (line["level"], line["error"]) == ("info", "ValidationException")
    assert "tell-nobody" not in log.lines[0]


def test_a_line_of_text_tells_the_same(tmp_path: Path) -> None:
    with logging_server(tmp_path) as (log, client):
        request_id = client.sample("two words", b"fail").headers["x-amzn-requestid"]
    (line,) = log.lines
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d WARNING emulator\.calls: POST /sample 500: out of memory "
        rf'\[request_id={request_id} operation=Sample job_arn={JOB_ARN} trajectory_id="two words" turn=0 '
        r"status=500 error=InternalServiceError seconds=[\d.e-]+ model_seconds=[\d.e-]+\]",
        line,
    )


def scope(path: str = SAMPLE) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "headers": []}


@contextmanager
def captured(formatter: logging.Formatter) -> Iterator[io.StringIO]:
    """What is logged, in this format."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield stream
    finally:
        root.removeHandler(handler)


def test_what_the_writers_thread_logs_says_whose_write_it_was(database: Path) -> None:
    def fault(_transaction: Transaction) -> None:
        raise RuntimeError("a bug")

    async def body() -> str:
        opened = open_database(database, "normal")
        opened.open()
        writer = Writer(opened)
        try:
            call = Calls(Metrics(), None).begin("UpdateReward", scope())
            with pytest.raises(StoreError):
                await writer.change((JOB_ARN, "t"), fault)
        finally:
            await writer.aclose()
            opened.close()
        return call.request_id.decode()

    with captured(JSONFormatter()) as lines:
        request_id = asyncio.run(body())
    (line,) = map(json.loads, lines.getvalue().splitlines())
    assert (line["message"], line["request_id"], line["operation"]) == ("a write failed", request_id, "UpdateReward")
    assert "RuntimeError: a bug" in line["exception"]


def test_no_client_can_forge_a_line_or_a_fact() -> None:
    forged = "12:00:00 INFO emulator.calls: POST /sample 200"
    calls = Calls(Metrics(), None)
    with captured(TextFormatter()) as lines:
        call = calls.begin("Sample", scope(f"/%0a{forged}"))
        call.trajectory_id, call.status, call.code = f"t status=200\n{forged}", 500, "InternalServiceError"
        call.problem = f"no\r\n{forged}"
        calls.end(call, scope(f"/%0a{forged}"))
    (line,) = lines.getvalue().splitlines()
    assert f'trajectory_id="t status=200\\n{forged}" status=500' in line


def test_a_line_outside_of_any_request_says_nothing_of_one() -> None:
    log = logging.getLogger("emulator.test")
    with captured(JSONFormatter()) as lines, captured(TextFormatter()) as text:
        log.warning("the disk is %s", "full")
    line = json.loads(lines.getvalue())
    assert line.keys() == {"time", "level", "logger", "message"}
    assert text.getvalue().endswith("WARNING emulator.test: the disk is full\n")
