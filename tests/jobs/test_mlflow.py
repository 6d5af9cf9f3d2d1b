"""Jobs in a real MLflow: `mlflow server`, a child of an emulator, by that emulator's port."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from uuid import uuid4

import boto3
import httpx2
import psutil
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import ClientError

from emulator.job import Job
from emulator.job_config import JobConfig, read_config
from emulator.server import Server
from emulator.settings import Settings
from emulator.store import Store
from emulator.store.jobs import find_job
from emulator.testing import running_server
from emulator.trainer.jobs.services import Run, Say
from emulator.trainer.mlflow.server import GivenMlflow
from emulator.trainer.mlflow.tracker import MlflowTracker
from tests.clients.environments import client_variables, program
from tests.job_config import MLFLOW
from tests.jobs import agents
from tests.jobs.conftest import aws_with, evaluation, training, trajectories
from tests.jobs.test_jobs import check_step, check_validation, step_metrics

PATH = "/_emulator/mlflow"
READER = Path(__file__).with_name("mlflow_reader.py")

RULES = r"""
rules:
  - when: {turn: 1, last: '(?P<sum>\d+ \+ \d+)'}
    reply:
      tool_calls:
        - {name: calculator, arguments: {expression: "{{ match.sum }}"}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An emulator that serves MLflow; the others of this module are led there."""
    folder = tmp_path_factory.mktemp("mlflow")
    settings = Settings(
        port=0, database=str(folder / "a.db"), mlflow_python=str(program("sagemaker", "python")), log_level="warning"
    )
    with ExitStack() as stack:
        server = stack.enter_context(running_server(settings))
        before = set(psutil.Process().children(recursive=True))
        assert httpx2.get(f"{server.url}{PATH}/health", timeout=115).text == "OK"
        children = set(psutil.Process().children(recursive=True)) - before
        assert any("mlflow" in child.cmdline() for child in children)
        yield server.url
        stack.close()
        assert not [child for child in children if child.is_running()], "MLflow has outlived its emulator"
        assert (folder / "a.db-mlflow" / "mlflow.db").is_file()


def named(document: dict[str, Any], experiment: str, run: str | None = None) -> dict[str, Any]:
    """A job's document with names for MLflow."""
    part = document["TrainingConfig" if "TrainingConfig" in document else "OutputDataConfig"]
    part["MlflowConfig"] = {"MlflowResourceArn": MLFLOW, "MlflowExperimentName": experiment}
    part["MlflowConfig"] |= {} if run is None else {"MlflowRunName": run}
    return document


def read(gateway: str, experiment: str) -> Any:
    """What MLflow has of an experiment, read as the SDK does: by the app's ARN, signed."""
    done = subprocess.run(
        [program("sagemaker", "python"), READER, MLFLOW, experiment],
        env=client_variables() | {"SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": f"{gateway}{PATH}"},
        stdout=subprocess.PIPE,
        timeout=100,
        check=True,
    )
    return json.loads(done.stdout)


def rest(gateway: str, path: str, **query: str) -> Any:
    answer = httpx2.get(f"{gateway}{PATH}/api/2.0/mlflow/{path}", params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_metrics_and_traces_of_a_job_are_what_its_trajectories_say(gateway: str, tmp_path: Path) -> None:
    with aws_with("good", mlflow=f"{gateway}{PATH}") as aws:
        aws.prepare()
        arn = aws.create(named(training(validation=True, val_every=1), "counted", "a run"))
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        told, found = step_metrics(aws), trajectories(aws, arn)
    answer = read(gateway, "counted")
    (run,) = answer["runs"]
    assert job["Output"]["MlflowDetails"] == {
        "ExperimentName": "counted",
        "RunName": "a run",
        "ExperimentId": answer["experiment_id"],
        "RunId": run["id"],
    }
    assert (run["name"], run["status"]) == ("a run", "FINISHED")
    assert run["parameters"]["group_size"] == "2"
    by_step: dict[int, dict[str, float]] = {}
    for name, history in run["metrics"].items():
        for step, value in history:
            assert name not in by_step.setdefault(step, {}), "a metric was told twice"
            by_step[step][name] = value
    assert by_step == told
    parts: dict[str, list[dict[str, Any]]] = {}
    for each in found:
        parts.setdefault("-".join(each["trajectory_id"].split("-")[:2]), []).append(each)
    for step in (1, 2):
        check_step(by_step[step], parts[f"train-{step}"])
        check_validation(by_step[step], parts[f"val-{step}"])
    check_traces(run["traces"], found)


def check_traces(traces: list[dict[str, Any]], found: list[dict[str, Any]]) -> None:
    """One a rollout, and in it what was captured."""
    by_id = {trace["tags"]["trajectory_id"]: trace for trace in traces}
    assert len(traces) == len(by_id) == len(found)
    for each in found:
        trace = by_id[each["trajectory_id"]]
        root, *turns = trace["spans"]
        assert (root["name"], root["parent"]) == ("trajectory", None)
        assert root["inputs"] == {"prompt": each["instance"]["prompt"]}
        assert root["attributes"]["reward"] == each["rewards"][0]
        assert [turn["name"] for turn in turns] == ["turn-0", "turn-1"]
        for span, turn in zip(turns, each["turns"], strict=True):
            assert span["parent"] == "trajectory"
            assert span["inputs"]["messages"] == turn["request"]["messages"]
            assert span["outputs"]["choices"][0]["message"] == turn["choices"][0]["message"]
            assert span["attributes"]["mlflow.chat.tokenUsage"]["input_tokens"] == turn["usage"]["prompt_tokens"]
        assert trace["usage"]["output_tokens"] == each["usage"]["completion_tokens"]


def test_tools_are_spans_and_a_rollout_that_failed_is_a_trace_with_its_reason(gateway: str, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    with aws_with("calculates", mlflow=f"{gateway}{PATH}", model=f"scripted:{rules}") as aws:
        aws.prepare(prompts=3)
        aws.create(named(evaluation(eval_group_size=1), "tools"), category="AgentRFTEvaluation")
        job = aws.ended(category="AgentRFTEvaluation")
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
    with aws_with("signals_failure", mlflow=f"{gateway}{PATH}") as aws:
        aws.prepare(prompts=3)
        aws.create(named(evaluation(rollout_max_retries=0), "tools"), "f", "AgentRFTEvaluation")
        assert aws.ended("f", "AgentRFTEvaluation")["JobStatus"] == "Failed"
    failed, done = read(gateway, "tools")["runs"]
    assert (failed["status"], failed["metrics"]) == ("FAILED", {})
    assert done["metrics"]["eval/reward/mean"] == [[0, 0.75]]
    assert len(done["traces"]) == 3
    for trace in done["traces"]:
        assert [span["name"] for span in trace["spans"]] == ["trajectory", "turn-0", "calculator", "turn-1"]
        root, _, tool, _ = trace["spans"]
        assert root["attributes"]["reward"] == 0.75
        assert tool["inputs"]["expression"] in root["inputs"]["prompt"]
        assert (tool["outputs"], tool["type"]) == ("42", "TOOL")


def test_a_server_goes_on_with_the_run_of_the_one_before(gateway: str, tmp_path: Path) -> None:
    settings = {"durability": "full", "database": str(tmp_path / "a.db"), "mlflow": f"{gateway}{PATH}"}
    document = named(training(validation=True), "resumed")
    with aws_with("good_when_told", **settings) as aws:
        aws.prepare()
        arn = aws.create(document)
        before = aws.until(lambda job: bool(job["Output"].get("MlflowDetails")) and bool(trajectories(aws, arn)))
    agents.GO.set()
    with aws_with("good", **settings) as aws:
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        found = trajectories(aws, arn)
    details = job["Output"]["MlflowDetails"]
    assert details == before["Output"]["MlflowDetails"]
    run = rest(gateway, "runs/get", run_id=details["RunId"])["run"]
    assert run["info"]["status"] == "FINISHED"
    for metric, steps in {"val/reward/mean": [0, 2], "rollout/reward/mean": [1, 2]}.items():
        told = rest(gateway, "metrics/get-history", run_id=details["RunId"], metric_key=metric)["metrics"]
        assert [each.get("step", 0) for each in told] == steps
    rewards = [each["rewards"][0] for each in found if each["eligible"] and each["trajectory_id"].startswith("train-2")]
    assert told[1]["value"] == fmean(rewards)


def tracked(gateway: str, tell: Callable[[Telling], Awaitable[None]]) -> list[str]:
    """What a job's log says of MLflow when `tell` has told of a job that is there."""
    with aws_with("good", mlflow="off") as aws:
        aws.prepare()
        arn = aws.create(named(training(max_steps=1), uuid4().hex))
        assert aws.ended()["JobStatus"] == "Completed"
        said: list[str] = []

        async def say(line: str) -> None:
            said.append(line)

        async def work() -> None:
            assert isinstance(aws.server, Server)
            store: Store = aws.server.app.store
            job = await store.read(find_job, arn)
            assert job is not None
            config = read_config(job.category, job.schema_version, job.document, strict=False)
            telling = Telling(store, job, config, say)
            await tell(telling)
            for tracker in telling.trackers:
                await tracker.aclose()

        asyncio.run(work())
    return said


@dataclass
class Telling:
    """A job, and what it is told with."""

    store: Store
    job: Job
    config: JobConfig
    say: Say
    trackers: list[MlflowTracker] = field(default_factory=list)

    async def begin(self, url: str, output: Mapping[str, Any] | None = None) -> Run:
        """Its run in the MLflow at a URL."""
        tracker = MlflowTracker(GivenMlflow(url), self.store, "")
        self.trackers.append(tracker)
        return await tracker.begin(replace(self.job, output=output or {}), self.config, {}, self.say)


def history(gateway: str, run: Run) -> list[tuple[int, float]]:
    """What a run has of the metric `a`."""
    found = rest(gateway, "metrics/get-history", run_id=run.details["RunId"], metric_key="a")["metrics"]
    return [(each["step"], each["value"]) for each in found]


def test_what_mlflow_missed_while_it_was_away_it_is_told_when_it_is_back(gateway: str) -> None:
    async def tell(telling: Telling) -> None:
        with running_server(Settings(port=0, durability="memory", mlflow=f"{gateway}{PATH}")) as server:
            port = int(server.url.rpartition(":")[2])
            run = await telling.begin(f"{server.url}{PATH}")
            await run.log_metrics({"a": 1.0}, 1)
        await run.log_metrics({"a": 2.0}, 2)
        await run.log_metrics({"a": 3.0}, 3)
        with running_server(Settings(port=port, durability="memory", mlflow=f"{gateway}{PATH}")):
            await run.end("FINISHED")
        assert history(gateway, run) == [(1, 1), (2, 2), (3, 3)]
        assert rest(gateway, "runs/get", run_id=run.details["RunId"])["run"]["info"]["status"] == "FINISHED"

    said = tracked(gateway, tell)
    assert [line.partition(";")[0] for line in said] == ["MLflow is away", "MLflow is back"]


def test_a_step_that_another_server_does_again_is_told_once(gateway: str) -> None:
    async def tell(telling: Telling) -> None:
        first = await telling.begin(f"{gateway}{PATH}")
        await first.log_metrics({"a": 1.0, "seconds": 5.0}, 1)
        # That one was killed before it had noted what the run is; the next one, before it had noted the step.
        second = await telling.begin(f"{gateway}{PATH}")
        assert second.details == first.details
        await second.log_metrics({"a": 1.0, "seconds": 6.0}, 1)
        third = await telling.begin(f"{gateway}{PATH}", {"MlflowDetails": dict(first.details)})
        await third.log_metrics({"a": 1.0, "seconds": 7.0}, 1)
        await third.log_metrics({"a": 2.0, "seconds": 8.0}, 2)
        assert history(gateway, first) == [(1, 1), (2, 2)]

    assert tracked(gateway, tell) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mlflow": "http://127.0.0.1:1"}, "MLflow does not hear of this job: MLflow at http://127.0.0.1:1: Conn"),
        ({"mlflow_python": "/dev/null"}, "MLflow does not hear of this job: cannot run MLflow's Python"),
        ({"mlflow_python": "/bin/false"}, "MLflow does not hear of this job: /bin/false has no MLflow"),
        ({"mlflow": "off"}, None),
    ],
)
def test_a_job_does_not_fail_for_want_of_mlflow_and_its_log_says_so(settings: dict[str, str], said: str | None) -> None:
    with aws_with("good", **settings) as aws:
        aws.prepare()
        aws.create(training(max_steps=1))
        job = aws.ended()
        assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
        assert "MlflowDetails" not in job["Output"]
        lines = [line for line in aws.log() if "MLflow" in line]
        assert [line.startswith(said or "") for line in lines] == [True] * (said is not None)
        answer = httpx2.get(f"{aws.server.url}{PATH}/")
        assert answer.status_code == (404 if said is None else 500)


def test_pages_and_the_way_in(gateway: str) -> None:
    way_in = httpx2.get(f"{gateway}{PATH}/auth?authToken=local", follow_redirects=False)
    assert (way_in.status_code, way_in.headers["location"]) == (302, f"{PATH}/")
    page = httpx2.get(f"{gateway}{PATH}/")
    assert page.status_code == 200
    script = page.text.partition('src="')[2].partition('"')[0]
    assert script.startswith("static-files/")  # a path below ours
    whole = httpx2.get(f"{gateway}{PATH}/{script}")
    assert (whole.status_code, len(whole.content)) == (200, int(whole.headers["content-length"]))
    assert httpx2.head(f"{gateway}{PATH}/").status_code == 200
    assert httpx2.get(f"{gateway}{PATH}/", headers={"origin": "http://elsewhere.example"}).status_code == 403


def test_the_url_that_is_signed_in_advance_leads_to_the_pages(gateway: str) -> None:
    with aws_with("good", mlflow=f"{gateway}{PATH}") as aws:
        sagemaker = aws.client("sagemaker")
        (app,) = sagemaker.list_mlflow_apps()["Summaries"]
        url = sagemaker.create_presigned_mlflow_app_url(Arn=app["Arn"])["AuthorizedUrl"]
        assert "<title>MLflow</title>" in httpx2.get(url, follow_redirects=True).text
        named = f"{url.split('/auth')[0]}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"  # as the SDK
        assert httpx2.get(named).json()["experiment"]["experiment_id"] == "0"
    for without in ({"mlflow": "off"}, {"mlflow_python": "/bin/false"}):
        with aws_with("good", **without) as aws, pytest.raises(ClientError, match="started without MLflow"):
            aws.client("sagemaker").create_presigned_mlflow_app_url(Arn=app["Arn"])


def test_requests_for_an_mlflow_app_are_led_to_it_from_any_path_when_their_signature_is_right(gateway: str) -> None:
    strict = Settings(
        port=0, durability="memory", mlflow=f"{gateway}{PATH}", auth="strict", key_pairs=("AKIDLOCAL:secret",)
    )
    with running_server(strict) as server:
        answers = []
        for secret in ("secret", "another"):
            url = f"{server.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name=Default"
            request = AWSRequest("GET", url, headers={"x-sm-mlflow-app-arn": MLFLOW})
            credentials = boto3.Session("AKIDLOCAL", secret).get_credentials()
            SigV4Auth(credentials, "sagemaker", "us-west-2").add_auth(request)
            answers.append(httpx2.get(url, headers=dict(request.headers)))
        assert [answer.status_code for answer in answers] == [200, 403]
        assert answers[0].json()["experiment"]["name"] == "Default"


def test_a_job_that_names_no_mlflow_has_none(gateway: str) -> None:
    document = training(max_steps=1)
    del document["TrainingConfig"]["MlflowConfig"]
    with aws_with("good", mlflow=f"{gateway}{PATH}") as aws:
        aws.prepare()
        aws.create(document)
        assert "MlflowDetails" not in aws.ended()["Output"]
