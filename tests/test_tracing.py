"""OpenTelemetry: real spans by the real SDK, over OTLP to a collector; and nothing at all where nobody asks for it."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path

import pytest

from emulator import __version__
from emulator.tracing import is_configured, make_tracing
from tests.collector import Collector, collector
from tests.conftest import JOB_ARN
from tests.model_servers import Exchange
from tests.raw_client import CHAT, SAMPLE, STREAM
from tests.rig import Rig, new_rig

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"

SECRET_PROMPT, SECRET_ANSWER, SECRET_KEY = "tell-nobody-this", "nor-this-either", "sk-very-secret"
ASKED = {"model": "small", "messages": [{"role": "user", "content": SECRET_PROMPT}]}
CHUNK = {"model": "small-1", "choices": [{"index": 0, "delta": {"content": SECRET_ANSWER}, "finish_reason": "stop"}]}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
ANSWERED = {
    "model": "small-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": SECRET_ANSWER}, "finish_reason": "length"}],
    "usage": USAGE,
}


async def answers(exchange: Exchange) -> None:
    """As the body asks."""
    asked = json.loads(exchange.body) if exchange.body else {}
    if "refuse" in asked:
        await exchange.answer(b'{"error": {"message": "no"}}', asked["refuse"])
    elif "break" in asked:
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        exchange.cut()
    elif "wait" in asked:
        await exchange.until_client_left()
        exchange.cut()
    elif asked.get("stream"):
        events = [b"data: %b\n\n" % json.dumps(each).encode() for each in (CHUNK, {"choices": [], "usage": USAGE})]
        await exchange.stream([*events, b"data: [DONE]\n\n"])
    else:
        await exchange.answer(json.dumps(ANSWERED).encode())


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """What a collector has received; everything, once the emulator has stopped."""
    with collector() as found:
        monkeypatch.setenv(ENDPOINT, found.url)
        yield found


def sample(rig: Rig, path: str, body: object, **headers: str) -> str:
    """One sample; the request's id."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    all_headers = {**rig.client.sample_headers(rig.trajectory), **named}
    return rig.client.call(path, json.dumps(body).encode(), all_headers).headers["x-amzn-requestid"]


def test_a_sample_has_a_span_of_its_own_and_one_of_the_model_below_it(database: Path, spans: Collector) -> None:
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, ASKED)
        request_id = sample(rig, SAMPLE, ASKED, user_agent="my-agent/1")
        port = int(rig.url.rpartition(":")[2])
        trajectory = rig.trajectory
    assert spans.paths == {"/v1/traces"}
    assert len(spans.spans) == 4
    server, model = (
        next(each for each in spans.spans if each.name == name and each.attributes["job_runtime.turn"] == 1)
        for name in ("POST /sample", "chat small")
    )
    which = {"job_runtime.job_arn": JOB_ARN, "job_runtime.trajectory_id": trajectory, "job_runtime.turn": 1}
    assert (server.kind, server.parent_id, server.is_error) == ("SPAN_KIND_SERVER", "", False)
    assert server.attributes == {
        **which,
        "http.request.method": "POST",
        "http.route": "/sample",
        "http.response.status_code": 200,
        "url.path": "/sample",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "server.address": "127.0.0.1",
        "server.port": port,
        "user_agent.original": "my-agent/1",
        "aws.request_id": request_id,
        "job_runtime.code": "ok",
    }
    assert (model.kind, model.parent_id, model.trace_id) == ("SPAN_KIND_CLIENT", server.span_id, server.trace_id)
    assert not model.is_error
    assert model.attributes == {
        **which,
        "gen_ai.conversation.id": trajectory,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "small-1",
        "gen_ai.response.finish_reasons": ["length"],
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "http.response.status_code": 200,
    }
    assert server.began <= model.began <= model.ended <= server.ended
    assert server.resource["service.name"] == "job-runtime-local"
    assert server.resource["service.version"] == __version__


def test_a_stream_says_that_it_is_one_and_when_it_began(database: Path, spans: Collector) -> None:
    with new_rig(database, answers) as rig:
        sample(rig, STREAM, {**ASKED, "stream": True})
    model = spans.one("chat small")
    assert model.attributes["gen_ai.request.stream"] is True
    assert 0 < model.attributes["gen_ai.response.time_to_first_chunk"] <= (model.ended - model.began) / 1e9
    assert model.attributes["gen_ai.response.finish_reasons"] == ["stop"]
    assert model.attributes["gen_ai.usage.output_tokens"] == 7


