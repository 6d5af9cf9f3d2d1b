"""`job-runtime-local serve`, as a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from emulator.address import DatabaseURL
from tests.postgresql import PASSWORD

CLEAN = {name: value for name, value in os.environ.items() if not name.startswith("JOB_RUNTIME_LOCAL_")}


@contextmanager
def serving(*options: str, cwd: Path) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A server; the process, its URL and what it printed."""
    command = [sys.executable, "-m", "emulator", "serve", "--port", "0", *options]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd, env=CLEAN
    ) as process:
        assert process.stdout is not None
        printed = ""
        while "AWS_SECRET_ACCESS_KEY" not in printed:
            line = process.stdout.readline()
            assert line, process.communicate()
            printed += line
        url = re.search(r"listening on (\S+)", printed)
        assert url is not None
        try:
            yield process, url[1], printed
        finally:
            process.kill()


def refused(*options: str, cwd: Path) -> str:
    """What a server says that will not start; checks that it is one line and the exit status 2."""
    command = [sys.executable, "-m", "emulator", "serve", "--port", "0", *options]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd, env=CLEAN, timeout=30)
    assert done.returncode == 2, done
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("job-runtime-local: ")
    return line


def test_it_prints_what_to_export(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as (_, url, printed):
        for line in (
            f"export AWS_ENDPOINT_URL_SAGEMAKERJOBRUNTIME={url}",
            f"export RFT_RUNTIME_ENDPOINT={url}",
            f"export OPENAI_BASE_URL={url}/v1",
            "export AWS_REGION=us-west-2 AWS_DEFAULT_REGION=us-west-2",
            "export AWS_ACCESS_KEY_ID=local AWS_SECRET_ACCESS_KEY=local",
        ):
            assert line in printed
        with urlopen(f"{url}/_emulator/health") as answer:
            assert answer.status == 200
        assert (tmp_path / "job-runtime-local.db").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_well(number: signal.Signals, tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as (process, _, _):
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert errors == ""
        # What was committed stands in the file itself now, not in a log beside it.
        assert not (tmp_path / "job-runtime-local.db-wal").exists()


def test_a_port_in_use_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"cannot listen on 127.0.0.1:{port}" in refused("--port", port, cwd=tmp_path)


def test_a_bad_setting_is_refused(tmp_path: Path) -> None:
    assert "--durability: 'most' is not one of" in refused("--durability", "most", cwd=tmp_path)
    assert "model: 'tarot' is none of" in refused("--model", "tarot", cwd=tmp_path)
    assert "model: " in refused("--model", "http://", cwd=tmp_path)


def test_a_host_that_is_none_is_refused(tmp_path: Path) -> None:
    assert "--host names" in refused("--host", "a..b", "--insecure-remote", cwd=tmp_path)


def test_a_key_pair_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    line = refused("--auth", "strict", "--key-pair", "wJalrXUtnFEMI", cwd=tmp_path)
    assert "key_pairs" in line
    assert "wJalr" not in line


def test_a_database_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("these are my notes, and no database\n" * 100)
    line = refused("--database", "notes.db", cwd=tmp_path)
    assert "notes.db" in line
    assert "--database" in line


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "No such file or directory" in refused("--database", "nowhere/x.db", cwd=tmp_path)


def test_a_second_server_on_the_same_file_is_refused_and_told_what_takes_several(tmp_path: Path) -> None:
    with serving(cwd=tmp_path) as (process, _, _):
        line = refused(cwd=tmp_path)
        assert "another server" in line
        assert str(process.pid) in line
        assert "--database postgresql://" in line


def test_a_postgresql_server_that_is_not_there_is_refused_without_showing_the_password(tmp_path: Path) -> None:
    line = refused("--database", "postgresql://u:s3cret@127.0.0.1:1/n", cwd=tmp_path)
    assert "postgresql://u:***@127.0.0.1:1/n" in line
    assert "Connection refused" in line
    assert "s3cret" not in line


def test_a_postgresql_database_is_shown_without_its_password(postgresql_database: DatabaseURL, tmp_path: Path) -> None:
    with serving("--database", postgresql_database.conninfo, "--log-level", "debug", cwd=tmp_path) as (
        process,
        url,
        banner,
    ):
        with urlopen(f"{url}/_emulator/info") as answer:
            info = answer.read().decode()
        process.send_signal(signal.SIGTERM)
        printed, errors = process.communicate(timeout=20)
    assert process.returncode == 0, errors
    assert json.loads(info)["database"]["url"] == str(postgresql_database)
    assert f"database      {postgresql_database} (full)" in banner
    for secret in (PASSWORD, quote(PASSWORD, safe="")):
        assert secret not in banner + info + printed + errors


def test_in_memory_and_postgresql_exclude_each_other(tmp_path: Path) -> None:
    assert "leave out one" in refused("--database", "postgresql://h/n", "--durability", "memory", cwd=tmp_path)


def test_another_address_is_refused_unless_it_is_meant(tmp_path: Path) -> None:
    assert "--insecure-remote" in refused("--host", "0.0.0.0", cwd=tmp_path)


def test_vllm_that_is_not_there_is_refused_with_what_to_do(tmp_path: Path) -> None:
    line = refused("--model", "vllm:some-model", "--vllm-python", sys.executable, cwd=tmp_path)
    assert "pip install vllm" in line


def test_in_memory_nothing_is_left_on_disk(tmp_path: Path) -> None:
    with serving("--durability", "memory", cwd=tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_log_lines_can_be_json(tmp_path: Path) -> None:
    with serving("--log-format", "json", "--log-level", "debug", cwd=tmp_path) as (process, url, _):
        with urlopen(f"{url}/v1/models") as answer:
            answer.read()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert any('"message": "GET /v1/models 200' in line for line in errors.splitlines())
