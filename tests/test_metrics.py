"""`/metrics`: what Prometheus reads there is what happened."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.client import IncompleteRead
from pathlib import Path
from time import perf_counter

import httpx2
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families

from emulator.address import Address
from emulator.metrics import SHORT_TIMES, Histogram
from emulator.server import Server
from emulator.settings import Settings
from emulator.testing import running_server
from tests.conftest import JOB_ARN
from tests.model_servers import EVENTS, PATIENCE, Exchange, Gate
from tests.raw_client import CHAT, SAMPLE, STREAM, RawClient
from tests.rig import Rig, new_rig, says_nothing
from tests.scraped import Scraped, scrape
from tests.stored import eventually, spelled

REQUESTS = "job_runtime_requests_total"


async def answers(exchange: Exchange) -> None:
    """As the body asks: refuse, break off, or answer."""
    if b"refuse" in exchange.body:
        await exchange.answer(b'{"error": {"message": "no"}}', 400)
    elif b"break" in exchange.body:
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        exchange.cut()
    elif b"stream" in exchange.body:
        await exchange.stream([b"data: 1\n\n", b"data: [DONE]\n\n"])
    else:
        await exchange.answer(b"{}")


@pytest.fixture
def rig(database: Path) -> Iterator[Rig]:
    with new_rig(database, answers) as rig:
        yield rig


def eventually_scraped(rig: Rig, name: str, expected: dict[tuple[str, ...], float]) -> None:
    """For what a client cannot wait for: its own leaving, and the count of the trajectories, which is kept a while."""
    eventually(lambda: scrape(rig.url).labelled(name) == expected, f"{name} to be {expected}")


def test_requests_are_counted_by_operation_and_by_how_they_ended(rig: Rig) -> None:
    rig.sample(b"{}", SAMPLE)
    rig.sample(b"{}", SAMPLE)
    rig.sample(b"stream", STREAM)
    rig.sample(b"{}", CHAT)
    rig.sample(b"refuse", SAMPLE)
    rig.sample(b"refuse", CHAT)
    with pytest.raises(IncompleteRead):
        rig.sample(b"break", STREAM)
    rig.client.call(SAMPLE, b"{}", {})
    rig.client.complete(rig.trajectory)
    rig.client.complete(rig.trajectory)
    rig.sample(b"{}", SAMPLE)
    rig.client.reward("nobody", [1.0])
    rig.client.call("/v1/models", method="GET")
    for path in ("/", "/favicon.ico", "/v1/embeddings", f"/jobs/{JOB_ARN}"):
        rig.client.call(path, method="GET")
    rig.client.call(SAMPLE, method="DELETE")
    assert scrape(rig.url).labelled(REQUESTS) == {
        ("ok", "Sample"): 2,
        ("ValidationException", "Sample"): 3,
        ("UnknownOperationException", "Sample"): 1,
        ("ok", "SampleWithResponseStream"): 1,
        ("BrokenStream", "SampleWithResponseStream"): 1,
        ("ok", "ChatCompletions"): 1,
        ("ModelError", "ChatCompletions"): 1,
        ("ok", "CompleteRollout"): 1,
        ("ConflictException", "CompleteRollout"): 1,
        ("ResourceNotFoundException", "UpdateReward"): 1,
        ("ok", "ListModels"): 1,
        ("UnknownOperationException", "Unknown"): 4,
    }


def test_a_client_that_leaves_is_counted_as_that_and_its_turn_as_aborted(database: Path) -> None:
    with new_rig(database, says_nothing) as rig:
        client = rig.another_client()
        client.send_only(SAMPLE, b"{}", client.sample_headers(rig.trajectory))
        rig.model.wait_for_requests(1)
        assert scrape(rig.url).value("job_runtime_in_flight") == 1
        client.close()
        eventually_scraped(rig, REQUESTS, {("ClientGone", "Sample"): 1})
        found = scrape(rig.url)
        assert found.labelled("job_runtime_turns_total") == {("aborted",): 1}
        assert found.value("job_runtime_in_flight") == 0
        # How long it stayed says nothing of anybody's latency.
        for name in ("added", "model"):
            assert found.value(f"job_runtime_{name}_seconds_count", operation="Sample") == 0


def test_turns_are_counted_as_what_they_were_stored(database: Path) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        if b"late" in exchange.body:
            await gate.passed()
        await answers(exchange)

    with new_rig(database, behaviour) as rig:
        rig.sample(b"{}", SAMPLE)
        rig.sample(b"refuse", SAMPLE)
        with pytest.raises(IncompleteRead):
            rig.sample(b"break", STREAM)
        late = rig.another_client()
        late.send_only(SAMPLE, b"late", late.sample_headers(rig.trajectory))
        rig.model.wait_for_requests(4)
        assert rig.client.complete(rig.trajectory).status == 200
        gate.open()
        assert late.receive().status == 200
        found = scrape(rig.url)
        assert found.labelled("job_runtime_turns_total") == {("completed",): 1, ("failed",): 2, ("discarded",): 1}
        assert {turn.status for turn in rig.turns()} == {"completed", "failed", "discarded"}


def test_trajectories_are_counted_by_status(rig: Rig) -> None:
    name = "job_runtime_trajectories"
    for trajectory in ("one", "two", "three", "four"):
        rig.client.sample(trajectory, b"{}")
    eventually_scraped(rig, name, {("open",): 4})
    rig.client.complete("one")
    rig.client.complete("two", "failed")
    rig.client.complete("three")
    rig.client.reward("three", [1.0])
    eventually_scraped(rig, name, {("open",): 1, ("ready",): 1, ("failed",): 1, ("reward-received",): 1})


@pytest.mark.parametrize("path", [SAMPLE, STREAM])
def test_the_time_that_the_model_server_takes_is_not_counted_as_ours(database: Path, path: str) -> None:
    arrived, gates = threading.Event(), (Gate(), Gate())

    async def behaviour(exchange: Exchange) -> None:
        arrived.set()
        await gates[0].passed()
        await exchange.head()
        await exchange.chunks([b"data: 1\n\n"])
        await gates[1].passed()
        await exchange.chunks([b"data: [DONE]\n\n"])
        await exchange.end()

    with new_rig(database, behaviour) as rig:
        began = perf_counter()
        rig.client.send_only(path, b"{}", rig.client.sample_headers(rig.trajectory))
        assert arrived.wait(PATIENCE)
        held_since = perf_counter()
        for gate in gates:
            scrape(rig.url)  # takes a while
            held = perf_counter() - held_since
            gate.open()
        assert rig.client.receive().status == 200
        operation = {SAMPLE: "Sample", STREAM: "SampleWithResponseStream"}[path]
        eventually(lambda: scrape(rig.url).labelled(REQUESTS) == {("ok", operation): 1}, "the end of the request")
        found = scrape(rig.url)
    model = found.value("job_runtime_model_seconds_sum", operation=operation)
    added = found.value("job_runtime_added_seconds_sum", operation=operation)
    assert found.value("job_runtime_model_seconds_count", operation=operation) == 1
    assert found.value("job_runtime_added_seconds_count", operation=operation) == 1
    assert held <= model
    assert 0 < added <= perf_counter() - began - held


def test_what_has_no_part_of_the_model_is_ours_alone(rig: Rig) -> None:
    rig.sample(b"{}", SAMPLE)
    rig.client.complete(rig.trajectory)
    found = scrape(rig.url)
    assert found.value("job_runtime_added_seconds_count", operation="CompleteRollout") == 1
    assert found.value("job_runtime_added_seconds_sum", operation="CompleteRollout") > 0
    assert found.value("job_runtime_model_seconds_count", operation="CompleteRollout") == 0


def test_open_streams_are_those_that_have_begun_and_not_ended(database: Path) -> None:
    gate = Gate()

    async def behaviour(exchange: Exchange) -> None:
        await exchange.head(EVENTS)
        await exchange.chunks([b"data: 1\n\n"])
        await gate.passed()
        await exchange.chunks([b"data: [DONE]\n\n"])
        await exchange.end()

    with new_rig(database, behaviour) as rig:
        clients = [rig.another_client() for _ in range(3)]
        streams = [client.begin(STREAM, b"{}", client.sample_headers("t")) for client in clients]
        found = scrape(rig.url)
        assert (found.value("job_runtime_open_streams"), found.value("job_runtime_in_flight")) == (3, 3)
        gate.open()
        for stream in streams:
            stream.read()
        eventually(lambda: scrape(rig.url).value("job_runtime_open_streams") == 0, "the end of the streams")
        assert scrape(rig.url).value("job_runtime_in_flight") == 0


def test_the_writer_says_how_many_turns_it_stores_at_once_and_how_long_they_wait(rig: Rig) -> None:
    for _ in range(3):
        rig.sample(b"{}", SAMPLE)
    rig.client.complete(rig.trajectory)
    at_start = 1  # it was asked for jobs
    # The writer measures when it has told those who wait.
    eventually(lambda: scrape(rig.url).value("job_runtime_writer_wait_seconds_count") == at_start + 5, "five writes")
    found = scrape(rig.url)
    assert found.value("job_runtime_writer_batch_turns_sum") == 3
    assert found.value("job_runtime_writer_batch_turns_bucket", le="0.0") == at_start + 2  # a creation and a seal
    assert found.value("job_runtime_writer_wait_seconds_sum") > 0


def test_the_size_of_the_database_is_that_of_its_files(rig: Rig) -> None:
    rig.sample(b"x" * 500_000, SAMPLE)
    files = [rig.database, rig.database.with_name(rig.database.name + "-wal")]
    assert scrape(rig.url).value("job_runtime_database_bytes") > 500_000
    eventually(
        lambda: scrape(rig.url).value("job_runtime_database_bytes") == sum(file.stat().st_size for file in files),
        "the log to be moved",
    )


def test_what_is_stored_is_looked_up_in_any_database(any_database: Address) -> None:
    settings = Settings(port=0, database=spelled(any_database), durability="normal")
    with running_server(settings) as server, RawClient(server.url, JOB_ARN) as client:
        assert client.sample("t", b'{"messages": [{"role": "user", "content": "Hello"}]}').status == 200
        found = scrape(server.url)
    assert found.labelled("job_runtime_trajectories") == {("open",): 1}
    assert found.labelled("job_runtime_turns_total") == {("completed",): 1}
    assert found.value("job_runtime_database_bytes") > 0
    assert found.value("job_runtime_writer_batch_turns_sum") <= 1


def test_a_database_in_memory_has_no_size() -> None:
    with running_server() as server:
        assert "job_runtime_database_bytes" not in scrape(server.url).text


def test_the_process_says_what_it_uses(server: Server) -> None:
    found = scrape(server.url)
    assert found.value("process_cpu_seconds_total") > 0
    assert found.value("process_resident_memory_bytes") > 1_000_000


def check_form(found: Scraped) -> None:
    """What promtool would say something about."""
    assert len({family.name for family in found.families}) == len(found.families)
    lines = [line for line in found.text.splitlines() if not line.startswith("#")]
    series = [line.rpartition(" ")[0] for line in lines]
    assert len(set(series)) == len(series)
    for family in found.families:
        assert re.fullmatch("(job_runtime|process)_[a-z_]+", family.name), family.name
        assert family.documentation
        assert family.type in {"counter", "gauge", "histogram"}
        assert f"# HELP {family.name}" in found.text
        assert f"# TYPE {family.name}" in found.text
        if family.type == "counter":
            assert {sample.name for sample in family.samples} <= {f"{family.name}_total"}
        if family.type == "histogram":
            check_histogram(found, family.name, [dict(sample.labels) for sample in family.samples])


def check_histogram(found: Scraped, name: str, labels: list[dict[str, str]]) -> None:
    for each in {frozenset(set(labels_of.items()) - {("le", labels_of.get("le", ""))}) for labels_of in labels}:
        buckets = [
            (float(of["le"]), found.value(f"{name}_bucket", **of)) for of in labels if "le" in of and each <= of.items()
        ]
        assert buckets == sorted(buckets)
        assert [count for _, count in buckets] == sorted(count for _, count in buckets)
        assert buckets[-1] == (float("inf"), found.value(f"{name}_count", **dict(each)))


def test_the_answer_has_the_form_that_prometheus_wants(rig: Rig) -> None:
    check_form(scrape(rig.url))
    for path in (SAMPLE, STREAM, CHAT):
        rig.sample(b"{}", path)
        rig.client.call(path, b"", {})
    found = scrape(rig.url)
    check_form(found)
    answer = httpx2.get(f"{rig.url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_whoever_prefers_openmetrics_gets_it(rig: Rig) -> None:
    rig.sample(b"{}", SAMPLE)
    accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = httpx2.get(f"{rig.url}/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = open_metrics_families(answer.text)  # type: ignore[no-untyped-call]
    assert "job_runtime_requests" in {family.name for family in families}


def test_no_label_grows_with_what_clients_send(rig: Rig) -> None:
    for number in range(20):
        rig.client.sample(f"trajectory-{number}", b"{}")
        rig.client.call(f"/no/such/path/{number}", b"{}")
        rig.client.call(SAMPLE, b"{}", {"X-Amzn-SageMaker-Job-Arn": f"arn:{number}"})
    found = scrape(rig.url)
    assert "arn:" not in found.text
    assert "trajectory-" not in found.text
    assert "/no/such" not in found.text
    assert len(found.labelled(REQUESTS)) == 3


def test_the_same_visitors_are_welcome_as_everywhere_behind_the_scenes(rig: Rig) -> None:
    for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = httpx2.get(f"{rig.url}/metrics", headers=header)
        assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    refused = httpx2.post(f"{rig.url}/metrics")
    assert (refused.status_code, refused.headers["x-amzn-errortype"]) == (404, "UnknownOperationException")


def test_strict_authentication_does_not_ask_prometheus_for_a_signature(database: Path) -> None:
    settings = Settings(port=0, database=str(database), auth="strict", key_pairs=("AKID:secret",))
    with running_server(settings) as server, RawClient(server.url, JOB_ARN) as client:
        assert client.sample("t", b"{}").status == 403
        assert scrape(server.url).labelled(REQUESTS) == {("AccessDeniedException", "Sample"): 1}


def test_a_value_falls_into_the_first_bucket_that_takes_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 2.5, 100.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.total) == ([2, 2, 2], 107.5)
    assert list(SHORT_TIMES) == sorted(SHORT_TIMES)


def test_what_writes_for_prometheus_is_not_loaded_before_it_asks(tmp_path: Path) -> None:
    code = """
import sys, urllib.request
from emulator.testing import running_server
def loaded():
    return sorted(name for name in ("prometheus_client", "emulator.exposition") if name in sys.modules)
with running_server() as server:
    urllib.request.urlopen(server.url + "/v1/models").read()
    before = loaded()
    urllib.request.urlopen(server.url + "/metrics").read()
    print(before, loaded())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "[] ['emulator.exposition', 'prometheus_client']\n"