def test_a_plain_completion_is_one_in_the_words_of_the_conventions_too(database: Path, spans: Collector) -> None:
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, {"model": "small", "prompt": "2+2="})
    assert spans.one("text_completion small").attributes["gen_ai.operation.name"] == "text_completion"


def test_the_clients_trace_goes_on_through_the_emulator_to_the_model_server(database: Path, spans: Collector) -> None:
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, ASKED, traceparent=TRACEPARENT, tracestate="vendor=value")
        rig.client.call("/v1/models", method="GET")
        sampled, listed = (request.headers for request in rig.model.requests)
    server, model = spans.one("POST /sample"), spans.one("chat small")
    assert (server.trace_id, server.parent_id) == (TRACE_ID, PARENT_ID)
    assert sampled["traceparent"] == f"00-{TRACE_ID}-{model.span_id}-01"
    assert sampled["tracestate"] == "vendor=value"
    listing = spans.one("GET /v1/models", "SPAN_KIND_CLIENT")
    assert listing.parent_id == spans.one("GET /v1/models", "SPAN_KIND_SERVER").span_id
    assert listed["traceparent"].startswith(f"00-{listing.trace_id}-{listing.span_id}-")


@pytest.mark.parametrize("nonsense", ["", "00-0-0-00", "x" * 5000, "00-" + "f" * 32 + "-" + "g" * 16 + "-01"])
def test_a_traceparent_that_is_none_begins_a_new_trace(database: Path, spans: Collector, nonsense: str) -> None:
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, ASKED, traceparent=nonsense)
    server = spans.one("POST /sample")
    assert server.parent_id == ""
    assert spans.one("chat small").trace_id == server.trace_id


def test_what_the_client_does_not_want_recorded_is_not_recorded(database: Path, spans: Collector) -> None:
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, ASKED, traceparent=TRACEPARENT.removesuffix("01") + "00")
        (asked,) = rig.model.requests
    assert spans.spans == []
    assert asked.headers["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert asked.headers["traceparent"].endswith("-00")


def test_errors_are_marked_where_they_are_the_servers_or_the_models(database: Path, spans: Collector) -> None:
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, {**ASKED, "refuse": 503})
        sample(rig, CHAT, {**ASKED, "refuse": 404})
        rig.client.call("/complete-rollout", b"{}")
        rig.client.call("/nowhere/at/all", method="GET")
        with pytest.raises(IncompleteRead):
            sample(rig, STREAM, {**ASKED, "break": True})
    failed, passed, broken = (spans.one(f"POST {path}") for path in (SAMPLE, CHAT, STREAM))
    refused, unknown = spans.one("POST /complete-rollout"), spans.one("GET")
    assert [span.is_error for span in (failed, passed, broken, refused, unknown)] == [True, False, True, False, False]
    assert failed.attributes["error.type"] == "InternalServiceError"
    assert broken.attributes["error.type"] == "BrokenStream"
    assert [span.attributes["http.response.status_code"] for span in (failed, passed, broken)] == [500, 404, 200]
    assert passed.attributes["job_runtime.code"] == "ModelError"
    assert refused.attributes["job_runtime.code"] == "ValidationException"
    assert "http.route" not in unknown.attributes
    models = {span.parent_id: span for span in spans.spans if span.kind == "SPAN_KIND_CLIENT"}
    assert all(span.is_error for span in models.values())
    kinds = [models[span.span_id].attributes["error.type"] for span in (failed, passed, broken)]
    assert kinds == ["503", "404", "BrokenAnswer"]


def test_a_client_that_leaves_is_said_to_have_left(database: Path, spans: Collector) -> None:
    with new_rig(database, answers) as rig:
        client = rig.another_client()
        client.send_only(SAMPLE, b'{"model": "small", "wait": true}', client.sample_headers(rig.trajectory))
        rig.model.wait_for_requests(1)
        client.close()
        rig.eventual_turn()
    assert spans.one("POST /sample").attributes["error.type"] == "ClientGone"
    assert "http.response.status_code" not in spans.one("POST /sample").attributes
    assert spans.one("chat small").is_error


