"""Web pages of other sites talk to no operation, by whatever name they reach this machine."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest

from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server

SIGNED = "AWS4-HMAC-SHA256 Credential=k/20260101/us-west-2/{}/aws4_request, Signature=0"
JSON = {"content-type": "application/x-amz-json-1.1"}

#: Requests that would do or tell something: method, path, headers, body.
REQUESTS = {
    "a sample": ("POST", "/sample", {}, b"{}"),
    "a completion": ("POST", "/v1/chat/completions", {}, b"{}"),
    "jobs": ("POST", "/", {**JSON, "x-amz-target": "SageMaker.ListJobs"}, b'{"JobCategory":"AgentRFT"}'),
    "lineage": ("POST", "/", {**JSON, "x-amz-target": "SageMaker.ListArtifacts"}, b"{}"),
    "an object": ("PUT", "/bucket/key", {"authorization": SIGNED.format("s3")}, b"text"),
    "a form": ("POST", "/bucket", {"content-type": "multipart/form-data; boundary=b"}, b"--b--\r\n"),
    "a function": ("POST", "/2015-03-31/functions", {"authorization": SIGNED.format("lambda")}, b"{}"),
    "a call": ("POST", "/2015-03-31/functions/f/invocations", {"authorization": SIGNED.format("lambda")}, b"{}"),
    "a role": (
        "POST",
        "/?X-Amz-Credential=k%2F20260101%2Fus-east-1%2Fsts%2Faws4_request",
        {"content-type": "text/plain"},
        b"Action=AssumeRole",
    ),
    "a reset": ("POST", "/_emulator/reset", {}, b""),
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running_server(Settings(port=0, durability="memory")) as server:
        yield server


@pytest.mark.parametrize("what", REQUESTS)
@pytest.mark.parametrize("site", ["https://evil.example", "http://localhost:3000", "null", "http://rebound.example:80"])
def test_a_page_of_another_site_can_post_nothing(server: Server, what: str, site: str) -> None:
    method, path, headers, body = REQUESTS[what]
    given = headers | {"origin": site}
    if "rebound" in site:  # its name leads to this machine by now, and it may send whatever it likes
        given["host"] = "rebound.example:80"
    answer = httpx2.request(method, server.url + path, headers=given, content=body)
    assert answer.status_code == 403, answer.text
    assert "AccessDenied" in answer.text or answer.headers["x-amzn-errortype"] == "AccessDeniedException"


def test_nor_can_it_embed_what_is_here(server: Server) -> None:
    signed = f"{server.url}/bucket/key?X-Amz-Credential=k%2F20260101%2Fus-west-2%2Fs3%2Faws4_request"
    for site in ("cross-site", "same-site"):
        embedded = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
        assert httpx2.get(signed, headers=embedded).status_code == 403
        assert httpx2.get(signed, headers={"sec-fetch-site": site, "sec-fetch-mode": "navigate"}).status_code == 404


def test_nor_read_what_is_here_by_a_name_of_its_own(server: Server) -> None:
    headers = {"authorization": SIGNED.format("s3")}
    assert httpx2.get(f"{server.url}/bucket/key", headers=headers | {"host": "rebound.example"}).status_code == 403
    assert httpx2.get(f"{server.url}/bucket/key", headers=headers | {"host": "a b"}).status_code == 403


@pytest.mark.parametrize(
    "host",
    ["localhost:4580", "bucket.localhost:4580", "bucket.s3.us-west-2.amazonaws.com", "s3.cn-north-1.amazonaws.com.cn",
     "bedrock-agentcore.us-west-2.api.aws", "emulator", "host.docker.internal:4580", "[::1]:4580"],
)  # fmt: skip
def test_clients_come_by_private_names_and_aws_s(server: Server, host: str) -> None:
    headers = {"authorization": SIGNED.format("s3"), "host": host}
    assert httpx2.get(f"{server.url}/bucket/key", headers=headers).status_code == 404


def test_a_page_of_our_own_may_ask(server: Server) -> None:
    host = server.url.removeprefix("http://")
    headers = {**JSON, "x-amz-target": "SageMaker.ListJobs", "origin": server.url, "host": host}
    assert httpx2.post(server.url, headers=headers, content=b'{"JobCategory":"AgentRFT"}').status_code == 200
