"""`job-runtime-local db` and `trajectories` on a PostgreSQL database, and copies to it and from it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from emulator.address import DatabaseURL
from emulator.cli import main
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import roll_out
from tests.commands.test_db import refusal
from tests.postgresql import PASSWORD


@pytest.fixture
def file(database: Path, job_arn: str) -> Path:
    """A SQLite file with a trajectory."""
    with running_server(Settings(port=0, database=str(database))) as server:
        roll_out(server.url, job_arn, "t-1")
    return database


@pytest.fixture
def url(postgresql_database: DatabaseURL) -> str:
    return postgresql_database.conninfo


@pytest.fixture
def filled(file: Path, url: str, capsys: pytest.CaptureFixture[str]) -> str:
    """A PostgreSQL database with a trajectory."""
    assert main(["db", "copy", str(file), url]) == 0
    capsys.readouterr()
    return url


def shown(url: str) -> str:
    return str(DatabaseURL(url))


def test_a_copy_says_what_it_did_and_where_without_the_password(
    file: Path, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["db", "copy", str(file), url]) == 0
    assert capsys.readouterr().out == f"{shown(url)}: 1 trajectories with 2 turns\n"
    line = refusal(capsys, "db", "copy", file, url)
    assert line.startswith(f"job-runtime-local: {shown(url)}: is not empty")


def test_there_and_back_everything_is_as_it_was(
    file: Path, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    back = tmp_path / "back.db"
    assert main(["db", "copy", str(file), url]) == 0
    assert main(["db", "copy", url, str(back)]) == 0
    exports = []
    for database in (file, url, back):
        capsys.readouterr()
        assert main(["export", "--database", str(database)]) == 0
        exports.append(capsys.readouterr().out)
    assert exports[0].count("\n") == 1
    assert exports[1:] == exports[:1] * 2


def test_an_address_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "db", "copy", tmp_path / "t.db", f"mysql://u:{PASSWORD}@h/n")
    assert "postgresql://USER:PASSWORD@HOST:PORT/NAME" in line
    assert PASSWORD not in line


def test_a_terminal_gets_a_progress_bar(file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emulator", "db", "copy", str(file), str(tmp_path / "copy.db")]
    main_end, terminal = pty.openpty()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, text=True) as process:
        os.close(terminal)
        out, _ = process.communicate(timeout=30)
    written = b""
    try:
        while piece := os.read(main_end, 4096):
            written += piece
    except OSError:  # the other end is closed
        pass
    finally:
        os.close(main_end)
    assert process.returncode == 0
    assert out == f"{tmp_path / 'copy.db'}: 1 trajectories with 2 turns\n"
    assert "2/2 turns" in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written.decode())


def test_an_empty_database_gets_its_tables(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "db upgrade" in refusal(capsys, "db", "check", "--database", url)
    assert main(["db", "upgrade", "--database", url]) == 0
    assert capsys.readouterr().out == f"{shown(url)}: up to date\n"
    assert main(["db", "check", "--database", url]) == 0
    assert capsys.readouterr().out == "ok\n"


def test_a_backup_is_left_to_others(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refusal(capsys, "db", "backup", tmp_path / "copy", "--database", url)
    assert "pg_dump" in line
    assert "job-runtime-local db copy" in line
    assert PASSWORD not in line


def test_trajectories_are_listed_shown_and_exported(filled: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["trajectories", "list"], ["trajectories", "show", "t-1"], ["export", "--eligible"]):
        assert main([*arguments, "--database", filled]) == 0
        written = capsys.readouterr()
        assert "t-1" in written.out
        assert written.err == ""
    line = refusal(capsys, "trajectories", "show", "unknown", "--database", filled)
    assert f"{shown(filled)} has no trajectory unknown" in line


def test_a_server_that_is_not_there_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = "postgresql://u:s3cret@127.0.0.1:1/n"
    for command in (["db", "check"], ["db", "upgrade"], ["trajectories", "list"]):
        line = refusal(capsys, *command, "--database", nowhere)
        assert "Connection refused" in line
        assert "s3cret" not in line