def test_neither_words_nor_keys_are_in_any_span(database: Path, spans: Collector) -> None:
    with new_rig(database, answers, model_api_key=SECRET_KEY) as rig:
        for path in (SAMPLE, CHAT):
            sample(rig, path, ASKED, Authorization=f"Bearer {SECRET_KEY}", Cookie=SECRET_KEY)
        sample(rig, STREAM, {**ASKED, "stream": True})
        rig.client.call(f"{SAMPLE}?key={SECRET_KEY}", b"{}")
        assert all(SECRET_PROMPT in request.body.decode() for request in rig.model.requests)
    assert len(spans.spans) == 7
    for secret in (SECRET_PROMPT, SECRET_ANSWER, SECRET_KEY):
        assert secret.encode() not in spans.raw


def test_the_standard_variables_are_obeyed(database: Path, spans: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{spans.url}/somewhere/else")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-emulator")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, ASKED)
    assert spans.paths == {"/somewhere/else"}
    resource = spans.one("POST /sample").resource
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("my-emulator", "test")


def test_a_sampler_that_wants_none_gets_none(database: Path, spans: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    with new_rig(database, answers) as rig:
        sample(rig, SAMPLE, ASKED)
    assert spans.spans == []


def test_a_collector_that_is_not_there_keeps_no_sample_waiting_and_no_server_from_its_end(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:9")
    monkeypatch.setattr("emulator.tracing.LAST_EXPORT", 0.1)
    with new_rig(database, answers) as rig:
        assert rig.client.sample(rig.trajectory, json.dumps(ASKED).encode()).status == 200
    assert len(rig.turns()) == 1


@pytest.mark.parametrize(
    ("environment", "configured"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "mine"}, False),
        ({ENDPOINT: ""}, False),
        ({ENDPOINT: "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", ENDPOINT: "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "TRUE", ENDPOINT: "http://collector:4318"}, False),
        ({"OTEL_SDK_DISABLED": "false", ENDPOINT: "http://collector:4318"}, True),
    ],
)
def test_it_is_configured_by_an_exporter_or_an_endpoint(environment: dict[str, str], configured: bool) -> None:
    assert is_configured(environment) is configured


@pytest.mark.parametrize("wish", [{"OTEL_TRACES_EXPORTER": "pigeon"}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "smoke"}])
def test_what_is_configured_but_not_there_is_a_warning_and_no_spans(
    wish: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert make_tracing({"OTEL_TRACES_EXPORTER": "otlp", **wish}) is None
    (line,) = caplog.messages
    assert next(iter(wish.values())) in line
    assert "job-runtime-local[otel]" in line


LOADED = """
import sys, urllib.request
from emulator.testing import running_server
with running_server() as server:
    urllib.request.urlopen(server.url + "/v1/models").read()
    urllib.request.urlopen(server.url + "/metrics").read()
    print(sorted({name.partition(".")[0] for name in sys.modules} & {"opentelemetry", "google", "requests", "urllib3"}))
"""


def loaded(tmp_path: Path, before: str = "", **environment: str) -> tuple[str, str]:
    """What a server has imported of OpenTelemetry, after a request or two; and what it said on standard error."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", before + LOADED],
        check=True, capture_output=True, text=True, cwd=tmp_path, env={**clean, **environment},
    )  # fmt: skip
    return done.stdout.strip(), done.stderr


def test_nothing_of_opentelemetry_is_imported_unless_it_is_configured(tmp_path: Path) -> None:
    assert loaded(tmp_path) == ("[]", "")
    assert loaded(tmp_path, OTEL_TRACES_EXPORTER="none") == ("[]", "")
    assert "opentelemetry" in loaded(tmp_path, OTEL_TRACES_EXPORTER="console")[0]


def test_without_its_packages_a_warning_says_what_to_install(tmp_path: Path) -> None:
    found, said = loaded(tmp_path, "import sys; sys.modules['opentelemetry'] = None\n", OTEL_TRACES_EXPORTER="otlp")
    assert found == "['opentelemetry']"  # the None that we put there
    (line,) = said.splitlines()
    assert "pip install 'job-runtime-local[otel]'" in line


def test_spans_go_to_standard_output_where_the_console_is_the_exporter(tmp_path: Path) -> None:
    printed = loaded(tmp_path, OTEL_TRACES_EXPORTER="console")[0]
    assert re.search(r'"name": "GET /v1/models"', printed)
