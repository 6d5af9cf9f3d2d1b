"""deploy/nginx.conf in a real nginx, before two emulators."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from emulator.address import DatabaseURL
from emulator.settings import Settings
from emulator.store.queries import TurnRecord
from emulator.trajectory import TurnStatus
from tests.clients.aws import runtime_client
from tests.clients.environments import program
from tests.clients.rollouts import KEY_PAIR
from tests.conftest import JOB_ARN
from tests.jobs.conftest import AWS, training
from tests.model_servers import PATIENCE, Exchange, Gate, ModelServerThread, model_server
from tests.postgresql import free_port
from tests.raw_client import CHAT, COMPLETE, SAMPLE, STREAM, RawClient, check_error
from tests.serving import serving as serving_process
from tests.stored import eventually, stored_turns
from tests.test_serve import serving

CONFIGURATION = (Path(__file__).parent.parent / "deploy" / "nginx.conf").read_text()
MEBIBYTE = 1024 * 1024
EVENTS = [b'data: {"n": %d}\n\n' % number for number in range(5)] + [b"data: [DONE]\n\n"]
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Reached:
    """Where something is."""

    url: str


@contextmanager
def nginx(emulators: list[str], folder: Path, port: int = 0) -> Iterator[str]:
    """The URL of nginx before these emulators, with our configuration but for addresses and folders."""
    listener = socket.create_server(("127.0.0.1", port))
    port = listener.getsockname()[1]
    changes = {"listen 4580;": f"listen 127.0.0.1:{port};"}
    for number, url in enumerate(emulators, start=1):
        changes[f"server emulator-{number}:4580 "] = f"server {url.removeprefix('http://')} "
    changes["http {"] = "http {" + "".join(f"{name}_temp_path {folder / name};" for name in TEMPORARY)
    configuration = CONFIGURATION
    for before, after in changes.items():
        assert configuration.count(before) == 1, before
        configuration = configuration.replace(before, after)
    file, log = folder / "nginx.conf", folder / "nginx.log"
    file.write_text(configuration)
    options = f"daemon off; pid {folder / 'nginx.pid'};" + ("user root;" if os.geteuid() == 0 else "")
    listener.close()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program("nginx", "nginx"), "-c", file, "-e", "stderr", "-g", options], stdout=output, stderr=output
        )
    try:

        def listens() -> bool:
            assert process.poll() is None, log.read_text()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", port)) == 0

        eventually(listens, "nginx to listen")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE)


class Plant:
    """A model server, two emulators with a database each, and nginx before them."""

    def __init__(self, folder: Path, stack: ExitStack, *options: str) -> None:
        self.gate = Gate()  #: what samples that wait are waiting for
        self.gates = [Gate() for _ in EVENTS]  #: and each event of a stream
        self.model: ModelServerThread = stack.enter_context(model_server(self._answer))
        self.databases = [folder / f"{number}.db" for number in range(2)]
        self.emulators = [
            stack.enter_context(serving("--database", str(database), "--model", self.model.url, *options, cwd=folder))
            for database in self.databases
        ]
        self.url = stack.enter_context(nginx([url for _, url, _ in self.emulators], folder))
        self._stack = stack
        self.client = self.another_client()

    async def _answer(self, exchange: Exchange) -> None:
        if b'"stream"' in exchange.body:
            await exchange.head()
            for gate, event in zip(self.gates, EVENTS, strict=True):
                await gate.passed()
                await exchange.chunks([event])
            await exchange.end()
            return
        if b'"waits"' in exchange.body:
            await self.gate.passed()
        await exchange.answer(b'{"you sent": %d}' % len(exchange.body))

    def another_client(self) -> RawClient:
        return self._stack.enter_context(RawClient(self.url, JOB_ARN))

    def kill(self, number: int) -> None:
        self.emulators[number][0].kill()
        self.emulators[number][0].wait(PATIENCE)

    def turns(self, trajectory: str) -> list[list[TurnRecord]]:
        """What each of the emulators has stored."""
        return [stored_turns(database, trajectory) for database in self.databases]

    def emulator_of(self, trajectory: str) -> int:
        """The emulator that took the trajectory's turns, which must be one."""
        (number,) = [number for number, turns in enumerate(self.turns(trajectory)) if turns]
        return number


@contextmanager
def plant(folder: Path, *options: str) -> Iterator[Plant]:
    with ExitStack() as stack:
        yield Plant(folder, stack, *options)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plant]:
    """For tests that leave both emulators well."""
    with plant(tmp_path_factory.mktemp("plant")) as it:
        yield it


