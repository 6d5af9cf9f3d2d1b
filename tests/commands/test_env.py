"""`job-runtime-local env`: what it prints is what clients read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from emulator.settings import Settings
from emulator.testing import running_server
from tests.clients.environments import client_variables
from tests.commands.rolling import PATIENCE, ROOT

ENVIRONMENT = client_variables() | {"PYTHONPATH": str(ROOT)}


def call(folder: Path, *options: str, **environment: str) -> tuple[int, str, str]:
    """Its exit status, output and errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "emulator", "env", *options],
        cwd=folder, env=ENVIRONMENT | environment, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def env(folder: Path, *options: str, **environment: str) -> str:
    """What it prints."""
    status, printed, errors = call(folder, *options, **environment)
    assert (status, errors) == (0, "")
    return printed


def test_every_way_of_writing_says_the_same(tmp_path: Path) -> None:
    document = json.loads(env(tmp_path, "--format", "json"))
    dotenv = dict(line.split("=", 1) for line in env(tmp_path, "--format", "dotenv").splitlines())
    assert dotenv == document
    shell = subprocess.run(
        ["sh", "-c", f"{env(tmp_path)}\nenv"], env={"AWS_PROFILE": "mine"}, capture_output=True, text=True, check=True
    )
    exported = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    assert document.items() <= exported.items()
    assert "AWS_PROFILE" not in exported


def test_it_leads_to_the_port_of_the_settings(tmp_path: Path) -> None:
    document = json.loads(env(tmp_path, "--format", "json", JOB_RUNTIME_LOCAL_PORT="1", JOB_RUNTIME_LOCAL_REGION="x"))
    assert document["AWS_ENDPOINT_URL"] == document["RFT_RUNTIME_ENDPOINT"] == "http://127.0.0.1:1"
    assert document["SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT"] == "http://127.0.0.1:1/_emulator/mlflow"
    assert document["AWS_REGION"] == document["AWS_DEFAULT_REGION"] == "x"


def test_of_a_server_that_runs_it_knows_region_and_account(tmp_path: Path) -> None:
    file = tmp_path / "a folder" / "sagemaker.yaml"
    file.parent.mkdir()
    with running_server(Settings(port=0, durability="memory", region="eu-west-1", account="999999999999")) as server:
        printed = env(tmp_path, "--endpoint", server.url, "--format", "json", "--write", str(file))
    document = json.loads(printed)
    assert (document["AWS_ENDPOINT_URL"], document["AWS_REGION"]) == (server.url, "eu-west-1")
    assert document["SAGEMAKER_USER_CONFIG_OVERRIDE"] == str(file)
    sagemaker = yaml.safe_load(file.read_text())["SageMaker"]
    assert sagemaker["PythonSDK"]["Modules"] == {
        "TelemetryOptOut": True,
        "Session": {"DefaultS3Bucket": "sagemaker-eu-west-1-999999999999"},
    }
    assert sagemaker["TrainingJob"]["RoleArn"].startswith("arn:aws:iam::999999999999:role/")


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://192.0.2.1:1", "http://127.0.0.1:x", "nonsense"])
def test_an_endpoint_that_is_none_is_refused(url: str, tmp_path: Path) -> None:
    status, printed, error = call(tmp_path, "--endpoint", url)
    assert (status, printed) == (2, "")
    assert "is not http://127.0.0.1:PORT" in error


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_folder_of_any_name_is_named_in_every_shell(shell: str, tmp_path: Path) -> None:
    folder = tmp_path / 'a $HOME `b` "c" \\ it\'s'
    folder.mkdir()
    command = (
        f'eval "$({sys.executable} -m emulator env --write "an sdk.yaml")" && echo "$SAGEMAKER_USER_CONFIG_OVERRIDE"'
    )
    done = subprocess.run(
        [shell, "-euc", command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == (f"{folder}/an sdk.yaml\n", "")


def test_a_dotenv_file_is_a_shells_too(tmp_path: Path) -> None:
    folder = tmp_path / "a $HOME b"
    folder.mkdir()
    (folder / ".env").write_text(env(folder, "--write", "sdk.yaml", "--format", "dotenv"))
    command = 'set -a; . ./.env; echo "$SAGEMAKER_USER_CONFIG_OVERRIDE"'
    done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout == f"{folder}/sdk.yaml\n"


def test_a_configuration_that_leads_past_the_emulator_does_not(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[default]\nignore_configured_endpoint_urls = true\nuse_fips_endpoint = true\nuse_dualstack_endpoint = true\n"
    )
    variables = json.loads(env(tmp_path, "--format", "json", AWS_USE_FIPS_ENDPOINT="true"))
    source = "import boto3; print(boto3.client('s3').meta.endpoint_url, boto3.client('sts').meta.endpoint_url)"
    done = subprocess.run(
        [sys.executable, "-c", source], env=ENVIRONMENT | variables | {"AWS_CONFIG_FILE": str(tmp_path / "config")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.split() == [variables["AWS_ENDPOINT_URL"]] * 2
