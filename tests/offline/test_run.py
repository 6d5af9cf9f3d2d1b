"""`job-runtime-local run -- COMMAND`: programs as users have them, in processes of their own."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import textwrap
from pathlib import Path

import psutil
import pytest

from emulator.offline.environment import BUNDLES
from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.environments import program
from tests.offline.programs import ENVIRONMENT, run, running
from tests.stored import PATIENCE

MEMORY = ("--durability", "memory")

#: AWS's hosts as the SDK has them hard-coded, and as boto3 makes them up.
AWS = """
    import boto3, json, os, requests

    found = [boto3.client("sts").get_caller_identity()["Account"]]
    del os.environ["AWS_ENDPOINT_URL"]
    found.append(boto3.client("sts").get_caller_identity()["Account"])
    hard_coded = "https://sts.us-west-2.amazonaws.com"
    found.append(boto3.client("sts", endpoint_url=hard_coded).get_caller_identity()["Account"])
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="a-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    found.append(s3.list_objects_v2(Bucket="a-bucket")["Name"])
    job = "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/j"
    headers = {"X-Amzn-SageMaker-Job-Arn": job, "X-Amzn-SageMaker-Trajectory-Id": "t"}
    url = "https://job-runtime.sagemaker.us-west-2.api.aws/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    found.append(requests.post(url, json=body, headers=headers).json()["object"])
    found.append(requests.post(url.replace("https", "http"), json=body, headers=headers).json()["object"])
    print(json.dumps(found))
"""
#: Creates a job.
A_JOB = """
        from tests.jobs.conftest import ROLE, training

        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        rows = "".join(json.dumps({"prompt": f"{n}?"}) + "\\n" for n in range(5))
        s3.put_object(Bucket="bucket", Key="train.jsonl", Body=rows.encode())
        boto3.client("sagemaker").create_model_package_group(ModelPackageGroupName="out")
        boto3.client("sagemaker").create_job(
            JobName="a-job", RoleArn=ROLE, JobCategory="AgentRFT", JobConfigSchemaVersion="1.0.0",
            JobConfigDocument=json.dumps(training()),
        )
"""
FOUND = ["123456789012"] * 3 + ["a-bucket", "chat.completion", "chat.completion"]


def test_aws_is_the_emulator_whatever_name_it_is_asked_by(tmp_path: Path) -> None:
    done = run(tmp_path, AWS)
    assert (done.returncode, json.loads(done.stdout or "null"), done.stderr) == (0, FOUND, "")


def _lonely() -> tuple[str, ...]:
    """What runs a command where there is no network but loopback; nothing, where no such place can be made."""
    for options in (["-n"], ["-rn"]):
        command = ["unshare", *options, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
        if (
            shutil.which("unshare")
            and subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0
        ):
            return tuple(command)
    return ()


def test_it_does_so_where_there_is_no_network_and_looks_nothing_up(tmp_path: Path) -> None:
    # Beside the namespace, or in its place: a look-up of any other host ends the program.
    guard = tmp_path / "sitecustomize.py"
    guard.write_text(
        "import socket\n"
        "look_up = socket.getaddrinfo\n"
        "def guarded(host, *more, **named):\n"
        "    name = host.decode() if isinstance(host, bytes) else host\n"
        "    if name not in {'127.0.0.1', 'localhost', '::1'}:\n"
        "        raise SystemExit(f'{name} was looked up')\n"
        "    return look_up(host, *more, **named)\n"
        "socket.getaddrinfo = guarded\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    done = run(tmp_path, AWS, before=_lonely(), environment=environment)
    assert (done.returncode, json.loads(done.stdout or "null"), done.stderr) == (0, FOUND, "")


def test_every_other_host_is_refused_and_named(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import requests

        for url in ("https://example.com", "https://example.com", "https://amazonaws.com.example.com"):
            try:
                requests.get(url)
            except requests.exceptions.ProxyError as error:
                print("403" in str(error))
        for url in ("http://example.com/x", "http://169.254.169.254/latest/meta-data/"):
            answer = requests.get(url)
            print(answer.status_code, answer.text.split(" ")[0])
        """,
    )
    assert done.stdout.splitlines() == ["True"] * 3 + ["403 example.com", "403 169.254.169.254"]
    refused = [line.split(":")[1].strip() for line in done.stderr.splitlines()]
    assert refused == ["refused example.com", "refused amazonaws.com.example.com", "refused 169.254.169.254"]


