"""Jobs of several servers on one PostgreSQL database: each is done by one of them, whatever becomes of that one."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from emulator.address import Address, DatabaseURL
from emulator.settings import Settings
from emulator.store.copy import copy_database
from emulator.store.runners import LEASE
from emulator.testing import running_server
from tests.jobs import agents
from tests.jobs.conftest import AWS, aws_with, evaluation, training, trajectories
from tests.postgresql import PostgreSQL, Stop
from tests.postgresql_proxy import postgresql_proxy
from tests.serving import Serving, serving
from tests.stored import eventually, spelled

NAMED = {"JobName": "j", "JobCategory": "AgentRFT"}

#: Of a small training job: two steps of two prompts, two rollouts of each.
ROLLOUTS = 8


@contextmanager
def two(url: DatabaseURL, agent: str, **settings: Any) -> Iterator[tuple[AWS, AWS]]:
    """Two servers of this process: they share moto too."""
    with (
        aws_with(agent, database=url.conninfo, **settings) as one,
        aws_with(agent, database=url.conninfo, **settings) as other,
    ):
        yield one, other


def in_flight(aws: AWS, arn: str) -> None:
    """Until the agent was asked for the first step's rollouts."""
    aws.until(lambda job: job["SecondaryStatus"] == "Training" and len(trajectories(aws, arn)) == 4)


def history(job: dict[str, Any]) -> list[str]:
    return [each["Status"] for each in job["SecondaryStatusTransitions"]]


def check_completed(aws: AWS, arn: str) -> dict[str, Any]:
    """The job is over, and each of its rollouts counts once."""
    job = aws.ended()
    assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
    eligible = [each for each in trajectories(aws, arn) if each["eligible"]]
    assert len(eligible) == ROLLOUTS
    assert len({tuple(each["trajectory_id"].split("-")[:-1]) for each in eligible}) == ROLLOUTS
    usage = job["Output"]["BillableTokenUsage"]
    assert usage["SampleTokenCount"] == sum(each["usage"]["completion_tokens"] for each in eligible)
    assert usage["PrefillTokenCount"] == sum(each["usage"]["prompt_tokens"] for each in eligible)
    return job


