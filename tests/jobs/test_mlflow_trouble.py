"""Jobs and an MLflow that does not do what it should: the jobs go on, and their logs say what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from emulator.settings import InvalidSetting, Settings
from emulator.testing import running_server
from emulator.trainer.mlflow import server, spans, tracker
from emulator.trainer.mlflow.server import MlflowAway, ServedMlflow, make_mlflow
from tests.jobs import agents
from tests.jobs.conftest import AWS, aws_with, training
from tests.jobs.stand_in_mlflow import Answer, StandIn, standing_in

PATH = "/_emulator/mlflow"
TRACES = "/v1/traces"
BATCH, UPDATE = "runs/log-batch", "runs/update"


@pytest.fixture
def mlflow() -> Iterator[StandIn]:
    with standing_in() as stand_in:
        yield stand_in


def completed(aws: AWS) -> list[str]:
    """What the log of a job that was done says of MLflow."""
    aws.prepare()
    aws.create(training(max_steps=1))
    job = aws.ended()
    assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
    return [line for line in aws.log() if "MLflow" in line]


def test_mlflow_learns_who_asks_but_not_with_which_cookies(mlflow: StandIn) -> None:
    mlflow.instead[""] = (200, "{}", {"set-cookie": "of=mlflow"})
    with running_server(Settings(port=0, durability="memory", mlflow=mlflow.url)) as emulator:
        url = f"{emulator.url}{PATH}/ajax-api/3.0/mlflow/assistant/config"
        answer = httpx2.get(url, headers={"cookie": "jupyter=secret"})
        assert answer.status_code == 200
        assert mlflow.headers["x-forwarded-for"] == "127.0.0.1"
        httpx2.get(url, headers={"x-forwarded-for": "::1"})
        assert mlflow.headers["x-forwarded-for"] == "::1, 127.0.0.1"
    assert "cookie" not in mlflow.headers
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("status", [500, 503])
def test_what_mlflow_cannot_swallow_stands_in_nobodys_way(mlflow: StandIn, status: int) -> None:
    mlflow.instead[TRACES] = (status, '{"detail": "a bug"}', {})
    with aws_with("good", mlflow=mlflow.url) as aws:
        said = completed(aws)
    metrics = [document for document in mlflow.told(BATCH) if "metrics" in document]
    assert [document["metrics"][0]["step"] for document in metrics] == [1]
    assert [document["status"] for document in mlflow.told(UPDATE)] == ["FINISHED"]
    assert said[0].endswith(f"answered {status}")
    assert said[-1] == "MLflow is still away: 1 things about this job are not told to it"


def test_what_mlflow_cannot_take_now_waits(mlflow: StandIn) -> None:
    busy: Answer = (503, '{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "the database is away"}', {})
    mlflow.instead[f"/api/2.0/mlflow/{BATCH}"] = busy
    with aws_with("good_when_told", mlflow=mlflow.url) as aws:
        aws.prepare()
        aws.create(training(max_steps=1))
        aws.until(lambda _: any("MLflow is away" in line for line in log_so_far(aws)))
        mlflow.instead.clear()
        agents.GO.set()
        assert aws.ended()["JobStatus"] == "Completed"
        assert "MLflow is back" in aws.log()
    assert [list(document)[1] for document in mlflow.told(BATCH)] == ["params", "params", "metrics"]


def log_so_far(aws: AWS) -> list[str]:
    """The job's log, if it has begun."""
    group = "/aws/sagemaker/Job/AgentRFT"
    logs = aws.client("logs")
    if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
        return []
    return aws.log() if logs.describe_log_streams(logGroupName=group)["logStreams"] else []


def test_parameters_that_are_refused_do_not_cost_the_run(mlflow: StandIn) -> None:
    refusal = '{"error_code": "INVALID_PARAMETER_VALUE", "message": "not that"}'
    mlflow.instead[f"/api/2.0/mlflow/{BATCH}"] = (400, refusal, {})
    with aws_with("good", mlflow=mlflow.url) as aws:
        said = completed(aws)
        assert aws.describe()["Output"]["MlflowDetails"]["RunId"] == "r"
    assert said == ["MLflow does not hear everything about this job: INVALID_PARAMETER_VALUE: not that"] * 2
    assert [document["status"] for document in mlflow.told(UPDATE)] == ["FINISHED"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((200, "{}", {}), "HTTP 200: the answer is none of MLflow's"),
        ((200, '{"experiment": [], "runs": 1, "experiment_id": {}}', {}), "HTTP 200: the answer is none of MLflow's"),
        ((200, "<html>", {}), "HTTP 200: <html>"),
        ((302, "", {"location": "http://127.0.0.1:1/elsewhere"}), "HTTP 302: "),
    ],
)
def test_what_is_no_mlflow_fails_no_job(mlflow: StandIn, answer: Answer, why: str) -> None:
    mlflow.instead[""] = answer
    with aws_with("good", mlflow=f"{mlflow.url}/prefix/") as aws:
        assert completed(aws) == [f"MLflow does not hear of this job: {why}"]
    assert {path.partition("/api/")[0] for path, _ in mlflow.asked} == {"/prefix"}