def test_the_patience_and_the_limits_of_nginx_are_those_of_the_emulator_or_longer() -> None:
    settings = Settings()
    assert f"client_max_body_size {settings.max_request_bytes // MEBIBYTE}m;" in CONFIGURATION
    assert settings.max_request_bytes % MEBIBYTE == 0
    longest = max(settings.model_answer_timeout, settings.model_idle_timeout)
    for directive in ("proxy_read_timeout", "proxy_send_timeout", "send_timeout"):
        (seconds,) = [line.split()[1] for line in CONFIGURATION.splitlines() if line.split()[:1] == [directive]]
        assert float(seconds.rstrip("s;")) > longest
    assert f"listen {settings.port};" in CONFIGURATION


def test_a_rollout_stays_with_one_emulator_and_both_get_rollouts(shared: Plant) -> None:
    rollouts = [f"spread-{number}" for number in range(24)]
    for _ in range(3):
        for rollout in rollouts:
            assert shared.client.sample(rollout, b'{"messages": []}').status == 200
    for rollout in rollouts:
        assert sorted(len(turns) for turns in shared.turns(rollout)) == [0, 3]
    assert len({shared.emulator_of(rollout) for rollout in rollouts}) == 2


def test_what_each_emulator_has_of_its_own_is_that_of_one_of_them(shared: Plant) -> None:
    def visit(path: str, body: bytes = b"", method: str = "POST") -> bytes:
        reply = shared.another_client().call(path, body, {}, method)
        assert reply.status == 200
        return reply.body

    visit("/_emulator/faults", b'{"kind": "drop", "when": "after", "operation": "CompleteRollout"}')
    seen = {visit("/_emulator/faults", method="GET") for _ in range(12)}
    visit("/_emulator/faults", method="DELETE")
    assert len(seen) == 1
    assert b'"drop"' in seen.pop()


def test_a_job_finds_its_data_whichever_emulator_does_it(postgresql_database: DatabaseURL, tmp_path: Path) -> None:
    """They ask for S3, logs and model packages where everybody does."""
    proxy, *ports = (free_port() for _ in range(3))
    variables = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy}",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
    }
    with ExitStack() as stack:
        everybody = AWS(Reached(stack.enter_context(nginx([f"127.0.0.1:{port}" for port in ports], tmp_path, proxy))))
        emulators = [
            stack.enter_context(
                serving_process(
                    postgresql_database, "scripted", log=tmp_path / f"{port}.log", port=port,
                    options=["--agent", "python:tests.jobs.agents:good"], environment=variables,
                )
            )
            for port in ports
        ]  # fmt: skip
        everybody.prepare()
        for number, emulator in enumerate(emulators):
            AWS(emulator).create(training(), f"job-{number}")
            job = everybody.ended(f"job-{number}")
            assert (job["JobStatus"], job["FailureReason"]) == ("Completed", "")
            assert everybody.log(f"job-{number}")[-1] == "Job completed"


@pytest.mark.parametrize("path", [STREAM, CHAT])
def test_a_stream_comes_through_event_by_event(path: str, shared: Plant) -> None:
    shared.gates = [Gate() for _ in EVENTS]
    shared.gates[0].open()
    response = shared.client.begin(path, b'{"stream": true}', shared.client.sample_headers(f"streamed-{path}"))
    for gate, event in zip(shared.gates, EVENTS, strict=True):
        gate.open()
        assert response.read(len(event)) == event
    assert response.read() == b""


def test_a_client_that_leaves_in_the_middle_is_noticed_behind_the_proxy(shared: Plant) -> None:
    shared.gates = [Gate() for _ in EVENTS]
    shared.gates[0].open()
    client = shared.another_client()
    response = client.begin(STREAM, b'{"stream": true}', client.sample_headers("left"))
    assert response.read(len(EVENTS[0])) == EVENTS[0]
    response.close()
    client.close()
    eventually(lambda: any(shared.turns("left")), "the turn")
    (turn,) = shared.turns("left")[shared.emulator_of("left")]
    assert (turn.status, turn.response) == (TurnStatus.ABORTED, EVENTS[0])


def test_a_body_of_32_mebibytes_comes_through_byte_for_byte(shared: Plant) -> None:
    body = b'{"messages": ["%b"]}' % (b"0123456789abcdef" * (2 * MEBIBYTE))
    assert len(body) > 32 * MEBIBYTE
    reply = shared.client.sample("large", body)
    assert reply.body == b'{"you sent": %d}' % len(body)
    (turn,) = shared.turns("large")[shared.emulator_of("large")]
    assert turn.request == body


def test_a_body_that_is_too_large_is_refused_as_the_emulator_would(shared: Plant) -> None:
    client = shared.another_client()
    headers = client.sample_headers("too-large") | {"Content-Length": str(Settings().max_request_bytes + 1)}
    check_error(client.call(SAMPLE, b"{}", headers), 400, "ValidationException")


