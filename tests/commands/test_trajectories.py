"""`job-runtime-local trajectories`, as its users call it."""

from __future__ import annotations

import json
import os
import pty
import re
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from emulator.cli import main
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import ask, roll_out

OTHER_JOB = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/another"
LONG_ID = "0123456789" * 20
HOSTILE = "a[bold]b[/bold]:smile:\x9b31m\u202e"


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A database that a server has open, with a few trajectories that no test changes."""
    database = tmp_path_factory.mktemp("captured") / "trajectories.db"
    with running_server(Settings(port=0, database=str(database))) as server:
        job = OTHER_JOB.replace("another", "arithmetic")
        roll_out(server.url, job, "eligible", rewards=[1.0, 0.25])
        roll_out(server.url, job, "failed", status="failed", rewards=[0.0])
        roll_out(server.url, OTHER_JOB, LONG_ID, rewards=None)
        ask(server.url, OTHER_JOB, "eligible", [{"role": "user", "content": "Hello"}])
        ask(server.url, OTHER_JOB, HOSTILE, [{"role": "user", "content": "\x1b]0;owned\x07[red]x[/red]\r\nb"}])
        yield database


Run = tuple[int, str, str]


@pytest.fixture
def run(captured: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Call a command on that database: its status, output and errors."""

    def call(*arguments: str) -> Run:
        status = main(["trajectories", *arguments, "--database", str(captured)])
        written = capsys.readouterr()
        return status, written.out, written.err

    return call


def test_a_list_has_a_row_for_each_trajectory_newest_first(run: Any) -> None:
    status, out, err = run("list")
    head, *rows = out.splitlines()
    assert (status, err) == (0, "")
    assert head.split() == ["job", "trajectory", "status", "turns", "rewards", "created"]
    assert rows[-1].split()[:6] == ["arithmetic", "eligible", "reward-received", "2", "1", "0.25"]
    assert rows[1].split()[:4] == ["another", "eligible", "open", "1"]
    assert len(rows) == 5


def test_a_pipe_gets_ids_uncut(run: Any) -> None:
    assert LONG_ID in run("list")[1]


def test_a_list_is_filtered_and_limited(run: Any) -> None:
    def listed(*arguments: str) -> list[str]:
        lines = run("list", "--json", *arguments)[1].splitlines()
        return [json.loads(line)["trajectory_id"] for line in lines]

    assert listed("--job", OTHER_JOB) == [HOSTILE, "eligible", LONG_ID]
    assert listed("--status", "ready") == [LONG_ID]
    assert listed("--until", "0") == []
    assert len(listed("--since", "2020-01-01T00:00:00Z")) == 5
    assert listed("--limit", "1") == [HOSTILE]