def test_the_sdks_hard_coded_identity_is_answered(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        from sagemaker.core.helper.session_helper import Session

        session = Session()
        print(session.account_id(), session.get_caller_identity_arn().split(":")[4], session.default_bucket())
        """,
        python=str(program("sagemaker", "python")),
        patience=110,  # its imports alone take many seconds on a busy machine
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["123456789012", "123456789012", "sagemaker-us-west-2-123456789012"]
    assert "refused" not in done.stderr


@pytest.mark.parametrize("status", [0, 1, 42])
def test_the_exit_status_is_the_programs(status: int, tmp_path: Path) -> None:
    assert run(tmp_path, f"raise SystemExit({status})").returncode == status


def test_a_program_that_a_signal_ended_counts_as_it_does_in_a_shell(tmp_path: Path) -> None:
    assert run(tmp_path, "import os; os.kill(os.getpid(), 9)").returncode == 128 + 9


def test_a_program_that_there_is_not_is_127(tmp_path: Path) -> None:
    done = run(tmp_path, "", python="./no-such-program")
    assert done.returncode == 127
    assert done.stderr == "job-runtime-local: ./no-such-program: No such file or directory\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_the_programs(number: signal.Signals, tmp_path: Path) -> None:
    source = f"""
        import signal, sys

        def end(number, frame):
            print("got", number, flush=True)
            sys.exit(17)

        signal.signal({number.value}, end)
        print("ready", flush=True)
        while True:
            signal.pause()
    """
    command = running(*MEMORY, program=source)
    with subprocess.Popen(
        command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            out, _ = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, out) == (17, f"got {number.value}\n")


def test_a_signal_that_comes_before_the_program_is_its_end(tmp_path: Path) -> None:
    # While the certificates are made: the emulator runs by then, the program does not.
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal, trustme\n"
        "make = trustme.CA.__init__\n"
        "def interrupted(self, **named):\n"
        "    make(self, **named)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "trustme.CA.__init__ = interrupted\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ENVIRONMENT['PYTHONPATH']}"}
    done = run(tmp_path, "print('ran')", environment=environment)
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGTERM, "", "")


def test_a_database_that_is_gone_at_the_end_changes_no_exit_status(tmp_path: Path) -> None:
    source = "import sqlite3; sqlite3.connect('job-runtime-local.db').executescript('DROP TABLE jobs')"
    done = run(tmp_path, f"{source}; raise SystemExit(17)", "--durability", "normal")
    assert done.returncode == 17
    (line,) = done.stderr.splitlines()
    assert line.startswith("job-runtime-local: whether a job is not over cannot be read: ")


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    source = "import os; print(os.environ['AWS_ENDPOINT_URL'], os.environ['SSL_CERT_FILE'], os.getppid(), flush=True)"
    done = run(tmp_path, source, environment={"TMPDIR": str(temporary)})
    url, bundle, server = done.stdout.split()
    assert url.startswith("http://127.0.0.1:")
    assert Path(bundle).is_relative_to(temporary)
    assert list(temporary.iterdir()) == []
    assert not psutil.pid_exists(int(server))
    assert list(tmp_path.iterdir()) == [temporary]


def test_the_program_alone_can_read_what_it_is_given(tmp_path: Path) -> None:
    done = run(tmp_path, "import os; print(oct(os.stat(os.path.dirname(os.environ['SSL_CERT_FILE'])).st_mode))")
    assert done.stdout == "0o40700\n"


def test_what_would_lead_the_program_elsewhere_is_taken_from_it(tmp_path: Path) -> None:
    given = {
        "AWS_PROFILE": "mine",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1",
        "AWS_SESSION_TOKEN": "secret",
        "A": "b",
    }
    names = [*given, "AWS_ACCESS_KEY_ID"]
    done = run(tmp_path, f"import os; print([os.environ.get(name) for name in {names}])", environment=given)
    assert done.stdout == "[None, None, None, 'b', 'local']\n"


def test_a_certificate_of_the_users_own_is_still_believed(tmp_path: Path) -> None:
    import trustme

    own = tmp_path / "own.pem"
    trustme.CA().cert_pem.write_to_path(str(own))
    source = "import os; print(open(os.environ['REQUESTS_CA_BUNDLE']).read().count('BEGIN'))"
    assert run(tmp_path, source, environment=dict.fromkeys(BUNDLES, str(own))).stdout == "2\n"


def test_an_emulator_that_runs_is_used(tmp_path: Path) -> None:
    settings = Settings(port=0, durability="memory", region="eu-west-1", account="999999999999")
    source = "import os; print(os.environ['AWS_ENDPOINT_URL'], os.environ['AWS_REGION'])"
    with running_server(settings) as server:
        port = server.url.rpartition(":")[2]
        named = run(tmp_path, source, "--endpoint", server.url)
        found = subprocess.run(
            [part for part in running(program=source) if part not in MEMORY],
            cwd=tmp_path, env=ENVIRONMENT | {"JOB_RUNTIME_LOCAL_PORT": port},
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
    assert named.stdout == found.stdout == f"{server.url} eu-west-1\n"
    assert found.stderr == f"job-runtime-local: using the emulator at {server.url}\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--endpoint", "http://127.0.0.1:9"], "--endpoint: there is no emulator at http://127.0.0.1:9"),
        (["--endpoint", "http://192.0.2.1:80"], "is not http://127.0.0.1:PORT"),
        (["--endpoint", "http://127.0.0.1:9", *MEMORY], "options of serve are for one that is started"),
        (["--model", "nonsense"], "model"),
    ],
)
def test_what_cannot_be_is_one_line_and_2(options: list[str], said: str, tmp_path: Path) -> None:
    done = run(tmp_path, "print('ran')", *options)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert said in line


def test_a_second_signal_while_a_program_hesitates_reaches_it_too(tmp_path: Path) -> None:
    source = """
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        for word in ("ready", "1", "2"):
            print(word, flush=True)
            if word != "2":
                signal.sigwait([signal.SIGTERM])
    """
    command = running(*MEMORY, program=source)
    with subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            for expected in ("ready\n", "1\n", "2\n"):
                assert process.stdout.readline() == expected
                if expected != "2\n":
                    process.terminate()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_a_job_that_is_not_over_is_named(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        f"""
        import boto3, json
        {A_JOB}
        """,
        *MEMORY, "--agent", "http://127.0.0.1:9/rollout",
    )  # fmt: skip
    assert done.returncode == 0
    assert "job-runtime-local: job a-job is not over; it is lost, as nothing is on disk" in done.stderr.splitlines()


def test_agents_in_the_emulators_own_process_find_it_and_not_aws(tmp_path: Path) -> None:
    (tmp_path / "my_agent.py").write_text(
        textwrap.dedent("""
            import boto3, json

            def roll_out(request):
                boto3.client("s3").put_object(Bucket="bucket", Key="seen", Body=b"")
                runtime = boto3.client("sagemakerjobruntime")
                names = {"JobArn": request["metadata"]["jobArn"], "TrajectoryId": request["metadata"]["rolloutId"]}
                runtime.sample(**names, Body=json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode())
                runtime.complete_rollout(**names)
                runtime.update_reward(**names, Rewards=[1.0])
        """)
    )
    # Where whoever calls the command is led; nothing is there.
    nobody = "http://127.0.0.1:9"
    elsewhere = {"AWS_ENDPOINT_URL": nobody, "AWS_ENDPOINT_URL_S3": nobody, "AWS_REGION": "", "AWS_DEFAULT_REGION": ""}
    done = run(
        tmp_path,
        f"""
        import boto3, json, time
        {A_JOB}
        names = {{"JobName": "a-job", "JobCategory": "AgentRFT"}}
        while (job := boto3.client("sagemaker").describe_job(**names))["JobStatus"] == "InProgress":
            time.sleep(0.1)
        print(job["JobStatus"], job.get("FailureReason"))
        s3.head_object(Bucket="bucket", Key="seen")
        """,
        *MEMORY, "--mlflow", "off", "--agent", "python:my_agent:roll_out",
        environment=elsewhere,
    )  # fmt: skip
    assert done.stdout == "Completed \n", done.stderr


def test_ctrl_c_on_a_terminal_reaches_the_program_once(tmp_path: Path) -> None:
    source = """
        import signal

        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        print("ready", flush=True)
        signal.sigwait([signal.SIGINT])
        print("then", flush=True)
        signal.sigwait([signal.SIGTERM])
        print("again" if signal.SIGINT in signal.sigpending() else "once", flush=True)
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        command = running(*MEMORY, program=source)
        os.execve(command[0], command, ENVIRONMENT)
    with os.fdopen(terminal, "r+b", buffering=0) as file:
        shown = b""

        def until(word: bytes) -> None:
            nonlocal shown
            while word not in shown:
                piece = file.read(1024)
                assert piece, shown
                shown += piece

        until(b"ready")
        file.write(b"\x03")
        until(b"then")
        os.kill(pid, signal.SIGTERM)
        until(b"once")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
