"""An export is made while it is sent, and costs the emulator little else."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from select import select
from urllib.parse import urlsplit

import httpx2
import pytest

from bench.fill import TURNS_A_TRAJECTORY, fill
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import ask, roll_out
from tests.conftest import JOB_ARN
from tests.stored import eventually

TURNS = 10_000

#: Runs a command, and prints how much memory it took at most, in kB.
_MEASURED = """
import sys
from emulator.cli import main
assert main(sys.argv[1:]) == 0
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def filled(path: Path, turns: int) -> Path:
    """A database of rewarded trajectories of ten turns each."""
    with running_server(Settings(port=0, database=str(path))):
        pass
    fill(path, turns)
    return path


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an emulator with many turns."""
    database = filled(tmp_path_factory.mktemp("many") / "trajectories.db", TURNS)
    with running_server(Settings(port=0, database=str(database))) as server:
        yield server.url


def exporting() -> list[str]:
    """The threads of this process that make an export."""
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("job-runtime-local export")]


def test_samples_are_answered_while_an_export_is_made(many: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "emulator.management.export")
    answered = 0
    with httpx2.stream("GET", f"{many}/_emulator/export", params={"format": "openai"}) as answer:
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.headers["content-type"] == "application/x-ndjson"
        lines = 0
        for piece in answer.iter_bytes():
            lines += piece.count(b"\n")
            if answered < 5:
                ask(many, JOB_ARN, f"meanwhile-{answered}", [{"role": "user", "content": "Hello"}])
                answered += 1
    assert answered == 5  # so many pieces there were, at least
    assert lines >= TURNS // TURNS_A_TRAJECTORY
    eventually(lambda: not exporting(), "the export's thread to end")
    assert "exported openai/1: 10" in caplog.text


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_client_that_leaves_ends_its_export(many: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "emulator.management.export")
    with httpx2.stream("GET", f"{many}/_emulator/export", params={"file": kind}) as answer:
        assert next(answer.iter_bytes())
        assert exporting()
    eventually(lambda: not exporting(), "the export's thread to end")
    assert "exported" not in caplog.text  # which it says of one that came to its end


def test_a_client_that_leaves_before_anything_was_found_ends_its_export(many: str) -> None:
    address = urlsplit(many)
    head = b"GET /_emulator/export?format=tokens&min_reward=99 HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with socket.create_connection((address.hostname or "", address.port or 0)) as client:
        client.sendall(head)
        eventually(lambda: bool(exporting() or select([client], [], [], 0)[0]), "the export to begin")
    eventually(lambda: not exporting(), "the export's thread to end")


def test_who_asks_for_the_head_gets_no_body(many: str) -> None:
    answer = httpx2.head(f"{many}/_emulator/export", params={"file": "parquet"})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "application/vnd.apache.parquet"
    eventually(lambda: not exporting(), "any export's thread to end")


def test_what_is_only_in_memory_is_exported_too() -> None:
    with running_server() as server:
        roll_out(server.url, JOB_ARN, "t-1")
        rows = [json.loads(line) for line in httpx2.get(f"{server.url}/_emulator/export").text.splitlines()]
        assert [row["trajectory_id"] for row in rows] == ["t-1"]


def test_a_server_that_stops_breaks_its_exports_off(tmp_path: Path) -> None:
    database = filled(tmp_path / "trajectories.db", TURNS)
    settings = Settings(port=0, database=str(database), shutdown_timeout=0.1)
    with running_server(settings) as server, httpx2.Client() as client:
        request = client.build_request("GET", f"{server.url}/_emulator/export")
        answer = client.send(request, stream=True)
        pieces = answer.iter_bytes()
        next(pieces)
        server.stop()
        with pytest.raises(httpx2.RemoteProtocolError):
            for _ in pieces:
                pass
    eventually(lambda: not exporting(), "the export's thread to end")


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_ten_times_as_many_turns_take_no_more_memory(tmp_path: Path, kind: str) -> None:
    def memory(turns: int) -> int:
        database = filled(tmp_path / f"{turns}.db", turns)
        options = ["export", "--file", kind, "--database", str(database), "--output", str(tmp_path / "out")]
        done = subprocess.run(
            [sys.executable, "-c", _MEASURED, *options], check=True, capture_output=True, text=True, timeout=100
        )
        return int(re.findall(r"VmHWM:\s+(\d+) kB", done.stdout)[0])

    grown = memory(TURNS) - memory(TURNS // 10)
    assert grown < (10_000 if kind == "jsonl" else 50_000)  # kB; the rows are 60,000
