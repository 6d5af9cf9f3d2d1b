"""vLLM as a child process, with a stand-in for the interpreter that runs it. The real one: test_vllm_real.py."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop

from emulator.inference.model_server import ModelRequest, ModelServerUnavailable
from emulator.inference.remote import RemoteServer
from emulator.inference.vllm import VLLMNotInstalled, VLLMServer, parse_vllm, telling_lines

STAND_IN = Path(__file__).with_name("stand_in_vllm.py")
CHAT = "/v1/chat/completions"
AS_THE_EMULATOR = {"posix": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def run(test: Coroutine[Any, Any, None], loop: Callable[[], asyncio.AbstractEventLoop] | None = None) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(test)


def stand_in(directory: Path, *, lacks_vllm: bool = False) -> str:
    """An executable to be named as vLLM's interpreter."""
    os.mkfifo(directory / "alive")
    if lacks_vllm:
        (directory / "lacks-vllm").touch()
    python = directory / "python"
    python.write_text(f"#!{sys.executable} -IS\n{STAND_IN.read_text()}")
    python.chmod(0o755)
    return str(python)


class Alive:
    """Our end of the stand-in's pipe."""

    def __init__(self, python: str) -> None:
        self._pipe = os.open(Path(python).with_name("alive"), os.O_RDONLY | os.O_NONBLOCK)

    def wait_for_the_end(self) -> None:
        """Return when no process holds the pipe; never, if one outlives the test."""
        os.set_blocking(self._pipe, True)
        while os.read(self._pipe, 1):
            pass
        os.close(self._pipe)


class Told(logging.Handler):
    """What the module logs, and a way to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._more = asyncio.Event()
        self._seen = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self._more.set()

    async def wait_for(self, text: str) -> str:
        """The next line with this text, after the last one that was waited for."""
        async with asyncio.timeout(20):
            while True:
                for number in range(self._seen, len(self.lines)):
                    if text in self.lines[number]:
                        self._seen = number + 1
                        return self.lines[number]
                self._more.clear()
                await self._more.wait()


@pytest.fixture
def told() -> Iterator[Told]:
    logger, handler = logging.getLogger("emulator.inference.vllm"), Told()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(level)


def vllm(python: str | None, *arguments: str, model: str = "some/model", **settings: Any) -> VLLMServer:
    """A server whose log is beside its interpreter, unless it says otherwise."""
    if python is not None:
        settings.setdefault("log_file", Path(python).with_name("vllm.log"))
    return VLLMServer(
        model=model, arguments=arguments, python=python, connect=RemoteServer, poll_every=0.02, **settings
    )


async def ask(server: VLLMServer, body: bytes = b"{}") -> Any:
    answer = await server.send(ModelRequest(CHAT, body))
    return json.loads(b"".join([piece async for piece in answer]))


@pytest.mark.parametrize("loop", AS_THE_EMULATOR.values(), ids=AS_THE_EMULATOR)
def test_it_starts_vllm_serves_through_it_and_ends_it_with_its_children(
    tmp_path: Path, told: Told, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    python = stand_in(tmp_path)
    alive = Alive(python)

    async def test() -> None:
        server = vllm(python, "--max-model-len", "2048")
        await server.start()
        await told.wait_for("vLLM is ready after ")
        assert (await server.health()).ready
        facts = await ask(server)
        await server.aclose()
        alive.wait_for_the_end()
        assert not psutil.pid_exists(facts["pid"])  # its parent reaped it
        assert not (await server.health()).ready
        with pytest.raises(ModelServerUnavailable, match="vLLM is not running"):
            await ask(server)

    run(test(), loop)


def test_vllm_serves_the_model_as_default_and_under_its_own_name(tmp_path: Path, told: Told) -> None:
    async def test() -> None:
        server = vllm(stand_in(tmp_path), "--dtype", "bfloat16", model="folder/model")
        await server.start()
        await told.wait_for("ready")
        arguments = (await ask(server))["arguments"]
        await server.aclose()
        port = arguments[arguments.index("--port") + 1]
        assert arguments == [
            *("-m", "vllm.entrypoints.openai.api_server", "--model", "folder/model"),
            *("--served-model-name", "default", "folder/model", "--host", "127.0.0.1", "--port", port),
            *("--dtype", "bfloat16"),
        ]

    run(test())


def test_while_the_model_loads_requests_are_refused_and_progress_is_told(tmp_path: Path, told: Told) -> None:
    async def test() -> None:
        loaded = tmp_path / "loaded"
        server = vllm(stand_in(tmp_path), "--loaded", str(loaded), report_every=0.05)
        await server.start()
        assert (await told.wait_for("Loading")).endswith("s so far): Loading the model")
        starting = rf"vLLM is starting \(\d+ s so far\); its log is {tmp_path}/vllm.log"
        with pytest.raises(ModelServerUnavailable, match=starting):
            await ask(server)
        health = await server.health()
        assert not health.ready
        assert health.detail.startswith("vLLM is starting")
        loaded.touch()
        await told.wait_for("ready")
        assert (await server.health()).ready
        await server.aclose()

    run(test())


def test_a_vllm_that_dies_is_restarted_and_what_it_left_behind_is_ended(tmp_path: Path, told: Told) -> None:
    async def test() -> None:
        server = vllm(stand_in(tmp_path), first_delay=0.01)
        await server.start()
        await told.wait_for("ready")
        first = await ask(server)
        orphan = psutil.Process(first["child"])
        os.kill(first["pid"], signal.SIGKILL)
        await told.wait_for("vLLM was killed by SIGKILL and will be restarted in 0 s")
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
        await told.wait_for("ready")
        assert (await ask(server))["pid"] != first["pid"]
        await server.aclose()

    run(test())


def test_a_vllm_that_keeps_failing_is_given_more_time_and_its_last_words_are_told(tmp_path: Path, told: Told) -> None:
    async def test() -> None:
        server = vllm(stand_in(tmp_path), "--fail", "no such model", first_delay=0.1, longest_delay=60)
        await server.start()
        while "restarted in 1 s" not in await told.wait_for("vLLM exited with status 3"):
            pass  # 0.1 s, 0.2 s and 0.4 s are 0 s
        words = (
            rf"vLLM exited with status 3 .* \({tmp_path}/vllm.log\): Loading the model \| ValueError: no such model$"
        )
        with pytest.raises(ModelServerUnavailable, match=words):
            await ask(server)
        assert "no such model" in (await server.health()).detail
        await server.aclose()

    run(test())


def test_a_vllm_that_ignores_sigterm_is_killed_when_its_grace_is_over(tmp_path: Path, told: Told) -> None:
    python = stand_in(tmp_path)
    alive = Alive(python)

    async def test() -> None:
        server = vllm(python, "--stubborn", "yes", grace=0.1)
        await server.start()
        await told.wait_for("ready")
        await server.aclose()
        alive.wait_for_the_end()

    run(test())


def test_vllm_is_ended_when_the_emulator_is_killed(tmp_path: Path) -> None:
    python = stand_in(tmp_path)
    alive = Alive(python)
    program = """
