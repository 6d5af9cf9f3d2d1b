"""Settings of the fixture: by ini file, by an overridden fixture, by marker; and what is refused."""

from __future__ import annotations

import sqlite3

import pytest

from emulator.pytest_plugin import SETTINGS
from emulator.settings_sources import setting_fields
from emulator.testing import JobRuntime, running_server
from tests.plugin.test_fixture import AGENT, outcomes, run

pytest_plugins = ["pytester"]


def test_the_ini_file_can_give_every_setting_but_where_to_listen_and_how_to_log() -> None:
    others = {"host", "port", "insecure_remote", "log_level", "log_format"}
    assert set(SETTINGS) == {each.name for each in setting_fields()} - others


def test_the_marker_goes_before_the_fixture_and_the_fixture_before_the_ini_file(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\njob_runtime_region = eu-north-1\njob_runtime_max_in_flight = 3\n")
    pytester.makepyfile(
        """
import pytest

@pytest.fixture(scope="session")
def job_runtime_settings():
    return {"max_in_flight": 5, "trajectories": "dispatched"}

def test_fixture(job_runtime):
    settings = job_runtime.settings
    assert (settings.region, settings.max_in_flight, settings.trajectories) == ("eu-north-1", 5, "dispatched")

@pytest.mark.job_runtime(max_in_flight=7)
class TestMarked:
    def test_marker(self, job_runtime):
        assert job_runtime.settings.max_in_flight == 7

    @pytest.mark.job_runtime(max_in_flight=9)
    def test_the_nearest_marker(self, job_runtime):
        assert (job_runtime.settings.max_in_flight, job_runtime.settings.trajectories) == (9, "dispatched")
"""
    )
    assert outcomes(pytester) == {"passed": 3}


def test_a_module_may_override_the_settings_in_any_scope(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_one="""
import pytest

@pytest.fixture
def job_runtime_settings(request):
    return {"region": "eu-west-1"}

def test_it(job_runtime):
    assert job_runtime.region == "eu-west-1"
""",
        test_two="""
def test_it(job_runtime):
    assert job_runtime.region == "us-west-2"
""",
    )
    assert outcomes(pytester) == {"passed": 2}


def test_tests_with_equal_settings_share_a_server_and_others_have_another(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

urls = {}

@pytest.mark.parametrize("which", [1, 2])
def test_plain(job_runtime, which):
    assert urls.setdefault("plain", job_runtime.url) == job_runtime.url

@pytest.mark.job_runtime(trajectories="dispatched")
@pytest.mark.parametrize("which", [1, 2])
def test_dispatched(job_runtime, which):
    assert urls.setdefault("dispatched", job_runtime.url) == job_runtime.url != urls["plain"]
"""
    )
    assert outcomes(pytester, "-p", "no:randomly") == {"passed": 4}


def test_a_registered_rollout_is_one_that_the_strictest_server_knows(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
pytestmark = pytest.mark.job_runtime(trajectories="dispatched", jobs="strict")

def test_agent(job_runtime):
    rollout = job_runtime.new_rollout()
    agent(rollout.metadata)
    client = job_runtime.client
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.sample(JobArn=rollout.job_arn, TrajectoryId="another", Body=b"{}")
"""
    )
    assert outcomes(pytester) == {"passed": 1}


def test_clients_sign_as_a_strict_server_wants_it(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        AGENT
        + """
@pytest.mark.job_runtime(auth="strict", key_pairs=["AKIDEXAMPLE:secret"])
def test_agent(job_runtime):
    agent(job_runtime.new_rollout().metadata)
    body = b'{"messages": [{"role": "user", "content": "hello"}]}'
    job_runtime.client.sample(**job_runtime.new_rollout().keywords, Body=body)
"""
    )
    assert outcomes(pytester) == {"passed": 1}


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("colour='red'", "there is no setting 'colour'"),
        ("trajectories='red'", "'red' is not one of implicit, dispatched"),
        ("'dispatched'", "takes settings by name, not 'dispatched'"),
        ("auth='strict'", "needs at least one --key-pair"),
        ("database='missing/file.db'", "job_runtime cannot start:"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_a_line(pytester: pytest.Pytester, marker: str, message: str) -> None:
    pytester.makepyfile(
        f"""
import pytest

@pytest.mark.job_runtime({marker})
def test_it(job_runtime):
    pass
"""
    )
    result = run(pytester)
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines([f"*{message.replace('[', '[[]')}*"])
    result.stdout.no_fnmatch_line("*During handling*")


def test_whole_settings_beside_others_are_a_conflict(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
import pytest

from emulator.settings import Settings

@pytest.fixture(scope="session")
def job_runtime_settings():
    return Settings(port=0, durability="memory", region="eu-west-1")

def test_alone(job_runtime):
    assert job_runtime.region == "eu-west-1"

@pytest.mark.job_runtime(jobs="strict")
def test_conflict(job_runtime):
    pass
"""
    )
    result = run(pytester)
    assert result.parseoutcomes() == {"passed": 1, "errors": 1}
    result.stdout.fnmatch_lines(["*returns whole Settings, beside which nothing else can be set*the marker (jobs)*"])


def test_a_database_that_holds_something_is_not_cleared(pytester: pytest.Pytester) -> None:
    file = pytester.path / "precious.db"
    with JobRuntime(database=str(file)) as runtime:
        runtime.new_rollout()
    pytester.makepyfile(
        f"""
import pytest

@pytest.mark.job_runtime(database={str(file)!r})
def test_it(job_runtime):
    pass
"""
    )
    result = run(pytester)
    assert result.parseoutcomes() == {"errors": 1}
    result.stdout.fnmatch_lines(["*precious.db holds trajectories, which tests would clear*"])
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT count(*) FROM trajectories").fetchone() == (1,)
    connection.close()


def test_a_server_that_cannot_start_leaves_no_thread_behind() -> None:
    with running_server() as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(Exception, match="cannot listen"):
            JobRuntime(port=port)


def test_files_that_the_ini_file_names_lie_beside_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\njob_runtime_model = scripted:rules.yaml\njob_runtime_faults = plan.yaml\n")
    pytester.path.joinpath("rules.yaml").write_text("rules: [{reply: from the file}]")
    pytester.path.joinpath("plan.yaml").write_text("[{kind: quota, operation: UpdateReward}]")
    below = pytester.mkdir("below")
    below.joinpath("test_below.py").write_text(
        AGENT
        + """
def test_agent(job_runtime):
    with pytest.raises(Exception, match="ServiceQuotaExceededException"):
        agent(job_runtime.new_rollout().metadata)
    assert job_runtime.trajectory().turns[0].text == "from the file"
"""
    )
    monkeypatch.chdir(below)
    assert run(pytester).parseoutcomes() == {"passed": 1}
