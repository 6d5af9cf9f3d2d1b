"""Runs that are interrupted, gently or not, and go on: no rollout is missing, none is done twice."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from emulator.cli import main
from emulator.server import Server
from tests.commands.rolling import (
    ACT,
    PATIENCE,
    assert_all_accounted_for,
    eligible,
    lines_of_journal,
    none_is_open,
    report,
    rolled,
    rolling,
    until,
    write_rows,
)
from tests.serving import serving
from tests.trainer.agent_server import AgentServer, agent_server
from tests.trainer.agents import act

ROWS, GROUP = 20, 4


@pytest.fixture
def run(tmp_path: Path) -> tuple[str, ...]:
    """A run of 80 rollouts, 8 at once."""
    dataset = write_rows(tmp_path, [{"turns": 1}] * ROWS)
    return (dataset, "--agent", ACT, "--group-size", str(GROUP), "--concurrency", "8")


def test_a_run_that_is_killed_twice_goes_on_where_it_was(run: tuple[str, ...], tmp_path: Path) -> None:
    for done in (15, 45):
        resume = ("--resume",) if done > 15 else ()
        with rolling(tmp_path, *run, *resume) as process:
            until(lambda done=done: lines_of_journal(tmp_path, "over") >= done, process)  # type: ignore[misc]
            process.kill()
    before = eligible(tmp_path / "job-runtime-local.db")
    assert 45 <= sum(before.values()) < ROWS * GROUP
    status, out, errors = rolled(tmp_path, *run, "--resume")
    assert status == 0, errors
    assert "80 planned: 80 rewarded" in out
    assert_all_accounted_for(tmp_path, ROWS, GROUP)


@pytest.fixture
def agents() -> Iterator[AgentServer]:
    """Agents that live on when the run is killed, and seal a moment before they send their rewards."""

    def slow(body: dict[str, Any]) -> Any:
        time.sleep(0.05)
        return act(body)

    with agent_server(slow) as server:
        yield server


def test_agents_that_outlive_the_run_do_nothing_twice_either(
    agents: AgentServer, server: Server, database: Path, tmp_path: Path
) -> None:
    dataset = write_rows(tmp_path, [{"turns": 1}] * ROWS)
    run = (dataset, "--agent", agents.url, "--endpoint", server.url, "--group-size", str(GROUP), "--concurrency", "8")
    with rolling(tmp_path, *run) as process:
        until(lambda: lines_of_journal(tmp_path, "over") >= 20, process)
        process.kill()
    status, _, errors = rolled(tmp_path, *run, "--resume")
    assert status == 0, errors
    assert_all_accounted_for(tmp_path, ROWS, GROUP, database.name)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_lets_those_in_flight_end_and_writes_the_report(
    number: signal.Signals, run: tuple[str, ...], tmp_path: Path
) -> None:
    with rolling(tmp_path, *run) as process:
        until(lambda: lines_of_journal(tmp_path, "over") >= 10, process)
        process.send_signal(number)
        out, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert "stopping: what is in flight has 10 s; Ctrl-C again ends it at once" in errors
    document = report(tmp_path)
    assert document["interrupted"]
    assert 10 <= document["counts"]["rewarded"] < ROWS * GROUP
    assert document["counts"]["failed"] == 0
    assert f"{document['counts']['not_run']} not run" in out
    assert sum(eligible(tmp_path / "job-runtime-local.db").values()) == document["counts"]["rewarded"]
    status, _, errors = rolled(tmp_path, *run, "--resume")
    assert status == 0, errors
    assert_all_accounted_for(tmp_path, ROWS, GROUP)


@pytest.mark.parametrize(
    "waits_for", [("--agent", "http://127.0.0.1:9"), ("--agent", ACT, "--model", "http://127.0.0.1:9")]
)
def test_ctrl_c_ends_the_wait_for_agent_and_model_at_once(waits_for: tuple[str, ...], tmp_path: Path) -> None:
    dataset = write_rows(tmp_path, [{}])
    with rolling(tmp_path, dataset, *waits_for, "--wait", str(2 * PATIENCE)) as process:
        until((tmp_path / "job-runtime-local.db").exists, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert {path.name for path in tmp_path.glob("rollouts*")} == set()


def test_a_run_whose_emulator_goes_away_goes_on_with_the_next(agents: AgentServer, tmp_path: Path) -> None:
    dataset = write_rows(tmp_path, [{"turns": 1}] * ROWS)
    run = (dataset, "--agent", agents.url, "--group-size", str(GROUP), "--concurrency", "8", "--endpoint")
    database = tmp_path / "trajectories.db"
    with serving(database, "scripted", log=tmp_path / "serving.log") as emulator:
        with rolling(tmp_path, *run, emulator.url) as process:
            until(lambda: lines_of_journal(tmp_path, "over") >= 20, process)
            emulator.kill()
            _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 2
        assert "--resume goes on where this ended" in errors
    with serving(database, "scripted", log=tmp_path / "serving.log") as emulator:
        status, _, errors = rolled(tmp_path, *run, emulator.url, "--resume")
    assert status == 0, errors
    assert_all_accounted_for(tmp_path, ROWS, GROUP, database.name)


def test_a_second_ctrl_c_does_not_wait_for_those_in_flight_and_nothing_comes_of_them(tmp_path: Path) -> None:
    dataset = write_rows(tmp_path, [{"do": "hang"}, {}])
    with rolling(tmp_path, dataset, "--agent", ACT) as process:
        until(lambda: lines_of_journal(tmp_path, "over") >= 1, process)
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        for line in process.stderr:
            if "stopping" in line:
                break
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)  # the agent hangs for longer
    assert process.returncode == 130
    assert report(tmp_path)["counts"] == {"planned": 2, "rewarded": 1, "failed": 0, "not_run": 1, "attempts": 1}
    assert none_is_open(tmp_path / "job-runtime-local.db")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A run that was killed after a few rollouts: its folder, and what it was called with."""
    folder = tmp_path_factory.mktemp("killed")
    run = (write_rows(folder, [{"turns": 1}] * ROWS), "--agent", ACT, "--group-size", str(GROUP), "--concurrency", "8")
    with rolling(folder, *run) as process:
        until(lambda: lines_of_journal(folder, "over") >= 10, process)
        process.kill()
    return folder, run


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("--group-size", "3"), "group_size was 4, and is 3"),
        (("--agent", "python:another:agent"), "agent was "),
        (("--limit", "3"), "what the dataset holds has changed"),
        (("--seed", "3"), "what the dataset holds has changed"),
        (("--temperature", "0"), "inference was "),
        (("--payload", "sdk"), 'payload was "both", and is "sdk"'),
        (("--database", "another.db"), "database was "),
        (("--job", "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/other"), "job_arn was "),
    ],
)
def test_another_run_is_not_gone_on_with(
    change: tuple[str, ...],
    problem: str,
    killed: tuple[Path, tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, run = killed
    monkeypatch.chdir(folder)
    assert main(["rollout", *run, "--resume", *change]) == 2
    errors = capsys.readouterr().err
    assert "is of another run: " in errors
    assert problem in errors
    assert lines_of_journal(folder, "over") >= 10


def test_a_run_that_was_interrupted_is_not_begun_anew_by_mistake(
    killed: tuple[Path, tuple[str, ...]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = killed
    monkeypatch.chdir(folder)
    assert main(["rollout", *run]) == 2
    expected = "a run was interrupted here: --resume goes on with it; remove the file to begin anew"
    assert expected in capsys.readouterr().err
    assert lines_of_journal(folder, "over") >= 10


def test_a_line_that_the_end_cut_off_is_none(killed: tuple[Path, tuple[str, ...]], tmp_path: Path) -> None:
    killed_folder, run = killed
    folder = tmp_path / "copy"
    shutil.copytree(killed_folder, folder)
    journal = folder / "rollouts.json.journal"
    whole = journal.read_bytes().splitlines(keepends=True)
    last = max(number for number, line in enumerate(whole) if b'"over"' in line)
    journal.write_bytes(b"".join(whole[:last]) + whole[last][:-20])
    status, _, errors = rolled(folder, *run, "--resume")
    assert status == 0, errors
    assert_all_accounted_for(folder, ROWS, GROUP)


@pytest.mark.parametrize(
    "content", ["", "no journal\n", '{"format": "another", "version": 1, "run": {}}\n', '{"x": 1}\n']
)
def test_what_is_no_journal_is_not_gone_on_with(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollouts.json.journal").write_text(content)
    assert main(["rollout", write_rows(tmp_path, [{}]), "--agent", ACT, "--resume"]) == 2
    assert "remove it to begin anew" in capsys.readouterr().err