def test_a_list_that_goes_on_says_so(run: Any) -> None:
    assert "--limit" in run("list", "--limit", "1")[2]
    assert run("list", "--limit", "5")[2] == ""
    assert run("list", "--until", "0")[1:] == ("", "no trajectories\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--since", "yesterday"],
        ["list", "--limit", "0"],
        ["show", "unknown"],
        ["show", "eligible"],
        ["show", "eligible", "--job", OTHER_JOB + "-2"],
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(run: Any, arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("job-runtime-local: ")


def test_an_unreadable_database_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database, but long enough to be one\n" * 100)
    for action in (["list"], ["show", "x"]):
        assert main(["trajectories", *action, "--database", str(other)]) == 2
        written = capsys.readouterr()
        assert (written.out, written.err.count("\n")) == ("", 1)
        assert str(other) in written.err


def test_a_trajectory_is_shown_as_a_conversation(run: Any, job_arn: str) -> None:
    status, out, _ = run("show", "eligible", "--job", job_arn)
    assert status == 0
    for text in (job_arn, "reward-received", "eligible for processing", "1 0.25", "2 completed of 2", "tool_calls"):
        assert text in out
    conversation = out[out.index("── turn 0") :]
    said = ["What is 6 * 7?", 'calculator({"expression":"6 * 7"})', "── turn 1", "\n  42\n", "The answer is 42."]
    assert [conversation.index(text) for text in said] == sorted(conversation.index(text) for text in said)


def test_what_was_said_before_is_not_repeated(run: Any, job_arn: str) -> None:
    out = run("show", "eligible", "--job", job_arn)[1]
    assert out.count("What is 6 * 7?") == 1
    assert out.count("calculator(") == 1
    assert out.count("tools") == 1


def test_a_conversation_that_begins_anew_is_shown_from_there(server: Server, database: Path, job_arn: str) -> None:
    system = {"role": "system", "content": "Be brief."}
    ask(server.url, job_arn, "t-1", [system, {"role": "user", "content": "first"}])
    ask(server.url, job_arn, "t-1", [system, {"role": "user", "content": "second"}])
    shown = shown_by_process("show", "t-1", database=database)
    assert "(keeps 1 of the 2 messages before)" in shown
    assert shown.count("Be brief.") == 1
    assert shown.count("\n  second\n") == 1


def test_a_plain_prompt_that_goes_on_is_shown_from_there(server: Server, database: Path, job_arn: str) -> None:
    headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": "t-1"}

    def complete(prompt: object) -> str:
        answer = httpx2.post(f"{server.url}/v1/completions", headers=headers, json={"model": "m", "prompt": prompt})
        text: str = answer.json()["choices"][0]["text"]
        return text

    prompt = "Once upon a time"
    said = complete(prompt)
    complete(f"{prompt}{said} And then?")
    complete([1, 2, 3])
    shown = shown_by_process("show", "t-1", database=database)
    assert "prompt, continued\n   And then?\n" in shown
    assert "[3 token ids]" in shown


def test_all_choices_of_an_answer_are_shown(server: Server, database: Path, job_arn: str) -> None:
    ask(server.url, job_arn, "t-1", [{"role": "user", "content": "Hello"}], n=2)
    shown = shown_by_process("show", "t-1", database=database)
    assert "assistant 1 of 2" in shown
    assert "assistant 2 of 2" in shown


def test_what_others_wrote_commands_neither_terminal_nor_table(run: Any) -> None:
    for out in (run("list")[1], run("show", HOSTILE)[1], run("list", "--json")[1]):
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out)
    assert r"a[bold]b[/bold]:smile:\x9b31m\u202e" in run("list")[1]
    assert "\\x1b]0;owned\\x07[red]x[/red]\\x0d\n  b" in run("show", HOSTILE)[1]


def test_a_terminal_gets_a_table_that_fits_and_cuts_nothing(captured: Path) -> None:
    for columns in (40, 60, 80):
        shown = re.sub(r"\x1b\[[0-9;]*m", "", shown_in_terminal("list", database=captured, columns=columns))
        assert max(map(len, shown.splitlines())) <= columns
        assert "…" not in shown
    head, *rows = [line for line in shown.splitlines() if line.strip()]
    # The ids, put together again from the lines over which their cells go.
    cell = slice(head.index("trajectory"), head.index("status"))
    assert LONG_ID in "".join(row[cell].strip() for row in rows)


@pytest.mark.parametrize("action", [["list"], ["show", HOSTILE]])
def test_a_reader_that_leaves_early_is_no_error(captured: Path, action: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command(*action, database=captured), stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_an_output_that_knows_few_characters_gets_escapes(captured: Path) -> None:
    shown = shown_by_process("show", "failed", database=captured, PYTHONIOENCODING="ascii")
    assert "\\u2500\\u2500 turn 0" in shown


def command(*arguments: str, database: Path) -> list[str]:
    return [sys.executable, "-m", "emulator", "trajectories", *arguments, "--database", str(database)]


def shown_by_process(*arguments: str, database: Path, **environment: str) -> str:
    """What a process of its own writes into a pipe."""
    done = subprocess.run(
        command(*arguments, database=database),
        capture_output=True,
        check=True,
        timeout=60,
        env={**os.environ, **environment},
    )
    return done.stdout.decode()


def shown_in_terminal(*arguments: str, database: Path, columns: int) -> str:
    """What a process of its own writes to a terminal of so many columns."""
    import fcntl
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    environment["TERM"] = "xterm"
    with subprocess.Popen(command(*arguments, database=database), stdout=theirs, stdin=theirs, env=environment) as it:
        os.close(theirs)
        pieces = []
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # how Linux says that the other end was closed
                break
            if not piece:
                break
            pieces.append(piece)
        assert it.wait(30) == 0
    os.close(ours)
    return b"".join(pieces).decode().replace("\r\n", "\n")


def test_the_file_of_settings_names_the_database_as_it_does_for_serve(
    database: Path, server: Server, job_arn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roll_out(server.url, job_arn, "t-config")
    config = tmp_path / "settings.toml"
    config.write_text(f"database = '{database}'\n")
    assert main(["trajectories", "list", "--config", str(config)]) == 0
    assert "t-config" in capsys.readouterr().out
    assert main(["db", "check", "--config", str(config)]) == 0
