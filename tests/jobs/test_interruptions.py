"""Jobs that are stopped, deleted, forgotten or left at bad moments: each ends, and soon."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from botocore.exceptions import ClientError

from emulator.store import now
from emulator.trainer.jobs import aws as rest_of_aws
from tests.jobs.conftest import aws_to_kill, aws_with, training, trajectories
from tests.stored import PATIENCE, eventually

NAMED = {"JobName": "j", "JobCategory": "AgentRFT"}


def code_of(error: Any) -> str:
    return str(error.value.response["Error"]["Code"])


@contextmanager
def silent_server() -> Iterator[str]:
    """Takes connections, and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_of_twenty_creations_at_once_one_wins() -> None:
    with aws_with("never_answers") as aws, ThreadPoolExecutor(20) as threads:
        aws.prepare()
        clients = [aws.client("sagemaker") for _ in range(20)]

        def create(client: Any) -> str:
            try:
                aws.create(training(), client=client)
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return "created"

        outcomes = list(threads.map(create, clients))
        assert sorted(outcomes) == [*["ResourceInUse"] * 19, "created"]


def test_a_job_that_is_stopped_as_soon_as_it_is_there_stops() -> None:
    with aws_with("never_answers") as aws, ThreadPoolExecutor(2) as threads:
        aws.prepare()
        creating, stopping = aws.client("sagemaker"), aws.client("sagemaker")

        def stop(name: str) -> None:
            while True:
                try:
                    stopping.stop_job(JobName=name, JobCategory="AgentRFT")
                except stopping.exceptions.ResourceNotFound:
                    continue
                return

        names = [f"j{number}" for number in range(20)]
        for name in names:
            stopped = threads.submit(stop, name)
            aws.create(training(), name, client=creating)
            stopped.result()
        for name in names:
            assert aws.ended(name)["JobStatus"] == "Stopped"


def test_a_job_that_waits_for_its_data_stops_at_once_and_holds_no_server_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as s3, aws_with("good") as aws:
        aws.prepare()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        aws.create(training())
        aws.until(lambda job: job["SecondaryStatus"] == "Downloading")
        aws.client("sagemaker").stop_job(**NAMED)
        assert aws.ended(within=20)["JobStatus"] == "Stopped"


def test_a_job_that_is_stopped_while_it_waits_for_its_agent_stops_at_once() -> None:
    with silent_server() as agent, aws_with("good", agents=(agent,)) as aws:
        aws.prepare()
        aws.create(training())
        aws.until(lambda job: job["SecondaryStatus"] == "Pending")
        aws.client("sagemaker").stop_job(**NAMED)
        assert aws.ended(within=20)["JobStatus"] == "Stopped"


def test_a_job_that_comes_while_the_server_stops_is_left_to_the_next(database: Path) -> None:
    """What serves jobs is made by the first request that is not the runtime's, and there was none before."""
    with aws_to_kill(database, "good") as aws:
        url = urlsplit(aws.server.url)
        with socket.create_connection((url.hostname, url.port), PATIENCE) as held:
            head = "POST /sample HTTP/1.1", "Host: localhost", "Content-Length: 2", "Expect: 100-continue"
            held.sendall("\r\n".join((*head, "", "")).encode())
            assert b"100 Continue" in held.recv(1000)  # under way: whoever serves it waits for its body
            aws.server.process.send_signal(signal.SIGTERM)
            models = f"{aws.server.url}/v1/models"
            eventually(lambda: httpx2.get(models).headers.get("connection") == "close", "the server to stop")
            aws.create(training())
            aws.create(training(), "stopped")
            aws.client("sagemaker").stop_job(JobName="stopped", JobCategory="AgentRFT")
            held.sendall(b"{}")
            aws.server.process.wait(PATIENCE)
        assert "Traceback" not in aws.server.log.read_text()
    with sqlite3.connect(database) as connection:
        found = connection.execute("SELECT name, status, json_extract(transitions, '$[#-1][0]') FROM jobs").fetchall()
    assert found == [("j", "InProgress", "Starting"), ("stopped", "Stopping", "Stopping")]


def test_a_job_under_way_is_not_deleted() -> None:
    with aws_with("never_answers") as aws:
        aws.prepare()
        aws.create(training())
        with pytest.raises(ClientError) as error:
            aws.client("sagemaker").delete_job(**NAMED)
        assert code_of(error) == "ResourceInUse"
        assert "stop it first" in str(error.value)


def test_a_reset_breaks_jobs_off_and_their_names_are_free() -> None:
    with aws_with("good_when_told") as aws:
        aws.prepare()
        first = aws.create(training())
        aws.until(lambda _: len(trajectories(aws, first)) == 4)
        httpx2.post(f"{aws.server.url}/_emulator/reset", timeout=30).raise_for_status()
        assert aws.client("sagemaker").list_jobs(JobCategory="AgentRFT")["JobSummaries"] == []
        aws.prepare()
        aws.create(training())
        aws.until(lambda _: len(trajectories(aws, first)) == 4)
        aws.client("sagemaker").stop_job(**NAMED)  # whoever ran the first one has not taken this one's place
        assert aws.ended(within=20)["JobStatus"] == "Stopped"


def test_a_log_goes_on_after_a_reset() -> None:
    """The stream of a job that is created again within the same second has the same name."""
    with aws_with("good") as aws:
        cloud = rest_of_aws.AWS(aws.server.url, "us-west-2", ("a", "b"))
        group, stream = "/aws/sagemaker/Job/AgentRFT", "j/algo-1-1"
        asyncio.run(cloud.log(group, stream, [(now(), "before")]))
        httpx2.post(f"{aws.server.url}/_emulator/reset", timeout=30).raise_for_status()
        asyncio.run(cloud.log(group, stream, [(now(), "after")]))
        asyncio.run(cloud.log(group, stream, [(now(), "more")]))
        assert aws.log() == ["after", "more"]


def test_a_job_of_a_name_that_is_free_again_has_nothing_of_the_one_before() -> None:
    with aws_with("good") as aws:
        aws.prepare()
        arn = aws.create(training())
        aws.ended()
        before = {each["trajectory_id"] for each in trajectories(aws, arn)}
        aws.client("sagemaker").delete_job(**NAMED)
        aws.create(training(max_steps=1))
        job = aws.ended()
        assert job["JobStatus"] == "Completed"
        assert job["Output"]["RolloutInfo"] == {"Total": 4, "Completed": 4}
        assert job["Output"]["ProgressInfo"]["CurrentStep"] == 1
        now = {each["trajectory_id"] for each in trajectories(aws, arn)} - before
        assert len(now) == 4
        lines = aws.client("s3").get_object(Bucket="bucket", Key="out/j/trajectories.jsonl")["Body"].read().splitlines()
        assert {json.loads(line)["trajectory_id"] for line in lines} == now


def test_a_group_larger_than_memory_is_no_list() -> None:
    with aws_with("never_answers") as aws:
        aws.prepare()
        aws.create(training(group_size=10**12))
        aws.until(lambda job: job["Output"].get("RolloutInfo") == {"Total": 2 * 10**12, "Completed": 0})
        aws.client("sagemaker").stop_job(**NAMED)
        assert aws.ended(within=20)["JobStatus"] == "Stopped"
