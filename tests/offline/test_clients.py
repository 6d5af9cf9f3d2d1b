"""What clients find under `job-runtime-local run`, whatever their user's environment says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.clients.environments import program
from tests.offline.programs import run

#: What anybody may ask, at a host that the SDK has hard-coded.
MODELS = "https://job-runtime.sagemaker.us-west-2.api.aws/v1/models"

#: Where a user's environment may lead to, and what it may hold.
HOSTILE = {
    "AWS_PROFILE": "prod",
    "AWS_SESSION_TOKEN": "secret",
    "AWS_CREDENTIAL_EXPIRATION": "2020-01-01T00:00:00Z",
    "AWS_BEARER_TOKEN_BEDROCK": "secret",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_CA_BUNDLE": "/nowhere.pem",
    "SAGEMAKER_USER_CONFIG_OVERRIDE": "/nowhere.yaml",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
    "NO_PROXY": "*",
}


def test_an_object_goes_and_comes_by_https_with_its_bucket_in_the_hosts_name(tmp_path: Path) -> None:
    done = run(
        tmp_path,
        """
        import boto3, os

        del os.environ["AWS_ENDPOINT_URL"]
        s3 = boto3.client("s3")
        asked = []
        s3.meta.events.register("before-send.s3", lambda request, **_: asked.append(request.url.split("?")[0]))
        s3.create_bucket(Bucket="a-bucket", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
        s3.put_object(Bucket="a-bucket", Key="a/ü", Body=bytes(300_000))
        print(s3.get_object(Bucket="a-bucket", Key="a/ü")["Body"].read() == bytes(300_000))
        print([each["Key"] for each in s3.list_objects_v2(Bucket="a-bucket")["Contents"]])
        print(asked[1])
        """,
    )
    url = "https://a-bucket.s3.us-west-2.amazonaws.com/a/%C3%BC"
    assert done.stdout.splitlines() == ["True", "['a/ü']", url], done.stderr


def test_profiles_are_the_emulators_whatever_they_hold(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        "[default]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = Admin\nendpoint_url = http://127.0.0.1:9\n"
        "ignore_configured_endpoint_urls = true\nuse_fips_endpoint = true\nca_bundle = /nowhere.pem\n"
        f"[profile prod]\nregion = eu-north-1\ncredential_process = touch {tmp_path}/leaked\n"
        "[profile 'of two words']\nrole_arn = arn:aws:iam::1:role/r\nsource_profile = prod\n"
        "[sso-session corp]\nsso_region = eu-north-1\nsso_start_url = https://corp.awsapps.com/start\n"
    )
    (tmp_path / "credentials").write_text("[staging]\naws_access_key_id = AKIA\naws_secret_access_key = secret\n")
    given = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}
    done = run(
        tmp_path,
        """
        import boto3

        for name in (None, "default", "prod", "staging", "of two words"):
            session = boto3.Session(profile_name=name)
            found = session.client("sts").get_caller_identity()
            print(session.region_name, session.get_credentials().access_key, found["Account"])
        """,
        environment=HOSTILE | given,
    )
    assert done.stdout.splitlines() == ["us-west-2 local 123456789012"] * 5, done.stderr
    assert not (tmp_path / "leaked").exists()


def test_a_file_of_profiles_that_cannot_be_read_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b"no section = \xff")
    given = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path)}
    source = "import boto3; print(boto3.Session(profile_name='default').get_credentials().access_key)"
    assert run(tmp_path, source, environment=given).stdout == "local\n"


@pytest.mark.parametrize(
    "ask",
    [
        "import requests; print(requests.get('{url}').json()['object'])",
        "import httpx2; print(httpx2.get('{url}').json()['object'])",
        "import json, urllib.request as u; print(json.load(u.urlopen('{url}'))['object'])",
        "import boto3; print(boto3.client('sts').get_caller_identity() and 'list')",
        (
            "import aiohttp, asyncio\n"
            "async def main():\n"
            "    async with aiohttp.ClientSession(trust_env=True) as session, session.get('{url}') as answer:\n"
            "        print((await answer.json())['object'])\n"
            "asyncio.run(main())"
        ),
    ],
    ids=["requests", "httpx2", "urllib", "boto3", "aiohttp"],
)
def test_clients_of_python_reach_the_emulator(ask: str, tmp_path: Path) -> None:
    done = run(tmp_path, ask.replace("{url}", MODELS), environment=HOSTILE)
    assert (done.stdout, done.stderr) == ("list\n", "")


def test_the_aws_cli_reaches_the_emulator(tmp_path: Path) -> None:
    aws = program("awscli", "aws")
    hard_coded = "https://sts.us-west-2.amazonaws.com"
    source = f"""
        import subprocess

        for command in (
            ["{aws}", "sts", "get-caller-identity"],
            ["{aws}", "sts", "get-caller-identity", "--endpoint-url", "{hard_coded}", "--profile", "default"],
        ):
            print(subprocess.run(command, capture_output=True, text=True, check=True).stdout.replace("\\n", ""))
    """
    done = run(tmp_path, source, environment=HOSTILE, patience=100)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["Account"] for line in done.stdout.splitlines()] == ["123456789012"] * 2


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_curl_reaches_the_emulator(tmp_path: Path) -> None:
    source = f"import subprocess; subprocess.run(['curl', '-sS', '{MODELS}'], check=True)"
    done = run(tmp_path, source, environment=HOSTILE)
    assert (json.loads(done.stdout or "null")["object"], done.stderr) == ("list", "")


def test_a_run_in_a_run_has_the_emulator_of_the_first(tmp_path: Path) -> None:
    source = """
        import os, subprocess, sys

        url = os.environ["AWS_ENDPOINT_URL"]
        inner = "import os, boto3; boto3.client('sts').get_caller_identity(); print(os.environ['AWS_ENDPOINT_URL'])"
        command = [sys.executable, "-m", "emulator", "run", "--", sys.executable, "-c", inner]
        print(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout == url + "\\n")
    """
    done = run(tmp_path, source)
    assert done.stdout == "True\n", done.stderr
    assert done.stderr.startswith("job-runtime-local: using the emulator at http://127.0.0.1:")
