"""load and model_server, driven by each other."""

from __future__ import annotations

import ctypes
import http.client
import math
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.bench.native_programs import SOURCES, Load, ModelServerProcess

STREAM = '{"stream":true}'
TIMES = ["mean", "p50", "p90", "p99", "p999", "max"]


def put(server: ModelServerProcess, *paths: str) -> None:
    """Change the model server's settings."""
    for path in paths:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.request("PUT", path)
        assert connection.getresponse().status == 200
        connection.close()


def assert_is_distribution(times: dict[str, float]) -> None:
    """Whether these are quantiles of something that takes time."""
    assert list(times) == TIMES
    assert 0 < times["p50"] <= times["p90"] <= times["p99"] <= times["p999"] <= times["max"]
    assert 0 < times["mean"] <= times["max"]


def test_every_request_is_sent_and_counted(load: Load, model_server_process: ModelServerProcess) -> None:
    report = load(model_server_process.port, "--connections", 8, "--requests", 500)
    assert_is_distribution(report.pop("latency_us"))
    assert report.pop("bytes") > 500 * 1400
    assert report.pop("rate") == pytest.approx(500 / report.pop("seconds"), rel=1e-3)
    assert report == {
        "requests": 500,
        "errors": 0,
        "lost": 0,
        "connections": 8,
        "status": {"200": 500},
        "first_event_us": None,
        "event_delay_us": None,
        "events": 0,
        "event_rate": 0,
        "merged": 0,
        "behind": 0,
    }


@pytest.mark.parametrize("chunks", [1, 2, 64, 1000])
def test_every_event_of_a_stream_is_counted_and_timed(
    load: Load, model_server_process: ModelServerProcess, chunks: int
) -> None:
    put(model_server_process, f"/chunks/{chunks}")
    report = load(model_server_process.port, "--connections", 3, "--requests", 20, files=(load.file(STREAM),))
    counts = {name: report[name] for name in ("requests", "errors", "lost", "events", "status")}
    assert counts == {"requests": 20, "errors": 0, "lost": 0, "events": 20 * chunks, "status": {"200": 20}}
    assert report["event_rate"] == pytest.approx(report["events"] / report["seconds"], rel=1e-3)
    for name in ("latency_us", "first_event_us", "event_delay_us"):
        assert_is_distribution(report[name])
    assert report["first_event_us"]["max"] <= report["latency_us"]["max"]


def test_paced_events_keep_their_interval(load: Load, model_server_process: ModelServerProcess) -> None:
    put(model_server_process, "/interval/5000", "/chunks/9")
    report = load(model_server_process.port, "--connections", 30, "--requests", 60, files=(load.file(STREAM),))
    assert (report["requests"], report["events"], report["lost"]) == (60, 540, 0)
    assert report["latency_us"]["p50"] >= 8 * 5000 * 0.99


def test_an_open_loop_sends_what_is_due(load: Load, model_server_process: ModelServerProcess) -> None:
    report = load(model_server_process.port, "--connections", 20, "--rate", 400, "--seconds", 0.5)
    assert (report["requests"], report["errors"]) == (200, 0)
    assert report["seconds"] >= 0.5
    report = load(model_server_process.port, "--connections", 20, "--rate", 1000, "--requests", 150)
    assert (report["requests"], report["errors"]) == (150, 0)
    assert report["seconds"] >= 0.15


def test_a_closed_loop_ends_by_time(load: Load, model_server_process: ModelServerProcess) -> None:
    report = load(model_server_process.port, "--connections", 2, "--seconds", 0.2, "--warmup", 0.1)
    assert report["requests"] > 2
    assert report["errors"] == 0
    assert report["seconds"] >= 0.2


def test_thousands_of_connections_work(load: Load, model_server_process: ModelServerProcess) -> None:
    put(model_server_process, "/interval/1000", "/chunks/3")
    report = load(model_server_process.port, "--connections", 3000, "--requests", 6000, files=(load.file(STREAM),))
    counts = {name: report[name] for name in ("connections", "requests", "errors", "lost", "events")}
    assert counts == {"connections": 3000, "requests": 6000, "errors": 0, "lost": 0, "events": 18000}


