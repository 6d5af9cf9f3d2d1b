"""`job-runtime-local rollout`, as its users call it."""

from __future__ import annotations

import json
import os
import pty
import statistics
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from emulator.cli import main
from emulator.server import Server
from tests.commands.rolling import (
    ACT,
    PATIENCE,
    ROOT,
    assert_all_accounted_for,
    eligible,
    report,
    rolled,
    rolling,
    write_rows,
)
from tests.trainer import agents
from tests.trainer.agent_server import agent_server
from tests.trainer.agents import act

SCHEMA = json.loads((ROOT / "docs" / "schemas" / "rollout-report-1.json").read_text())
REWARDS = [[1.0], [0.0, 0.5], [0.25], [1.0]]


def test_a_run_prints_a_table_and_writes_a_report_that_account_for_every_rollout(tmp_path: Path) -> None:
    dataset = write_rows(tmp_path, [{"rewards": each, "turns": 2} for each in REWARDS])
    status, out, errors = rolled(tmp_path, dataset, "--agent", ACT, "--group-size", "3")
    assert status == 0, errors
    assert "12 planned: 12 rewarded, 0 failed, 0 not run; 12 attempts" in out
    assert "12/12 rollouts, mean reward 0.688, 0 failed" in errors
    document = report(tmp_path)
    jsonschema.validate(document, SCHEMA)
    rewards = [sum(each) for each in REWARDS for _ in range(3)]
    assert [each["reward"] for each in document["rollouts"]] == rewards
    metrics = document["metrics"]
    assert metrics["reward/mean"] == statistics.fmean(rewards)
    assert metrics["reward/std"] == pytest.approx(statistics.pstdev(rewards))
    assert (metrics["reward/pass_at_1"], metrics["reward/pass_power_2"]) == (0.5, 0.5)
    assert "reward/pass_at_4" not in metrics
    assert metrics["turns/mean"] == 2
    assert document["tokens"]["prompt"] == sum(
        turn["prompt_tokens"] for each in document["rollouts"] for turn in each["turns"]
    )
    assert document["tokens"]["response"] > 0
    assert document["verdict"]["counts"] == {}
    assert_all_accounted_for(tmp_path, 4, 3)


def test_rollouts_that_failed_are_told_with_their_reasons_and_by_the_exit_status(tmp_path: Path) -> None:
    dataset = write_rows(tmp_path, [{"do": "raise"}, {"do": "fail"}, {"do": "no reward"}, {}])
    status, out, _ = rolled(tmp_path, dataset, "--agent", ACT, "--retries", "1")
    assert status == 1
    assert "4 planned: 1 rewarded, 3 failed, 0 not run; 7 attempts" in out
    assert "1 × No sampling requests were received for this rollout" in out
    assert "1 × the agent raised ValueError: broken in two lines" in out
    assert "1 × The agent signaled that the trajectory failed" in out
    document = report(tmp_path)
    jsonschema.validate(document, SCHEMA)
    assert {each["text"] for each in document["failures"]} == {
        "No sampling requests were received for this rollout",
        "The agent signaled that the trajectory failed",
        "The rollout completed but no reward was received in time",
    }
    assert document["metrics"]["reward/valid_mean"] == 1.0
    assert document["metrics"]["reward/mean"] == 0.25
    assert document["verdict"]["counts"] == {"never-sampled": 2, "sealed-without-reward": 2}
    assert "never-sampled: 2  sealed-without-reward: 2" in out


def test_an_agent_that_fails_every_time_leaves_a_report_without_a_reward(tmp_path: Path) -> None:
    status, _, _ = rolled(tmp_path, write_rows(tmp_path, [{"do": "raise"}] * 3), "--agent", ACT, "--retries", "0")
    assert status == 1
    document = report(tmp_path)
    jsonschema.validate(document, SCHEMA)
    assert "reward/valid_mean" not in document["metrics"]
    assert "tokens/prompt_mean" not in document["metrics"]


def test_an_agent_is_sent_what_the_options_say(tmp_path: Path) -> None:
    inference = ("--temperature", "0.5", "--top-p", "0.9", "--max-tokens", "64")
    options = (*inference, "--limit", "1", "--payload", "documented")
    with agent_server(lambda body: act({"instance": {}, **body})) as server:
        status, _, errors = rolled(
            tmp_path, write_rows(tmp_path, [{}, {}]), "--agent", server.url, "--payload", "documented", *options
        )
        assert status == 0, errors
        ((_, _, body),) = server.asked
    assert body["prompt"] == "question 0"
    assert body["inferenceParams"] == {"temperature": 0.5, "topP": 0.9, "maxTokens": 64}
    assert body.keys() == {"prompt", "metadata", "inferenceParams"}


def test_a_running_emulator_takes_the_rollouts(tmp_path: Path, server: Server, database: Path) -> None:
    dataset = write_rows(tmp_path, [{}] * 3)
    job = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/mine"
    options = ("--endpoint", server.url, "--job", job, "--group-size", "2")
    status, out, errors = rolled(tmp_path, dataset, "--agent", f"lambda:{agents.__file__}", *options)
    assert status == 0, errors
    assert job in out
    assert "[agents] rollout 0-0-" in errors  # what the function printed
    assert_all_accounted_for(tmp_path, 3, 2, database.name)


def test_strict_servers_know_every_rollout(tmp_path: Path) -> None:
    options = ("--trajectories", "dispatched", "--jobs", "strict", "--database", "mine.db")
    assert rolled(tmp_path, write_rows(tmp_path, [{}]), "--agent", ACT, *options)[0] == 0
    assert_all_accounted_for(tmp_path, 1, 1, "mine.db")