def test_a_slow_mlflow_holds_a_job_up_for_a_bounded_time(mlflow: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracker, "PATIENCE", 0.2)
    monkeypatch.setattr(tracker, "PATIENCE_AT_END", 0.4)
    with aws_with("good", mlflow=mlflow.url) as aws:
        aws.prepare()
        mlflow.slow[TRACES] = 60
        aws.create(training(max_steps=2))
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        said = [line for line in aws.log() if "MLflow" in line]
    assert said[0] == "MLflow is away; what it should hear waits: to tell it takes more than 0.2 s"
    assert said[-1].startswith("MLflow is still away: ")


def test_a_job_that_ends_with_another_server_ends_its_run(mlflow: StandIn, tmp_path: Path) -> None:
    settings = {"durability": "full", "database": str(tmp_path / "a.db"), "mlflow": mlflow.url}
    with aws_with("good_when_told", **settings) as aws:
        aws.prepare()
        aws.create(training(rollout_timeout=3600))
        aws.until(lambda job: "MlflowDetails" in job["Output"])
    mlflow.asked.clear()
    with aws_with("good_when_told", **settings) as aws:
        aws.until(lambda job: job["SecondaryStatus"] == "Training")
        aws.client("s3").delete_object(Bucket="bucket", Key="train.jsonl")
    with aws_with("good", **settings) as aws:
        assert aws.ended()["JobStatus"] == "Failed"
    assert [document["status"] for document in mlflow.told(UPDATE)] == ["RUNNING", "FAILED"]


def test_long_texts_are_cut_in_traces_and_say_so(mlflow: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_TEXT", 40)
    with aws_with("good", mlflow=mlflow.url) as aws:
        completed(aws)
    (document,) = (document for path, document in mlflow.asked if path == TRACES)
    texts = [text for text in strings(document) if "characters are" in text]
    assert texts
    assert all(text.endswith("characters are left out here for its length; the trajectory has it)") for text in texts)


def strings(value: Any) -> Iterator[str]:
    """All that are in a document."""
    match value:
        case str():
            yield value
        case list():
            for item in value:
                yield from strings(item)
        case dict():
            for item in value.values():
                yield from strings(item)


def test_long_traces_come_apart_and_without_what_is_too_much(mlflow: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MAX_BODY", 3000)
    with aws_with("good", mlflow=mlflow.url) as aws:
        assert completed(aws) == []
    found = [document for path, document in mlflow.asked if path == TRACES]
    assert len(found) == 4  # one a rollout
    for document in found:
        told = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
        assert [span["name"] for span in told] == ["trajectory", "turn-0", "turn-1"]
        assert "reward" in [attribute["key"] for attribute in told[0]["attributes"]]
        assert f"… ({spans.LEFT_OUT})" in strings(told[2])


@pytest.mark.parametrize("url", [f"http://{rest}" for rest in ("a:secret@[::1]", "[::1]/?secret", "[::1]/#secret")])
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidSetting) as refusal:
        make_mlflow(Settings(mlflow=url))
    assert "secret" not in str(refusal.value)


def test_an_interpreter_that_says_nothing_is_waited_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "PATIENCE_WITH_PYTHON", 0.2)
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexec sleep 600\n")
    python.chmod(0o755)

    async def ask() -> None:
        mlflow = ServedMlflow(None, str(python))
        assert not await mlflow.is_there()
        with pytest.raises(MlflowAway, match="does not say whether it has MLflow"):
            await mlflow.url()
        await mlflow.aclose()

    before = set(psutil.Process().children())
    asyncio.run(ask())
    assert set(psutil.Process().children()) <= before


def test_who_waits_for_its_start_hears_when_it_is_ended_meanwhile(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\n[ $1 = -c ] || exec sleep 600\n")
    python.chmod(0o755)

    async def ask() -> None:
        mlflow = ServedMlflow(tmp_path / "kept", str(python))
        waiting = asyncio.create_task(mlflow.url())
        while not (tmp_path / "kept" / "server.log").exists():
            await asyncio.wait([waiting], timeout=0.01)
        await mlflow.aclose()
        for asking in (waiting, mlflow.url()):
            with pytest.raises(MlflowAway, match="ended with this server"):
                await asking

    asyncio.run(ask())


def test_a_folder_that_sqlite_would_misread_is_refused(tmp_path: Path) -> None:
    async def ask() -> None:
        mlflow = ServedMlflow(tmp_path / "why?", "/bin/true")
        with pytest.raises(MlflowAway, match=r"cannot be started: no URL of SQLite can have the \?"):
            await mlflow.url()
        await mlflow.aclose()

    asyncio.run(ask())


def test_pages_say_why_there_are_none() -> None:
    with running_server(Settings(port=0, durability="memory", mlflow="http://127.0.0.1:1")) as emulator:
        answer = httpx2.get(f"{emulator.url}{PATH}/")
    assert answer.status_code == 500
    why = "MLflow at http://127.0.0.1:1 does not answer: Connection refused by 127.0.0.1:1"
    assert answer.json() == {"Message": why}


def test_why_it_did_not_start_is_said(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        "#!/bin/sh\n[ $1 = -c ] && exit\necho 'Traceback:\nmlflow.MlflowException: run mlflow db upgrade\n'\nexit 3\n"
    )
    python.chmod(0o755)

    async def ask() -> None:
        mlflow = ServedMlflow(tmp_path / "kept", str(python))
        with pytest.raises(MlflowAway, match=r"exited with status 3: run mlflow db upgrade; see .*server\.log"):
            await mlflow.url()
        await mlflow.aclose()

    asyncio.run(ask())
