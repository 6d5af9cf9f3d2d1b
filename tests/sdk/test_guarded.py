"""The guard of these tests, which stands where no network namespace can be made, can fail."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sdk.guarded import guarded, left
from tests.sdk.loopback import NAMESPACE, enclosed, place


@pytest.mark.parametrize(
    ("source", "host"),
    [
        ("import socket; socket.getaddrinfo('sts.us-west-2.amazonaws.com', 443)", "sts.us-west-2.amazonaws.com"),
        ("import socket; socket.gethostbyname('example.com')", "example.com"),
        ("import socket; socket.create_connection(('192.0.2.1', 443), 1)", "192.0.2.1"),
        ("import boto3; boto3.client('sts').get_caller_identity()", "sts.us-west-2.amazonaws.com"),
    ],
    ids=["look-up", "gethostbyname", "connection", "boto3"],
)
def test_what_is_not_this_machine_is_refused_and_noted(source: str, host: str, tmp_path: Path) -> None:
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-west-2"}
    child = "import subprocess, sys; sys.exit(subprocess.run([sys.executable, '-c', sys.argv[1]]).returncode)"
    environment = os.environ | guarded(tmp_path) | keys | {"AWS_MAX_ATTEMPTS": "1", "AWS_CONFIG_FILE": os.devnull}
    done = subprocess.run(
        [sys.executable, "-c", child, source], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert set(left(tmp_path)) == {host}


def test_this_machine_is_reached(tmp_path: Path) -> None:
    source = "import socket; s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname())"
    command = enclosed([sys.executable, "-c", source])
    subprocess.run(command, env=os.environ | guarded(tmp_path), check=True)
    assert left(tmp_path) == []


@pytest.mark.skipif(place() != NAMESPACE, reason="no network namespace can be made here; the guard stands alone")
def test_in_a_namespace_there_is_no_way_out() -> None:
    source = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('192.0.2.1', 53))"
    done = subprocess.run(enclosed([sys.executable, "-c", source]), capture_output=True, text=True, check=False)
    assert "Network is unreachable" in done.stderr