@pytest.mark.parametrize("path", [SAMPLE, CHAT])
def test_answers_and_errors_of_the_emulator_come_through_as_they_are(path: str, shared: Plant) -> None:
    (_, direct, _), _ = shared.emulators
    its_own = {"date", "server", "connection", "x-amzn-requestid"}
    with RawClient(direct, JOB_ARN) as client:
        for headers in (client.sample_headers("the-same"), {}):
            through, same = (each.call(path, b"{}", headers) for each in (shared.client, client))
            assert (through.status, through.body) == (same.status, same.body)
            assert through.headers.keys() - its_own == same.headers.keys() - its_own
            assert through.headers["x-amzn-requestid"]


def test_the_emulators_own_pages_know_the_visitor_by_the_name_that_was_asked_for(shared: Plant) -> None:
    def visit(**headers: str) -> int:
        return shared.another_client().call("/_emulator/health", headers=headers, method="GET").status

    assert visit() == 200
    assert visit(Host="evil.example") == 403
    assert visit(Origin="http://evil.example") == 403
    assert visit(**{"X-Forwarded-For": "192.0.2.7"}) == 403  # before nginx was another proxy, and somebody else


def test_strict_authentication_holds_behind_the_proxy(tmp_path: Path) -> None:
    options = ["--host", "0.0.0.0", "--auth", "strict", "--key-pair", KEY_PAIR]
    with plant(tmp_path, *options) as own:
        check_error(own.client.sample("unsigned", b"{}"), 403, "AccessDeniedException")
        with runtime_client(own.url) as signing:
            signed = signing.sample(JobArn=JOB_ARN, TrajectoryId="signed", Body=b"{}")
            assert signed["Body"].read() == b'{"you sent": 2}'
        assert own.client.call("/_emulator/info", method="GET").status == 200
        stranger = own.client.call("/_emulator/info", headers={"X-Forwarded-For": "192.0.2.7"}, method="GET")
        assert (stranger.status, stranger.error) == (403, "AccessDeniedException")


def test_when_an_emulator_is_killed_the_other_one_answers_and_no_sample_is_taken_twice(tmp_path: Path) -> None:
    clients = 8
    with plant(tmp_path) as own:

        def rollout(number: int) -> list[tuple[bytes, int]]:
            client = own.another_client()
            outcomes = []
            for turn in range(4):
                body = b'{"messages": [], "name": "%d-%d"%b}' % (number, turn, b', "waits": 1' if turn == 1 else b"")
                reply = client.sample(f"rollout-{number}", body)
                if reply.status != 200:
                    check_error(reply, 500, "InternalServiceError")
                outcomes.append((body, reply.status))
            return outcomes

        with ThreadPoolExecutor(clients) as pool:
            rollouts = [pool.submit(rollout, number) for number in range(clients)]
            own.model.wait_for_requests(2 * clients)  # all wait for the answer to their second one
            own.kill(0)
            own.gate.open()
        taken = Counter(exchange.body for exchange in own.model.requests)
        assert set(taken.values()) == {1}
        for number, outcomes in enumerate(rollout.result() for rollout in rollouts):
            first, second = own.turns(f"rollout-{number}")
            assert [body for body, status in outcomes if status == 200] == [
                turn.request for turn in (*first, *second) if turn.status is TurnStatus.COMPLETED
            ]
            assert (outcomes[1][1] != 200) == bool(first)  # under way where it was killed
            assert outcomes[-1][1] == 200
        for _ in range(4):
            check_error(own.client.call(COMPLETE, b"{}"), 400, "ValidationException")  # the other one's


def test_when_no_emulator_is_there_the_error_is_one_of_the_service(tmp_path: Path) -> None:
    with plant(tmp_path) as own:
        own.kill(0)
        own.kill(1)
        for _ in range(3):
            check_error(own.client.sample("nobody", b"{}"), 500, "InternalServiceError")
        assert own.model.requests == []


def test_a_stream_whose_emulator_is_killed_breaks_off(tmp_path: Path) -> None:
    with plant(tmp_path) as own:
        assert own.client.sample("broken", b"{}").status == 200
        own.gates[0].open()
        response = own.client.begin(STREAM, b'{"stream": true}', own.client.sample_headers("broken"))
        assert response.read(len(EVENTS[0])) == EVENTS[0]
        own.kill(own.emulator_of("broken"))
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            response.read()
        for gate in own.gates:
            gate.open()
        assert own.another_client().sample("broken", b'{"stream": true}', STREAM).body == b"".join(EVENTS)
        assert own.another_client().sample("broken", b"{}").body == b'{"you sent": 2}'
