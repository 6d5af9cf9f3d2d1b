"""`job-runtime-local export`, as its users call it."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from emulator.address import Address
from emulator.cli import main
from emulator.export import writing
from emulator.inference.model_server import ModelRequest
from emulator.inference.scripted import ScriptedServer
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import ask, roll_out
from tests.export.conftest import Captured
from tests.export.rollouts import OTHER_JOB
from tests.model_servers import Exchange, model_server
from tests.stored import spelled

HOSTILE = "a[bold]b[/bold]:smile:\x9b31m\u202e"

Errors = pytest.CaptureFixture[str]


def test_what_others_wrote_commands_no_terminal(database: Path, job_arn: str, capsys: Errors) -> None:
    with running_server(Settings(port=0, database=str(database))) as server:
        ask(server.url, job_arn, HOSTILE, [{"role": "user", "content": "\x1b]0;owned\x07[red]x[/red]\r\nb"}])
    for options in ((), ("--format", "openai"), ("--format", "trl", "--for", "sft"), ("--format", "tokens")):
        assert main(["export", *options, "--database", str(database)]) == 0
        written = capsys.readouterr()
        assert written.out
        assert not re.search("[^\n -~]", written.out + written.err)


def test_a_file_is_replaced_when_it_is_whole(captured: Captured, tmp_path: Path, capsys: Errors) -> None:
    target = tmp_path / "out.jsonl"
    target.write_text("of yesterday")
    captured.write(target, "--format", "openai", "--job", OTHER_JOB.replace("another", "arithmetic"))
    written = capsys.readouterr()
    assert (written.out, len(target.read_text().splitlines())) == ("", 7)
    assert written.err == f"{target}: 7 trajectories, 7 rows; left out: 1 × no completed turn\n"
    assert list(tmp_path.iterdir()) == [target]


def test_the_name_of_the_file_says_what_kind_it_is(captured: Captured, tmp_path: Path) -> None:
    assert captured.write(tmp_path / "a.parquet").read_bytes()[:4] == b"PAR1"
    assert captured.write(tmp_path / "b.parquet", "--file", "jsonl").read_bytes()[:1] == b"{"
    assert captured.write(tmp_path / "c.bin", "--file", "parquet").read_bytes()[:4] == b"PAR1"


def test_a_pipe_stays_a_pipe(captured: Captured, tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    command = [sys.executable, "-m", "emulator", "export", "--output", str(fifo), "--database", str(captured.database)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as it:
        assert len(fifo.read_text().splitlines()) >= 9
        assert it.wait(30) == 0
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_a_reader_that_leaves_early_is_no_error(captured: Captured) -> None:
    reading, writing_end = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "emulator", "export", "--database", str(captured.database)]
    done = subprocess.run(command, stdout=writing_end, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing_end)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "options",
    [
        ["--until", "2026-11-21"],
        ["--output", "/nowhere/at/all.jsonl"],
        ["--format", "trl"],
        ["--tokenizer", "nowhere"],
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    captured: Captured,
    options: list[str],
    capsys: Errors,
) -> None:
    assert main(["export", *options, "--database", str(captured.database)]) == 2
    written = capsys.readouterr()
    assert (written.out, written.err.count("\n")) == ("", 1)
    assert written.err.startswith("job-runtime-local: ")


def test_parquet_without_pyarrow_is_refused_and_the_extra_named(
    captured: Captured,
    tmp_path: Path,
    capsys: Errors,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    target = tmp_path / "out.parquet"
    assert main(["export", "--output", str(target), "--database", str(captured.database)]) == 2
    assert "pip install 'job-runtime-local[parquet]'" in capsys.readouterr().err
    answer = captured.get(file="parquet")
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (400, "ValidationException")
    assert "job-runtime-local[parquet]" in answer.json()["Message"]


def test_a_damaged_database_is_refused_in_one_line(tmp_path: Path, job_arn: str, capsys: Errors) -> None:
    database, out = tmp_path / "t.db", tmp_path / "out.jsonl"
    with running_server(Settings(port=0, database=str(database))) as server:
        roll_out(server.url, job_arn, "t-1")
    data = bytearray(database.read_bytes())
    data[4096 * 2 :] = b"\x55" * (len(data) - 4096 * 2)  # all but the schema
    database.write_bytes(data)
    assert main(["export", "--output", str(out), "--database", str(database)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir() if "out" in path.name) == []


def test_an_unreadable_database_is_refused_in_one_line(tmp_path: Path, capsys: Errors) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database, but long enough to be one\n" * 100)
    for output in ([], ["--output", str(tmp_path / "out")]):
        assert main(["export", *output, "--database", str(other)]) == 2
        written = capsys.readouterr()
        assert (written.out, written.err.count("\n")) == ("", 1)
        assert str(other) in written.err
    assert not (tmp_path / "out").exists()


def test_either_database_is_exported_while_a_server_has_it_open(
    any_database: Address, job_arn: str, tmp_path: Path
) -> None:
    with running_server(Settings(port=0, database=spelled(any_database))) as server:
        for name in ("t-1", "t-2"):
            body = {"job_arn": job_arn, "trajectory_id": name, "group": "g"}
            assert httpx2.post(f"{server.url}/_emulator/trajectories", json=body).status_code == 200
            roll_out(server.url, job_arn, name, rewards=[1.0 if name == "t-1" else 0.0])
        for kind in ("native", "tokens"):
            target = tmp_path / f"{kind}.jsonl"
            options = ["--format", kind, "--output", str(target), "--database", spelled(any_database)]
            assert main(["export", *options]) == 0
            rows = [json.loads(line) for line in target.read_text().splitlines()]
            assert [row["trajectory_id"] for row in rows] == ["t-1", "t-2"]
        answer = httpx2.get(f"{server.url}/_emulator/export", params={"format": "trl", "for": "dpo"})
        assert json.loads(answer.text)["chosen_trajectory_id"] == "t-1"


def test_a_tokenizer_can_be_named(captured: Captured, tmp_path: Path) -> None:
    async def tokenize(exchange: Exchange) -> None:
        answer = await ScriptedServer().send(ModelRequest(exchange.path, exchange.body))
        await exchange.answer(b"".join([piece async for piece in answer]), answer.status)

    options = ("--format", "tokens", "--trajectory", "without-ids")
    with model_server(tokenize) as model:
        (line,) = captured.write(tmp_path / "out.jsonl", *options, "--tokenizer", model.url).read_text().splitlines()
    (expected,) = captured.of("without-ids", format="tokens")
    assert json.loads(line) == expected
    assert expected["input_ids"]


def test_a_tokenizer_that_is_not_there_is_what_is_said_to_be_missing(captured: Captured, tmp_path: Path) -> None:
    options = ("--format", "tokens", "--trajectory", "without-ids", "--tokenizer", "http://127.0.0.1:1")
    row = json.loads(captured.write(tmp_path / "out.jsonl", *options).read_text())
    assert row["input_ids"] is None
    assert row["missing"]["turn 0"].startswith("the model server cannot be asked to /tokenize: ")


def test_parquet_is_written_in_row_groups(
    captured: Captured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pyarrow.parquet

    monkeypatch.setattr(writing, "ROW_GROUP", 10_000)
    file = pyarrow.parquet.ParquetFile(captured.write(tmp_path / "out.parquet"))
    assert 1 < file.num_row_groups <= file.metadata.num_rows
