"""`/_emulator/` over a real socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from emulator import __version__
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.captured import ask, roll_out
from tests.managed import assert_error, ids, listed, trajectory_url, turn_url
from tests.model_servers import Exchange, model_server

SECRET = "a-very-secret-key"


@pytest.fixture(scope="module")
def idle_server() -> Iterator[Server]:
    """A server for requests that are refused: it stays empty, whoever asks."""
    with running_server() as server:
        yield server


def test_health_says_that_the_model_server_is_ready(server: Server) -> None:
    answer = httpx2.get(f"{server.url}/_emulator/health")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["detail"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-amzn-requestid"]


def test_health_is_503_while_the_model_server_does_not_answer() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        model = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with running_server(Settings(port=0, durability="memory", model=model)) as server:
            answer = httpx2.get(f"{server.url}/_emulator/health")
            assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
            info = httpx2.get(f"{server.url}/_emulator/info").json()
            assert info["model_server"] == {"ready": False, "detail": answer.json()["detail"]}


def test_info_shows_the_settings_but_no_secret(database: Path) -> None:
    settings = Settings(
        port=0, database=str(database), auth="strict", key_pairs=(f"AKID:{SECRET}",), model_api_key=SECRET
    )
    with running_server(settings) as server:
        answer = httpx2.get(f"{server.url}/_emulator/info")
        info = answer.json()
        assert info["database"]["bytes"] == sum(
            file.stat().st_size for file in (database, Path(f"{database}-wal")) if file.exists()
        )
    assert SECRET not in answer.text
    assert info["version"] == __version__
    assert info["settings"]["auth"] == "strict"
    assert "key_pairs" not in info["settings"]
    assert info["model_server"]["ready"] is True
    assert info["database"]["path"] == str(database)
    assert info["database"]["durability"] == "full"


def test_info_says_that_a_database_in_memory_has_no_file() -> None:
    with running_server() as server:
        info = httpx2.get(f"{server.url}/_emulator/info").json()
        assert info["database"] == {"path": None, "durability": "memory", "bytes": None}


def test_a_listing_shows_the_newest_first_with_the_number_of_their_turns(server: Server, job_arn: str) -> None:
    roll_out(server.url, job_arn, "first", rewards=[0.5])
    ask(server.url, job_arn, "second", [{"role": "user", "content": "Hello"}])
    page = listed(server)
    assert page["next"] is None
    second, first = page["trajectories"]
    assert (second["trajectory_id"], second["status"], second["turns"]) == ("second", "open", 1)
    assert second["rewards"] is None
    assert (first["status"], first["completion"], first["eligible"]) == ("reward-received", "ready", True)
    assert (first["turns"], first["rewards"]) == (2, [0.5])
    for name in ("created_at", "completed_at", "rewarded_at"):
        datetime.strptime(first[name], "%Y-%m-%dT%H:%M:%S.%f%z")


def test_pages_hold_every_trajectory_once(server: Server, job_arn: str) -> None:
    for number in range(5):
        ask(server.url, job_arn, f"t-{number}", [{"role": "user", "content": "Hello"}])
    page, seen = listed(server, limit=2), []
    seen += ids(page)
    while page["next"] is not None:
        page = listed(server, limit=2, next=page["next"])
        seen += ids(page)
    assert seen == ["t-4", "t-3", "t-2", "t-1", "t-0"]


def test_the_last_page_names_no_next_one_even_if_it_is_full(server: Server, job_arn: str) -> None:
    for number in range(2):
        ask(server.url, job_arn, f"t-{number}", [{"role": "user", "content": "Hello"}])
    assert listed(server, limit=2)["next"] is None


def test_a_listing_is_filtered_by_job_status_and_time(server: Server, job_arn: str) -> None:
    other = job_arn + "-2"
    roll_out(server.url, job_arn, "one", rewards=None)
    roll_out(server.url, job_arn, "two", status="failed", rewards=None)
    roll_out(server.url, other, "three", rewards=None)
    assert ids(listed(server, job=other)) == ["three"]
    assert ids(listed(server, status="ready")) == ["three", "one"]
    assert ids(listed(server, job=job_arn, status="failed")) == ["two"]
    two = listed(server, status="failed")["trajectories"][0]["created_at"]
    assert ids(listed(server, since=two)) == ["three", "two"]
    assert ids(listed(server, until=two)) == ["one"]
    assert ids(listed(server, since=0, until=1)) == []


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("job", "arithmetic"),
        ("status", "done"),
        ("since", "yesterday"),
        ("until", "2026-11-21T12:00:00"),
        ("limit", "0"),
        ("limit", "501"),
        ("limit", "ten"),
        ("next", "!"),
        ("next", "bnVsbA=="),
        ("next", "é"),
        ("stauts", "ready"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_by_its_name(idle_server: Server, parameter: str, value: str) -> None:
    answer = httpx2.get(f"{idle_server.url}/_emulator/trajectories", params={parameter: value})
    assert parameter in assert_error(answer, 400, "ValidationException")


def test_a_trajectory_is_shown_with_its_turns_decoded(server: Server, job_arn: str) -> None:
    conversation = roll_out(server.url, job_arn, "t-1")
    answer = httpx2.get(trajectory_url(server, job_arn, "t-1"))
    assert answer.status_code == 200
    document = answer.json()
    assert (document["job_arn"], document["trajectory_id"]) == (job_arn, "t-1")
    assert (document["status"], document["eligible"], document["rewards"]) == ("reward-received", True, [1.0])
    first, second = document["turns"]
    assert [first["number"], second["number"]] == [0, 1]
    assert second["request"]["messages"] == conversation[:-1]
    assert second["choices"][0]["message"] == conversation[-1]
    assert first["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "calculator"
    assert [turn["choices"][0]["finish_reason"] for turn in (first, second)] == ["tool_calls", "stop"]
    assert document["usage"]["total_tokens"] == first["usage"]["total_tokens"] + second["usage"]["total_tokens"] > 0


def test_a_streamed_turn_is_put_together(server: Server, job_arn: str) -> None:
    ask(server.url, job_arn, "t-1", [{"role": "user", "content": "Who are you?"}], stream=True)
    (turn,) = httpx2.get(trajectory_url(server, job_arn, "t-1")).json()["turns"]
    assert turn["streamed"] is True
    assert turn["choices"][0]["message"]["content"]


@pytest.mark.parametrize(
    "trajectory_id",
    ["a/b", "/", "a?b=c", "a#b", "50%", "%2F", "a b+c", "日本/é", "x/0/request", "..", "a\\b", "'\"<>", "a:b@c", "🦜"],
)
def test_a_trajectory_id_may_have_any_character(server: Server, job_arn: str, trajectory_id: str) -> None:
    ask(server.url, job_arn, trajectory_id, [{"role": "user", "content": "Hello"}])
    assert ids(listed(server)) == [trajectory_id]
    # Not through a client's own ideas of a path such as `..`.
    path = f"/_emulator/trajectories/{job_arn}/{quote(trajectory_id, safe='').replace('.', '%2E')}"
    document = json.loads(raw_get(server, path))
    assert document["trajectory_id"] == trajectory_id
    turn = raw_get(server, path.replace("/trajectories/", "/turns/") + "/0/request")
    assert json.loads(turn)["messages"] == [{"role": "user", "content": "Hello"}]


def raw_get(server: Server, path: str) -> bytes:
    """The body of an answer with status 200, asked for with exactly this path."""
    host = server.url.removeprefix("http://")
    with socket.create_connection(tuple(host.split(":")), timeout=30) as connection:  # type: ignore[arg-type]
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), answer
    return body


def test_the_bytes_of_a_turn_are_exact_and_no_page(job_arn: str) -> None:
    request = b'{ "messages" :[{"role":"user","content":"\\u00e9 \xc3\xa9"}] ,"messages":[]}\n'
    response = b"<script>alert(1)</script>\xff\x00"

    async def answer_html(exchange: Exchange) -> None:
        await exchange.answer(response, content_type="text/html; charset=x")

    with (
        model_server(answer_html) as model,
        running_server(Settings(port=0, durability="memory", model=model.url)) as server,
    ):
        headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": "t-1"}
        httpx2.post(f"{server.url}/v1/chat/completions", headers=headers, content=request)
        asked = httpx2.get(turn_url(server, job_arn, "t-1", 0, "request"))
        answered = httpx2.get(turn_url(server, job_arn, "t-1", 0, "response"))
        shown = httpx2.get(trajectory_url(server, job_arn, "t-1")).json()
    assert asked.content == request
    assert asked.headers["content-type"] == "application/json"
    assert answered.content == response
    assert answered.headers["content-type"] == "text/html; charset=x"
    for answer in (asked, answered):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
    assert shown["turns"][0]["problem"]


def test_a_turn_that_nobody_answered_has_a_request_and_an_error(job_arn: str) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        model = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        with running_server(Settings(port=0, durability="memory", model=model)) as server:
            headers = {"X-Amzn-SageMaker-Job-Arn": job_arn, "X-Amzn-SageMaker-Trajectory-Id": "t-1"}
            httpx2.post(f"{server.url}/v1/chat/completions", headers=headers, json={"messages": []})
            document = httpx2.get(trajectory_url(server, job_arn, "t-1")).json()
            assert httpx2.get(turn_url(server, job_arn, "t-1", 0, "response")).content == b""
    (turn,) = document["turns"]
    assert (turn["status"], turn["http_status"], turn["request"]) == ("failed", None, {"messages": []})
    assert turn["error"]


@pytest.mark.parametrize(
    "path",
    [
        "trajectories/{job_arn}/unknown",
        "trajectories/{job_arn}-2/t-1",
        "trajectories/{job_arn}/t-1%00",
        "trajectories/{job_arn}%00/t-1",
        "trajectories/{job_arn}",
        "trajectories/t-1",
        "trajectories/",
        "turns/{job_arn}/unknown/0/request",
        "turns/{job_arn}/t-1/1/request",
        "turns/{job_arn}/t-1/99999999999999999999/request",
        "turns/{job_arn}/t-1/0/body",
        "turns/{job_arn}/t-1",
    ],
)
def test_what_does_not_exist_is_not_found(server: Server, job_arn: str, path: str) -> None:
    ask(server.url, job_arn, "t-1", [{"role": "user", "content": "Hello"}])
    answer = httpx2.get(f"{server.url}/_emulator/{path.format(job_arn=job_arn)}")
    assert_error(answer, 404, "ResourceNotFoundException")


def test_reset_forgets_everything(server: Server, job_arn: str) -> None:
    roll_out(server.url, job_arn, "t-1")
    answer = httpx2.post(f"{server.url}/_emulator/reset")
    assert (answer.status_code, answer.json()) == (200, {})
    assert listed(server) == {"trajectories": [], "next": None}
    roll_out(server.url, job_arn, "t-1")  # the same id begins anew
    assert listed(server)["trajectories"][0]["turns"] == 2


#: Of each route with GET, one.
PATHS = ["health", "info", "trajectories", "trajectories/x", "turns/x"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:{port}"},
        {"Host": "localhost.evil.example:{port}"},
        {"Host": "10.0.0.1:{port}"},
        {"Host": "localhost@evil.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_other_web_sites_are_refused(idle_server: Server, headers: dict[str, str]) -> None:
    port = idle_server.url.rpartition(":")[2]
    headers = {name: value.format(port=port) for name, value in headers.items()}
    for path in PATHS:
        answer = httpx2.get(f"{idle_server.url}/_emulator/{path}", headers=headers)
        assert_error(answer, 403, "AccessDeniedException")


def test_another_web_site_cannot_reset(server: Server, job_arn: str) -> None:
    ask(server.url, job_arn, "t-1", [{"role": "user", "content": "Hello"}])
    answer = httpx2.post(f"{server.url}/_emulator/reset", headers={"Origin": "http://evil.example"})
    assert_error(answer, 403, "AccessDeniedException")
    assert ids(listed(server)) == ["t-1"]


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:{port}", "LOCALHOST", "[::1]:{port}", "[::1]"])
def test_loopback_by_any_of_its_names_is_served(idle_server: Server, host: str) -> None:
    host = host.format(port=idle_server.url.rpartition(":")[2])
    headers = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
    assert httpx2.get(f"{idle_server.url}/_emulator/health", headers=headers).status_code == 200


def test_the_server_is_served_under_the_name_that_it_listens_on() -> None:
    with running_server(Settings(port=0, host="localhost", durability="memory")) as server:
        assert httpx2.get(f"{server.url}/_emulator/health").status_code == 200


def test_a_page_that_does_not_exist_is_an_error_as_aws_writes_them(idle_server: Server) -> None:
    for answer in (
        httpx2.get(f"{idle_server.url}/_emulator/nothing"),
        httpx2.get(f"{idle_server.url}/_emulator/reset"),
    ):
        assert answer.status_code == 404
        assert answer.headers["x-amzn-errortype"] == "UnknownOperationException"