import asyncio, sys
from pathlib import Path
from emulator.inference.remote import RemoteServer
from emulator.inference.vllm import VLLMServer

async def main():
    server = VLLMServer(model="m", python=sys.argv[1], log_file=Path(sys.argv[2]), connect=RemoteServer)
    await server.start()
    while not (await server.health()).ready:
        await asyncio.sleep(0.02)
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""
    command = [sys.executable, "-c", program, python, str(tmp_path / "vllm.log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as emulator:
        assert emulator.stdout is not None
        assert emulator.stdout.readline() == "ready\n"
        emulator.kill()
    alive.wait_for_the_end()


def test_an_interpreter_without_vllm_is_an_error_that_says_what_to_install(tmp_path: Path) -> None:
    async def test() -> None:
        server = vllm(stand_in(tmp_path, lacks_vllm=True))
        with pytest.raises(VLLMNotInstalled, match=rf"^{tmp_path}/python has no vLLM.*pip install vllm.*--vllm-python"):
            await server.start()
        ours = vllm(None, log_file=tmp_path / "vllm.log")
        with pytest.raises(VLLMNotInstalled, match="has no vLLM"):
            await ours.start()
        await ours.aclose()

    run(test())


def test_an_interpreter_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async def test() -> None:
        server = vllm(str(tmp_path / "no-python"))
        with pytest.raises(VLLMNotInstalled, match=f"cannot run vLLM's Python, {tmp_path}/no-python: No such file"):
            await server.start()

    run(test())


def test_the_settings_of_our_interpreter_do_not_reach_another_one(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("DO_NOT_TRACK", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")

    async def test() -> None:
        server = vllm(stand_in(tmp_path))
        await server.start()
        await told.wait_for("ready")
        environment = (await ask(server))["environment"]
        await server.aclose()
        assert not {"PYTHONPATH", "PYTHONWARNINGS", "VLLM_API_KEY"} & environment.keys()
        assert environment["VLLM_NO_USAGE_STATS"] == "1"
        assert environment["DO_NOT_TRACK"] == "0"  # the user's word stands
        assert environment["OMP_NUM_THREADS"] == "2"

    run(test())


@pytest.mark.parametrize(
    "argument", ["--host", "--port=9", "--served_model_name", "--served-model-name=x", "--api-key"]
)
def test_arguments_that_are_ours_to_set_are_refused(tmp_path: Path, argument: str) -> None:
    with pytest.raises(ValueError, match="the emulator sets what it needs"):
        vllm(None, argument, "x", log_file=tmp_path / "vllm.log")


def test_the_text_after_vllm_is_read_as_a_shell_would() -> None:
    assert parse_vllm("some/model") == ("some/model", [])
    assert parse_vllm("'my folder/m' --max-model-len 2048") == ("my folder/m", ["--max-model-len", "2048"])


@pytest.mark.parametrize("spec", ["", "  ", "--max-model-len 2048", "''", "'m"])
def test_a_text_without_a_model_is_an_error(spec: str) -> None:
    with pytest.raises(ValueError, match="vllm:"):
        parse_vllm(spec)


def test_log_lines_lose_their_prefixes_and_noise_is_left_out() -> None:
    log = """(APIServer pid=6834) INFO 11-21 12:02:17 [api_utils.py:347] \t▄▄ ▄█ █
(APIServer pid=6834) INFO 11-21 12:02:17 [api_utils.py:286] non-default args: {'hf_token': 'secret'}
(EngineCore pid=6963) WARNING 11-21 12:02:28 [model.py:733] Resolved architecture: LlamaForCausalLM
(APIServer pid=6834) INFO 11-21 12:03:02 [launcher.py:195] Route: /ping, Methods: POST
    ^^^^^^^^^^
Loading shards:   0%\rLoading shards: 100%\x1b[0m
INFO:     Application startup complete.
nanobind: leaked 3 functions!
 - leaked function "push_back"
"""
    assert telling_lines(log) == [
        "Resolved architecture: LlamaForCausalLM",
        "Loading shards:   0%",
        "Loading shards: 100% [0m",
        "INFO:     Application startup complete.",
    ]
