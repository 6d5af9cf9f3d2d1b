"""`job-runtime-local job` and `agent`, against a running emulator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from emulator.cli import main
from emulator.trainer.agents import agent_environment
from tests.jobs.conftest import AWS, aws_with, training

ARN = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/first"


@pytest.fixture(scope="module")
def aws() -> Iterator[AWS]:
    """An emulator whose agent behaves."""
    with aws_with("good") as it:
        it.prepare()
        yield it


@pytest.fixture
def document(tmp_path: Path) -> str:
    """A file of a JobConfigDocument."""
    path = tmp_path / "document.json"
    path.write_text(json.dumps(training(max_steps=1)))
    return str(path)


class Shell:
    """Calls commands."""

    def __init__(self, aws: AWS, capsys: pytest.CaptureFixture[str]) -> None:
        self._endpoint = aws.server.url
        self._capsys = capsys

    def __call__(self, *words: str) -> tuple[int, list[str], list[str]]:
        """The exit status, and the lines of output and errors."""
        status = main([*words, "--endpoint", self._endpoint])
        out, errors = self._capsys.readouterr()
        return status, out.splitlines(), errors.splitlines()


@pytest.fixture
def shell(aws: AWS, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    """For this emulator; what an agent finds it by is taken back."""
    for name in agent_environment("", "", {}):
        monkeypatch.setenv(name, "local")
    return Shell(aws, capsys)


def test_a_job_is_followed_from_its_creation_to_its_end(shell: Shell, document: str) -> None:
    status, out, errors = shell("job", "create", "-f", document, "--name", "first", "--wait")
    assert status == 0
    assert errors[0] == ARN
    assert errors[-1].startswith("Completed  Completed  step 1/1  rollouts 4/4  tokens prefill ")
    assert any(line.endswith("Job completed") for line in (line.rstrip() for line in out))
    status, (heading, *jobs), _ = shell("job", "list", "--name-contains", "first")
    assert heading.split() == ["name", "category", "status", "secondary", "created"]
    assert [job.split()[:4] for job in jobs] == [["first", "AgentRFT", "Completed", "Completed"]]
    status, lines, _ = shell("job", "logs", "-f", ARN)
    assert (status, lines[-1].endswith("  Job completed")) == (0, True)
    status, lines, _ = shell("job", "show", "first", "--json")
    shown = json.loads("\n".join(lines))
    assert (shown["JobArn"], shown["JobConfigDocument"]["ServiceOutput"]["RolloutInfo"]["Completed"]) == (ARN, 4)
    assert shell("job", "stop", "first")[0] == 2  # it is over
    assert shell("job", "delete", "first") == (0, ["first is deleted"], [])
    assert shell("job", "list", "--name-contains", "first") == (0, [], ["no jobs"])


def test_a_whole_request_is_a_document_too(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "request.json"
    request = {"JobName": "second", "JobCategory": "AgentRFT", "JobConfigDocument": training(max_steps=1)}
    path.write_text(json.dumps(request))
    status, (line,), _ = shell("job", "create", "-f", str(path), "--json")
    assert (status, json.loads(line)["JobArn"].rpartition("/")[2]) == (0, "second")
    assert shell("job", "show", "second", "--wait")[0] == 0


def test_a_job_that_failed_is_1_to_who_waited(shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(json.dumps(training(global_batch_size=32)))
    status, out, _ = shell("job", "create", "-f", str(path), "--wait")
    assert status == 1
    assert any("Training data has 5 prompts but global_batch_size is 32" in line for line in out)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "is no JSON object"),
        ("[" * 100_000, "not JSON"),
        ('{"AgentConfig": {}}', "ValidationException: "),
        ('{"JobName": 5, "Extra": 1, "JobConfigDocument": {}}', "Parameter validation failed: "),
        (None, "No such file"),
    ],
)
def test_a_wrong_document_is_one_line_that_says_why(text: str | None, said: str, shell: Shell, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    if text is not None:
        path.write_text(text)
    status, out, (line,) = shell("job", "create", "-f", str(path))
    assert (status, out) == (2, [])
    assert said in line


def test_the_log_of_a_name_that_was_free_again_is_that_of_the_job_which_has_it(shell: Shell, document: str) -> None:
    for _ in range(2):
        assert shell("job", "create", "-f", document, "--name", "again", "--wait")[0] == 0
        _, lines, _ = shell("job", "logs", "again")
        assert sum(line.endswith("  Job completed") for line in lines) == 1
        assert shell("job", "delete", "again")[0] == 0


@pytest.mark.parametrize("option", ["--timeout", "--wait"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_times_that_are_none_are_refused(option: str, value: str, shell: Shell) -> None:
    status, out, (line,) = shell("agent", "check", option, value)
    assert (status, out) == (2, [])
    assert f"{option}: {float(value):g} is not a number of seconds" in line


def test_a_job_that_there_is_not(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nor-this")  # of the user's other work
    status, _, (line,) = shell("job", "show", "nobody")
    assert status == 2
    assert line.startswith("job-runtime-local: there is no job nobody; ")


def test_where_no_emulator_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["job", "list", "--endpoint", "http://127.0.0.1:9"]) == 2
    assert "there is no emulator at http://127.0.0.1:9" in capsys.readouterr().err


def test_the_agents_of_an_emulator(shell: Shell) -> None:
    assert shell("agent", "list") == (0, ["all others  python:tests.jobs.agents:good"], [])


def test_an_agent_that_behaves_is_ready_and_does_a_rollout(shell: Shell) -> None:
    status, (line,), _ = shell("agent", "check", "--json")
    found = json.loads(line)
    assert (status, found["healthy"], found["failure"], found["turns"]) == (0, True, None, 2)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("never_samples", "No sampling requests were received for this rollout"),
        ("signals_failure", "The agent signaled that the trajectory failed"),
        ("seals_without_reward", "The rollout completed but no reward was received in time"),
    ],
)
def test_an_agent_that_does_not_behave_is_told_so(name: str, said: str, shell: Shell) -> None:
    status, (line,), _ = shell("agent", "check", f"python:tests.jobs.agents:{name}", "--timeout", "20")
    assert status == 1
    assert f"python:tests.jobs.agents:{name}  ready, but {said}" in line


def test_an_agent_is_asked_a_row_of_its_data(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "6 * 7?", "answer": "42"}\n{"prompt": "?"}\n')
    row = str(tmp_path / "rows.jsonl")
    status, (line,), _ = shell("agent", "check", "python:tests.jobs.agents:wants_an_answer", "--dataset", row, "--json")
    assert (status, json.loads(line)["reward"]) == (0, 42)


def test_data_that_is_not_there_is_one_line(shell: Shell) -> None:
    status, _, (line,) = shell("agent", "check", "--dataset", "nowhere.jsonl")
    assert (status, "nowhere.jsonl" in line) == (2, True)


def test_an_agent_that_is_not_there_is_not_ready(shell: Shell) -> None:
    status, (line,), _ = shell("agent", "check", "http://127.0.0.1:9/rollout", "--wait", "0.1")
    assert status == 1
    assert line.startswith("http://127.0.0.1:9/rollout  not ready: ")
