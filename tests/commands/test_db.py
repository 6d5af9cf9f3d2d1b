"""`job-runtime-local db`, as its users call it."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import roll_out


@pytest.fixture
def closed(database: Path, job_arn: str) -> Path:
    """A database with a trajectory, which no server has open."""
    with running_server(Settings(port=0, database=str(database))) as server:
        roll_out(server.url, job_arn, "t-1")
    return database


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    """The one line in which a call is refused."""
    assert main([str(argument) for argument in arguments]) == 2
    written = capsys.readouterr()
    assert written.out == ""
    (line,) = written.err.splitlines()
    return line


def trajectories_in(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        count: int = connection.execute("SELECT count(*) FROM trajectories").fetchone()[0]
        return count


def test_check_says_ok(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "check", "--database", str(closed)]) == 0
    assert capsys.readouterr().out == "ok\n"


def test_check_leaves_the_folder_as_it_was(closed: Path) -> None:
    before = sorted(closed.parent.iterdir())
    main(["db", "check", "--database", str(closed)])
    assert sorted(closed.parent.iterdir()) == before


def test_check_works_beside_a_server(server: Server, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "check", "--database", str(database)]) == 0
    assert capsys.readouterr().out == "ok\n"


def test_check_names_what_is_wrong_and_fails(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(closed)) as connection, connection:
        connection.execute("UPDATE turns SET trajectory = 99 WHERE number = 1")
    assert main(["db", "check", "--database", str(closed)]) == 1
    assert capsys.readouterr().out == "turns: row 2 refers to nothing\n"


def test_a_file_that_is_no_database_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("not a database, but long enough to be one\n" * 100)
    for action in (["check"], ["upgrade"], ["backup", str(tmp_path / "copy")]):
        assert "file is not a database" in refusal(capsys, "db", *action, "--database", other)
    assert not (tmp_path / "copy").exists()


def test_a_file_that_does_not_exist_is_refused_and_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing.db"
    for action in (["check"], ["upgrade"], ["backup", str(tmp_path / "copy")]):
        assert f"{missing}: there is no such database" in refusal(capsys, "db", *action, "--database", missing)
    assert list(tmp_path.iterdir()) == []


def test_somebody_elses_database_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE recipes (name)")
    before = other.read_bytes()
    for action in ("check", "upgrade"):
        assert "'recipes'" in refusal(capsys, "db", action, "--database", other)
    with closing(sqlite3.connect(other)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("recipes",)]
    assert len(other.read_bytes()) == len(before)


def test_a_database_of_a_newer_version_is_refused(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with closing(sqlite3.connect(closed)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    for action in ("check", "upgrade"):
        line = refusal(capsys, "db", action, "--database", closed)
        assert "9999" in line
        assert "upgrade job-runtime-local" in line


def test_upgrade_leaves_what_is_up_to_date(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["db", "upgrade", "--database", str(closed)]) == 0
    assert capsys.readouterr().out == f"{closed}: up to date\n"
    assert trajectories_in(closed) == 1


def test_upgrade_gives_an_empty_file_its_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    assert "db upgrade" in refusal(capsys, "db", "check", "--database", empty)
    assert main(["db", "upgrade", "--database", str(empty)]) == 0
    assert main(["db", "check", "--database", str(empty)]) == 0


def test_upgrade_is_refused_while_a_server_has_the_file(
    server: Server, database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(capsys, "db", "upgrade", "--database", database)
    assert f"process {os.getpid()}" in line
    assert "stop it" in line


def test_backup_copies_what_a_running_server_has_captured(
    server: Server, database: Path, job_arn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roll_out(server.url, job_arn, "t-1")
    copy = tmp_path / "copies" / "copy.db"
    copy.parent.mkdir()
    assert main(["db", "backup", str(copy), "--database", str(database)]) == 0
    assert str(copy) in capsys.readouterr().out
    assert list(copy.parent.iterdir()) == [copy]
    assert trajectories_in(copy) == 1
    roll_out(server.url, job_arn, "t-2")  # the server goes on
    assert trajectories_in(copy) == 1


def test_backup_replaces_nothing(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = closed.read_bytes()
    assert "exists already" in refusal(capsys, "db", "backup", closed, "--database", closed)
    assert closed.read_bytes() == before


def test_a_backup_that_cannot_be_written_names_its_own_file(closed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = closed.parent / "nowhere" / "copy.db"
    assert f"{target}: No such file or directory" in refusal(capsys, "db", "backup", target, "--database", closed)


def test_a_name_may_hold_what_uris_give_a_meaning(tmp_path: Path, job_arn: str) -> None:
    odd = tmp_path / "a?b#c%41 d" / "e&mode=memory.db"
    odd.parent.mkdir()
    with running_server(Settings(port=0, database=str(odd))) as server:
        roll_out(server.url, job_arn, "t-1")
        assert main(["trajectories", "show", "t-1", "--database", str(odd)]) == 0
    assert main(["db", "check", "--database", str(odd)]) == 0
    assert trajectories_in(odd) == 1


def test_a_database_in_a_folder_where_nothing_can_be_written_is_read(closed: Path) -> None:
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as undo:
        folder = Path(name)
        database = Path(shutil.copy(closed, folder))
        assert main(["db", "check", "--database", str(database)]) == 0  # imports what it needs while it may
        database.chmod(0o444)
        folder.chmod(0o555)
        undo.callback(folder.chmod, 0o755)
        if os.geteuid() == 0:  # root may write everywhere: be nobody for a moment
            undo.callback(os.seteuid, 0)
            os.seteuid(65534)
        assert main(["db", "check", "--database", str(database)]) == 0


def test_the_environment_names_the_database(
    closed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JOB_RUNTIME_LOCAL_DATABASE", str(closed))
    assert main(["db", "check"]) == 0
    assert capsys.readouterr().out == "ok\n"
    monkeypatch.setenv("JOB_RUNTIME_LOCAL_DATABASE", str(closed) + ".other")
    assert f"{closed}.other" in refusal(capsys, "db", "check")