def test_a_request_may_be_large(load: Load, model_server_process: ModelServerProcess) -> None:
    file = load.file(b"x" * 2**20)
    report = load(model_server_process.port, "--connections", 4, "--requests", 40, files=(file,))
    assert (report["requests"], report["errors"]) == (40, 0)


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ([], "HOST:PORT"),
        (["127.0.0.1"], "HOST:PORT"),
        (["127.0.0.1:0"], "HOST:PORT"),
        (["127.0.0.1:80", "127.0.0.1:81"], "one address"),
        (["localhost:80"], "127.0.0.1 or [::1]"),
        (["192.0.2.1:80"], "loopback"),
        (["128.0.0.1:80"], "loopback"),
        (["[2001:db8::1]:80"], "loopback"),
        (["127.0.0.1:80"], "--connections is needed"),
        (["127.0.0.1:80", "--connections", "0"], "from 1 to 20000"),
        (["127.0.0.1:80", "--connections", "two"], "from 1 to 20000"),
        (["127.0.0.1:80", "--connections", "2"], "--seconds and --requests"),
        (["127.0.0.1:80", "--connections", "2", "--seconds", "1", "--requests", "1"], "not both"),
        (["127.0.0.1:80", "--connections", "2", "--seconds", "1"], "--request is needed"),
        (["127.0.0.1:80", "--seconds", "nan"], "from 0.001 to 3600"),
        (["127.0.0.1:80", "--seconds", "-1"], "from 0.001 to 3600"),
        (["127.0.0.1:80", "--rate", "0"], "from 0.001 to 1e+06"),
        (["127.0.0.1:80", "--turns", "0"], "from 1 to"),
        (["127.0.0.1:80", "--first-cycle", "1000000000000"], "to 999999999999"),
        (["127.0.0.1:80", "--request", "/no/such/file"], "No such file"),
        (["127.0.0.1:80", "--pace", "1"], "--help"),
    ],
)
def test_wrong_use_is_refused_with_what_is_right(load: Load, arguments: list[str], right: str) -> None:
    ended = load.try_to(*arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert right in ended.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("request_bytes", "right"),
    [
        (b"", "raw HTTP/1.1"),
        (b"POST / HTTP/1.1\nhost: x\n\n", "CR LF"),
        (b"POST /\r\nhost: x\r\n\r\n", "raw HTTP/1.1"),
        (b"HEAD / HTTP/1.1\r\nhost: x\r\n\r\n", "any method but HEAD"),
        (b"POST / HTTP/1.1\r\nhost: x\r\n\r\nbody", "content-length must be 4"),
        (b"POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nbody", "content-length must be 4"),
        (b"POST / HTTP/1.1\r\nno field\r\n\r\n", "malformed"),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", "content-length"),
    ],
)
def test_a_file_that_is_no_request_is_refused(load: Load, tmp_path: Path, request_bytes: bytes, right: str) -> None:
    file = tmp_path / "wrong.http"
    file.write_bytes(request_bytes)
    ended = load.try_to("127.0.0.1:80", "--connections", 1, "--requests", 1, "--request", file)  # type: ignore[arg-type]
    assert (ended.returncode, ended.stdout) == (2, "")
    assert right in ended.stderr
    assert str(file) in ended.stderr


def test_help_is_no_mistake(load: Load) -> None:
    ended = load.try_to("--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "--first-cycle" in ended.stdout


def test_nobody_there_is_an_error_of_its_own(load: Load, model_server_process: ModelServerProcess) -> None:
    assert model_server_process.end() == 0
    address = f"127.0.0.1:{model_server_process.port}"
    ended = load.try_to(address, "--connections", 3, "--seconds", 1, "--request", load.file())
    assert (ended.returncode, ended.stdout) == (1, "")
    assert f"cannot connect to {address}: Connection refused" in ended.stderr


@pytest.fixture(scope="module")
def histogram(tmp_path_factory: pytest.TempPathFactory) -> Any:
    library = tmp_path_factory.mktemp("histogram") / "histogram.so"
    sources = [str(SOURCES / name) for name in ("histogram.c", "common.c")]
    subprocess.run(["cc", "-std=c11", "-shared", "-fPIC", "-o", str(library), *sources], check=True, timeout=60)
    functions = ctypes.CDLL(str(library))
    functions.histogram_quantile.restype = ctypes.c_double
    return functions


@pytest.mark.parametrize("largest", [100, 1_000, 70_000, 5_000_000, 4_000_000_000_000])
def test_quantiles_are_off_by_less_than_a_hundredth(histogram: Any, largest: int) -> None:
    chance = random.Random(largest)
    values = sorted(int(math.exp(chance.uniform(0, math.log(largest)))) for _ in range(5000))
    place = ctypes.create_string_buffer(1 << 16)
    for value in values:
        histogram.histogram_add(place, ctypes.c_uint64(value))
    for part in (0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = values[math.ceil(part * len(values)) - 1]
        assert histogram.histogram_quantile(place, ctypes.c_double(part)) == pytest.approx(exact, rel=0.01)