def test_a_seed_draws_rows_and_their_numbers_stay_the_datasets(tmp_path: Path) -> None:
    dataset = write_rows(tmp_path, [{"turns": 1}] * 30)
    rolled(tmp_path, dataset, "--agent", ACT, "--seed", "5", "--limit", "4")
    rows = [each["row"] for each in report(tmp_path)["rollouts"]]
    assert len(set(rows)) == 4
    assert rows != [0, 1, 2, 3]
    assert set(eligible(tmp_path / "job-runtime-local.db")) == {f"{row}-0" for row in rows}


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("absent.jsonl", "--agent", ACT), "absent.jsonl: No such file or directory"),
        (("rows.jsonl", "--agent", ACT, "--endpoint", "127.0.0.1"), "--endpoint: must look like http://HOST:PORT"),
        (("rows.jsonl", "--agent", ACT, "--rate", "0"), "--rate: '0' is neither a number above 0 nor 'none'"),
        (("rows.jsonl", "--agent", ACT, "--group-size", "0"), "--group-size: 0 is less than 1"),
        (("rows.jsonl", "--agent", ACT, "--timeout", "nan"), "--timeout: nan is not a number of seconds"),
        (("rows.jsonl", "--agent", ACT, "--success-threshold", "nan"), "--success-threshold: nan is no number"),
        (("rows.jsonl", "--agent", ACT, "--temperature", "inf"), "--temperature: inf is no number"),
        (("rows.jsonl", "--agent", ACT, "--pass-k", "1,x"), "--pass-k: '1,x' is no list of whole numbers"),
        (("rows.jsonl", "--agent", ACT, "--job", "mine"), "--job: "),
        (("rows.jsonl", "--agent", ACT, "--resume"), "rollouts.json.journal: there is nothing to resume"),
        (("rows.jsonl", "--agent", ACT, "--report", "no/where.json"), "there is no such folder"),
        (("rows.jsonl", "--agent", ACT, "--endpoint", "http://127.0.0.1:9"), "http://127.0.0.1:9: Connection refused"),
    ],
)
def test_what_cannot_be_done_is_refused_and_leaves_nothing_to_resume(
    arguments: tuple[str, ...],
    problem: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_rows(tmp_path, [{}])
    monkeypatch.chdir(tmp_path)
    assert main(["rollout", *arguments]) == 2
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.glob("*.journal"))


def test_beside_a_server_of_the_same_database_it_names_the_way_to_use_that_one(server: Server, tmp_path: Path) -> None:
    dataset = write_rows(tmp_path, [{}])
    database = str(server.app.settings.database)
    status, _, errors = rolled(tmp_path, dataset, "--agent", ACT, "--database", database)
    assert status == 2
    assert "has this file open" in errors
    assert "--endpoint URL uses that server" in errors


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--agent", "ftp://host"), "ftp://host: names no agent; these would"),
        (("--agent", "http://127.0.0.1:9", "--wait", "0.2"), "not ready within 0.2 s: Connection refused"),
        (("--agent", ACT, "--model", "http://127.0.0.1:9", "--wait", "0.2"), "is not ready after 0.2 s (--wait): "),
        (("--agent", ACT, "--database", "/absent/folder/x.db"), "/absent/folder/x.db"),
    ],
)
def test_what_is_found_out_by_trying_leaves_nothing_to_resume_either(
    arguments: tuple[str, ...], problem: str, tmp_path: Path
) -> None:
    dataset = write_rows(tmp_path, [{}])
    status, _, errors = rolled(tmp_path, dataset, *arguments)
    assert status == 2, errors
    assert problem in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.glob("*.journal"))


def test_a_terminal_gets_a_bar_and_the_agents_lines_above_it(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    arguments = (write_rows(tmp_path, [{}] * 2), "--agent", f"lambda:{agents.__file__}", "--rate", "none")
    command = [sys.executable, "-m", "emulator", "rollout", *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "120", "TERM": "xterm"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=follower) as process:
        os.close(follower)
        assert process.stdout is not None
        table = process.stdout.read()
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # Linux's way to say that nobody writes any longer
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert process.returncode == 0, shown
    assert b"2/2" in shown
    assert b"mean reward 1.000, 0 failed" in shown
    assert b"[agents] rollout 1-0-" in shown
    assert b"2 planned: 2 rewarded" in table


def test_help_says_what_agents_there_are_and_what_the_exit_status_means(tmp_path: Path) -> None:
    status, out, _ = rolled(tmp_path, "--help")
    assert status == 0
    for text in ("agentcore:http://HOST:PORT", "python:MODULE:FUNCTION", "exit status is 0 when every", "--database"):
        assert text in out


def test_the_environment_of_an_agent_names_the_runtime_and_the_run_leaves_report_and_database(tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(
        "import os\nfrom tests.trainer.agents import act\n"
        "def run(request):\n"
        "    request['metadata']['endpoint'] = os.environ['AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME']\n"
        "    act(request)\n"
    )
    assert rolled(tmp_path, write_rows(tmp_path, [{}]), "--agent", "python:asks:run")[0] == 0
    names = {path.name for path in tmp_path.iterdir()} - {"asks.py", "__pycache__"}
    assert names == {"rows.jsonl", "rollouts.json", "job-runtime-local.db", "job-runtime-local.db.lock"}


def test_a_reader_that_leaves_before_the_table_leaves_no_run_behind_that_is_not_over(tmp_path: Path) -> None:
    with rolling(tmp_path, write_rows(tmp_path, [{}]), "--agent", ACT) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(PATIENCE)
    assert report(tmp_path)["counts"]["rewarded"] == 1
    assert not (tmp_path / "rollouts.json.journal").exists()