def test_a_job_can_be_seen_stopped_and_deleted_at_either(postgresql_database: DatabaseURL) -> None:
    with two(postgresql_database, "good_when_told") as (one, other):
        one.prepare()
        arn = one.create(training())
        in_flight(other, arn)
        client = other.client("sagemaker")
        assert [job["JobArn"] for job in client.list_jobs(JobCategory="AgentRFT")["JobSummaries"]] == [arn]
        assert client.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "b"}])["Tags"] == one.describe()["Tags"]
        for refused in (lambda: other.create(training()), lambda: client.delete_job(**NAMED)):
            with pytest.raises(client.exceptions.ResourceInUse):
                refused()
        client.stop_job(**NAMED)
        assert other.describe()["JobStatus"] in {"Stopping", "Stopped"}
        job = other.ended()
        assert (job["JobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
        assert "Restarting" not in history(job)
        assert one.describe() == job
        client.delete_job(**NAMED)
        with pytest.raises(one.client("sagemaker").exceptions.ResourceNotFound):
            one.describe()
        agents.GO.set()
        assert other.create(training()) == arn
        assert one.ended()["JobStatus"] == "Completed"


def test_a_name_is_given_once_and_one_job_of_a_category_is_under_way_at_both_together(
    postgresql_database: DatabaseURL,
) -> None:
    document = training()
    document["TrainingConfig"]["HyperParameters"] = {"global_batch_size": "8"}
    with two(postgresql_database, "never_answers", limits="aws") as both:

        def create(number: int) -> str:
            try:
                both[number % 2].create(document, f"job-{number // 4}")
            except ClientError as error:
                return str(error.response["Error"]["Code"])
            return "created"

        with ThreadPoolExecutor(8) as pool:
            outcomes = sorted(pool.map(create, range(8)))
        assert outcomes.count("created") == 1
        assert set(outcomes) <= {"created", "ResourceInUse", "ResourceLimitExceeded"}
        agents.GO.set()


def test_a_server_that_stops_hands_its_jobs_over(postgresql_database: DatabaseURL) -> None:
    with aws_with("good", database=postgresql_database.conninfo) as other:
        with aws_with("good_when_told", database=postgresql_database.conninfo) as one:
            one.prepare()
            arn = one.create(training())
            in_flight(one, arn)
            # What moto holds goes with the first server of this process that ends.
        other.prepare()
        assert "Restarting" in history(check_completed(other, arn))


@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_a_job_does_not_notice_that_postgresql_restarts(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL, how: Stop
) -> None:
    with two(postgresql_database, "good_when_told") as (one, other):
        one.prepare()
        arn = one.create(training())
        in_flight(one, arn)
        postgresql.restart(how)
        agents.GO.set()
        assert "Restarting" not in history(check_completed(other, arn))


def test_a_job_does_not_notice_that_its_connections_are_ended(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL
) -> None:
    mine = "datname = %s AND pid <> pg_backend_pid()"
    with two(postgresql_database, "good_when_told") as (one, other):
        one.prepare()
        arn = one.create(training())
        in_flight(one, arn)
        name = postgresql_database.conninfo.rpartition("/")[2]
        postgresql.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {mine}", name)
        agents.GO.set()
        assert "Restarting" not in history(check_completed(other, arn))


def test_a_job_whose_server_is_cut_off_is_another_s_and_the_first_leaves_it_alone(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with postgresql_proxy(postgresql.port) as proxy, ExitStack() as stack:
        away = proxy.url(postgresql_database).conninfo
        one = stack.enter_context(aws_with("good_when_told", database=away))
        one.prepare()
        arn = one.create(training())
        in_flight(one, arn)
        other = stack.enter_context(aws_with("good_when_told", database=postgresql_database.conninfo))
        proxy.refuse_connections()  # for as long as it takes, in this test
        proxy.cut_all()
        other.until(lambda job: "Restarting" in history(job))
        proxy.accept_connections()  # both are well when the agents go on, those of the first too
        eventually(lambda: any("is back" in line for line in caplog.messages), "the first to be back")
        agents.GO.set()
        job = check_completed(other, arn)
        assert history(job).count("Restarting") == 1
        assert one.describe() == job
        one.create(training(), "k")
        assert one.ended("k")["JobStatus"] == "Completed"


@pytest.fixture
def home() -> Iterator[AWS]:
    """Where S3, logs and model packages are, whichever server does a job."""
    with running_server(Settings(port=0, durability="memory")) as server:
        yield AWS(server)


@contextmanager
def process(url: DatabaseURL, home: AWS, folder: Path) -> Iterator[tuple[AWS, Serving]]:
    """A server in a process of its own, whose agents go on when there is the file `go`."""
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    agent = "python:tests.jobs.agents:good_when_there_is_the_file"
    with serving(
        url, "scripted", log=folder / "server.log", options=["--agent", agent],
        environment=keys | {"AWS_ENDPOINT_URL": home.server.url, "JOBS_TEST_FILE": str(folder / "go")},
    ) as it:  # fmt: skip
        yield AWS(it), it


def as_if_time_had_passed(postgresql: PostgreSQL, url: DatabaseURL) -> None:
    """Nobody was heard of for long enough; who is there is heard of at once."""
    database = url.conninfo.rpartition("/")[2]
    postgresql.execute("UPDATE runners SET seen_at = seen_at - %s", (LEASE + 1) * 1_000_000, database=database)


@pytest.mark.parametrize("who", ["another", "the next"])
def test_the_job_of_a_server_that_is_killed_is_gone_on_with(
    who: str, postgresql_database: DatabaseURL, postgresql: PostgreSQL, home: AWS, tmp_path: Path
) -> None:
    home.prepare()
    with ExitStack() as stack:
        if who == "another":
            heir, _ = stack.enter_context(process(postgresql_database, home, tmp_path))
        with process(postgresql_database, home, tmp_path) as (one, its_process):
            arn = one.create(training())
            in_flight(one, arn)
            its_process.kill()
        as_if_time_had_passed(postgresql, postgresql_database)
        if who == "the next":
            heir, _ = stack.enter_context(process(postgresql_database, home, tmp_path))
        assert heir.describe()["JobStatus"] == "InProgress"
        (tmp_path / "go").touch()
        assert "Restarting" in history(check_completed(heir, arn))
        assert "Job completed" in home.log()


def test_a_server_that_slept_while_another_went_on_with_its_job_leaves_it_alone(
    postgresql_database: DatabaseURL, postgresql: PostgreSQL, home: AWS, tmp_path: Path
) -> None:
    home.prepare()
    with (
        process(postgresql_database, home, tmp_path) as (one, its_process),
        process(postgresql_database, home, tmp_path) as (other, _),
    ):
        arn = one.create(training())
        in_flight(one, arn)
        its_process.process.send_signal(signal.SIGSTOP)
        as_if_time_had_passed(postgresql, postgresql_database)
        other.until(lambda job: "Restarting" in history(job))
        (tmp_path / "go").touch()
        its_process.process.send_signal(signal.SIGCONT)  # with agents that go on, too
        job = check_completed(other, arn)
        assert history(job).count("Restarting") == 1
        eventually(lambda: "is left off" in its_process.log.read_text(), "it to notice")
        assert one.describe() == job
        assert home.log().count("Job completed") == 1


def test_a_job_that_the_next_server_cannot_go_on_with_fails_and_says_why(postgresql_database: DatabaseURL) -> None:
    with aws_with("good_when_told", database=postgresql_database.conninfo) as one:
        one.prepare()
        in_flight(one, one.create(training()))
    with aws_with("good", database=postgresql_database.conninfo) as other:  # what moto held is gone
        job = other.ended()
        assert job["JobStatus"] == "Failed"
        assert "NoSuchBucket" in job["FailureReason"]


def test_an_evaluation_that_was_told_to_stop_when_its_server_was_gone_is_stopped(
    postgresql_database: DatabaseURL,
) -> None:
    named: Any = {"name": "e", "category": "AgentRFTEvaluation"}
    with aws_with("good_when_told", database=postgresql_database.conninfo) as one:
        one.prepare()
        arn = one.create(evaluation(), **named)
        one.until(lambda job: job["SecondaryStatus"] == "Evaluating" and len(trajectories(one, arn)) == 10, **named)
        one.client("sagemaker").stop_job(JobName="e", JobCategory="AgentRFTEvaluation")
    with aws_with("good", database=postgresql_database.conninfo) as other:
        assert other.ended(**named)["JobStatus"] == "Stopped"


@pytest.mark.parametrize("way", ["from a file", "into a file"])
def test_a_job_goes_on_in_the_database_that_it_was_copied_to(
    way: str, postgresql_database: DatabaseURL, tmp_path: Path
) -> None:
    source, target = ("file", "postgresql") if way == "from a file" else ("postgresql", "file")
    where: dict[str, Address] = {"file": tmp_path / "trajectories.db", "postgresql": postgresql_database}
    with aws_with("good_in_the_first_step", database=spelled(where[source])) as one:
        one.prepare()
        arn = one.create(training())
        one.until(lambda _: len(trajectories(one, arn)) == ROLLOUTS)
    counts = copy_database(where[source], where[target], lambda *_: None)
    assert (counts["jobs"], counts["job_rollouts"]) == (1, ROLLOUTS)
    with aws_with("good", database=spelled(where[target])) as other:
        other.prepare()
        assert "Restarting" in history(check_completed(other, arn))
