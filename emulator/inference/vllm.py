"""vLLM as a child process: started, watched, restarted when it dies, and ended with us."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from emulator.inference.child import end, environment_for, free_port, how_it_ended, spawn
from emulator.inference.model_server import Health, ModelAnswer, ModelRequest, ModelServer, ModelServerUnavailable

log = logging.getLogger(__name__)

OURS = frozenset({"--model", "--served-model-name", "--host", "--port", "--uds", "--api-key"})
HAS_VLLM = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"


class VLLMNotInstalled(ModelServerUnavailable):
    """The interpreter that shall run vLLM has none, or cannot be run at all."""


class VLLMServer:
    """The `ModelServer` that runs vLLM's OpenAI server on a free port of the loopback address.

    vLLM serves the model as `default`, the name that agents send, and under its own name. What vLLM prints goes to
    `log_file`. `connect` makes the client for a base URL; each life of the process gets a new port and a new client.
    A vLLM that ends is started again after `first_delay` seconds, twice as many each time up to `longest_delay`, and
    `first_delay` again once it was healthy for `steady_after`. At the end it has `grace` seconds before it is killed.

    Raises ValueError if `arguments` has an option that is ours to set.
    """

    def __init__(
        self,
        *,
        model: str,
        arguments: Sequence[str] = (),
        python: str | None = None,
        log_file: Path,
        connect: Callable[[str], ModelServer],
        first_delay: float = 1.0,
        longest_delay: float = 60.0,
        steady_after: float = 60.0,
        poll_every: float = 0.25,
        report_every: float = 5.0,
        grace: float = 10.0,
    ) -> None:
        for argument in arguments:
            option = argument.partition("=")[0].replace("_", "-")
            if option in OURS:
                raise ValueError(
                    f"leave {option} out of vLLM's arguments: the emulator sets what it needs to reach vLLM"
                )
        self._model = model
        self._arguments = tuple(arguments)
        self._python = python
        self._log_file = log_file
        self._connect = connect
        self._first_delay, self._longest_delay = first_delay, longest_delay
        self._steady_after = steady_after
        self._poll_every, self._report_every = poll_every, report_every
        self._grace = grace
        self._supervisor: asyncio.Task[None] | None = None
        self._server: ModelServer | None = None  # whom to ask; set while vLLM is healthy
        self._began = 0.0  # when this life of the process began,
        self._log_start = 0  # and where in the log
        self._ended = ""  # how the last one ended, until the next begins
        self._restart_at = 0.0

    async def start(self) -> None:
        """Begin to load the model. Raises VLLMNotInstalled, or ModelServerUnavailable if the log cannot be written."""
        await self._require_vllm()
        try:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            self._log_file.write_bytes(b"")
        except OSError as error:
            raise ModelServerUnavailable(f"{self._log_file}: {error.strerror}; --vllm-log names another file") from None
        self._began = time.monotonic()
        self._supervisor = asyncio.create_task(self._supervise())

    async def send(self, request: ModelRequest) -> ModelAnswer:
        """Hand the request to vLLM. Raises ModelServerUnavailable, saying why, while vLLM is not up."""
        if self._server is None:
            raise ModelServerUnavailable(self._why_not())
        return await self._server.send(request)

    async def health(self) -> Health:
        """Ask vLLM's `/health`, or say how far it is."""
        if self._server is None:
            return Health(False, self._why_not())
        health = await self._server.health()
        return Health(health.ready, f"vLLM: {health.detail}")

    def reset(self) -> None:
        """Nothing to forget."""

    async def aclose(self) -> None:
        """End vLLM with all its processes; returns when they are gone."""
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.wait([self._supervisor])
            self._supervisor = None

    def _why_not(self) -> str:
        if self._supervisor is None:
            return "vLLM is not running"
        now = time.monotonic()
        if not self._ended:
            return f"vLLM is starting ({now - self._began:.0f} s so far); its log is {self._log_file}"
        wait = max(0.0, self._restart_at - now)
        end = " | ".join(self._log_lines()[-3:]) or "(empty)"
        return f"vLLM {self._ended} and will be restarted in {wait:.0f} s; the end of its log ({self._log_file}): {end}"

    async def _supervise(self) -> None:
        delay = self._first_delay
        while True:
            self._began, self._ended = time.monotonic(), ""
            try:
                self._ended, healthy = await self._live()
            except OSError as error:
                self._ended, healthy = f"could not be started ({error})", 0.0
            if healthy >= self._steady_after:
                delay = self._first_delay
            self._restart_at = time.monotonic() + delay
            log.warning("%s", self._why_not())
            await asyncio.sleep(delay)
            delay = min(2 * delay, self._longest_delay)

    async def _live(self) -> tuple[str, float]:
        """One life of the process: how it ended, and for how many seconds it was healthy."""
        port = free_port()
        server = self._connect(f"http://127.0.0.1:{port}")
        sockets = tempfile.mkdtemp(prefix="vllm-")  # vLLM leaves the sockets between its processes behind
        process = await self._spawn(port, sockets)
        try:
            await server.start()
            await self._until_healthy(server, process)
            since = time.monotonic()
            if process.returncode is None:
                log.info("vLLM is ready after %.0f s", since - self._began)
                self._server = server
            return how_it_ended(await process.wait()), time.monotonic() - since
        finally:
            self._server = None
            await end(process)
            shutil.rmtree(sockets, ignore_errors=True)
            await server.aclose()

    async def _until_healthy(self, server: ModelServer, process: asyncio.subprocess.Process) -> None:
        """Poll until vLLM is healthy or has ended, and tell people how it gets on."""
        ended = asyncio.ensure_future(process.wait())
        next_report = self._began + self._report_every
        try:
            while process.returncode is None and not (await server.health()).ready:
                if (now := time.monotonic()) >= next_report:
                    next_report = now + self._report_every
                    line = (self._log_lines() or ["no word from it yet"])[-1]
                    log.info("vLLM is starting (%.0f s so far): %s", now - self._began, line)
                await asyncio.wait([ended], timeout=self._poll_every)
        finally:
            ended.cancel()

    async def _spawn(self, port: int, sockets: str) -> asyncio.subprocess.Process:
        command = [self._python or sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", self._model]
        command += ["--served-model-name", "default", self._model, "--host", "127.0.0.1", "--port", str(port)]
        with self._log_file.open("ab") as output:
            self._log_start = output.tell()
            return await spawn(
                [*command, *self._arguments],
                grace=self._grace,
                output=output,
                environment={"VLLM_RPC_BASE_PATH": sockets} | self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        environment = environment_for(self._python)
        environment.pop("VLLM_API_KEY", None)  # vLLM would ask it of us; only this machine can reach it
        return {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"} | environment

    async def _require_vllm(self) -> None:
        if self._python is None:
            installed = importlib.util.find_spec("vllm") is not None
        else:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(self._python, "-c", HAS_VLLM),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    env=self._environment(),
                )
            except OSError as error:
                raise VLLMNotInstalled(f"cannot run vLLM's Python, {self._python}: {error.strerror}") from error
            installed = await process.wait() == 0
        if not installed:
            raise VLLMNotInstalled(
                f"{self._python or sys.executable} has no vLLM. On a machine with a GPU: `pip install vllm` there. "
                "Without: `scripts/build_vllm.sh ENV_DIR MODEL_DIR`, as `make test-vllm` does, builds it for CPUs. "
                "Where that is another interpreter, name it: --vllm-python ENV_DIR/bin/python"
            )

    def _log_lines(self) -> list[str]:
        """The telling lines among the last that this life of vLLM wrote."""
        try:
            with self._log_file.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(self._log_start, size - 16384))
                return telling_lines(file.read().decode(errors="replace"))
        except OSError:
            return []


def parse_vllm(spec: str) -> tuple[str, list[str]]:
    """The model and vLLM's further arguments out of `MODEL [OPTION...]`, quoted as for a shell. Raises ValueError."""
    try:
        words = shlex.split(spec)
    except ValueError as error:
        raise ValueError(f"vllm:… cannot be read: {error}") from error  # a token may be among the arguments
    if not words or not words[0] or words[0].startswith("-"):
        raise ValueError("vllm: needs a model first, a folder or a name, as in vllm:MODEL --max-model-len 2048")
    return words[0], words[1:]


# `(EngineCore pid=37) INFO 11-21 12:02:39 [core.py:133] Initializing ...`
LOG_PREFIX = re.compile(r"(\([\w-]+ pid=\d+\) ?)?([A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?")
# Routes, warnings' source lines, pydantic's advice, nanobind's complaints when a process ends, the arguments (a
# token may be among them), and underlining.
NOISE = re.compile(
    r"\s*(Route: |warnings\.warn|For further information|non-default args|nanobind|See https|- (leaked|\.\.\.))"
    r"|[^a-zA-Z]*$"
)


def telling_lines(log: str) -> list[str]:
    """What people want to read of vLLM's log: no prefixes, no noise, nothing long or unprintable."""
    lines = (LOG_PREFIX.sub("", line, count=1) for line in log.splitlines())
    return [
        "".join(c if c.isprintable() else " " for c in line.strip()[:300]) for line in lines if not NOISE.match(line)
    ]
