"""Where MLflow is: at a URL, or a child of ours, `mlflow server`, which the first that needs it starts."""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Protocol

from emulator.inference.child import end, environment_for, free_port, how_it_ended, spawn
from emulator.settings import InvalidSetting, Settings
from emulator.trainer.http import HTTPError, Origin

log = logging.getLogger(__name__)

HAS_MLFLOW = (
    "import importlib.metadata; importlib.metadata.version('mlflow')"  # not mlflow-skinny, which serves nothing
)

#: Seconds that a child gets until it serves: 4 on a machine at rest, 25 on one that has much else to do.
PATIENCE = 120.0

#: Seconds in which an interpreter says whether it has MLflow.
PATIENCE_WITH_PYTHON = 20.0

#: Seconds between two looks whether it serves.
LOOK_EVERY = 0.1

#: Seconds after a start that failed in which nobody tries again.
PAUSE = 30.0

#: Seconds that it gets to end in good order.
GRACE = 5.0


OVER = "MLflow is ended with this server"


class MlflowError(Exception):
    """MLflow did not do what it was asked for; the message says why."""


class MlflowAway(MlflowError):
    """There is no MLflow to be asked now."""


class MlflowBusy(MlflowAway):
    """There is one, but it did not do this in time, or not now."""


class MlflowServer(Protocol):
    """An MLflow."""

    async def is_there(self) -> bool:
        """Whether there is one, or one could be started."""

    async def url(self) -> str:
        """Where it is, without a `/` at the end; starts it if need be. Raises MlflowAway."""

    async def aclose(self) -> None:
        """End what was started."""


class GivenMlflow:
    """The `MlflowServer` at a URL, which is somebody else's."""

    def __init__(self, url: str) -> None:
        """Raises ValueError, which does not quote the URL."""
        if Origin(url).query:
            raise ValueError("must have no query")
        self._url = url.rstrip("/")

    async def is_there(self) -> bool:
        """As the protocol has it."""
        return True

    async def url(self) -> str:
        """As the protocol has it."""
        return self._url

    async def aclose(self) -> None:
        """As the protocol has it."""


class ServedMlflow:
    """The `MlflowServer` that is a child of ours. One that has ended is started again by the next that needs it.

    `python`: the interpreter that has MLflow, None for our own. Runs, traces and artifacts are kept in `folder`; None:
    nowhere for longer than this server lives.
    """

    def __init__(self, folder: Path | None, python: str | None = None) -> None:
        self._kept = folder
        self._python = python
        self._temporary: Path | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._url = ""
        self._starting: asyncio.Task[None] | None = None
        self._failure, self._failed_at = "", 0.0
        self._is_over = False

    async def is_there(self) -> bool:
        """As the protocol has it."""
        try:
            await self._require_mlflow()
        except MlflowAway:
            return False
        return True

    async def url(self) -> str:
        """As the protocol has it."""
        if self._is_over:
            raise MlflowAway(OVER)
        if self._starting is None:
            if self._process is not None and self._process.returncode is None:
                return self._url
            if self._failure and time.monotonic() < self._failed_at + PAUSE:
                raise MlflowAway(self._failure)
            self._starting = asyncio.create_task(self._start())
            self._starting.add_done_callback(self._started)
        starting = self._starting
        try:
            await asyncio.shield(starting)  # one that waits and leaves does not end it for others
        except asyncio.CancelledError:
            if starting.cancelled() and not _is_cancelled():
                raise MlflowAway(OVER) from None
            raise
        return self._url

    async def aclose(self) -> None:
        """As the protocol has it."""
        self._is_over = True
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
        if self._process is not None:
            await end(self._process)
        if self._temporary is not None:
            await asyncio.to_thread(shutil.rmtree, self._temporary, ignore_errors=True)

    def _started(self, task: asyncio.Task[None]) -> None:
        self._starting = None
        self._failure = ""
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure, self._failed_at = str(error), time.monotonic()
            log.warning("%s", error)

    async def _start(self) -> None:
        """Raises MlflowAway."""
        await self._require_mlflow()
        began_at, port = time.monotonic(), free_port()
        try:
            folder = await asyncio.to_thread(self._folder)
            log_file = folder / "server.log"
            process = self._process = await self._spawn(folder, log_file, port)
        except OSError as error:
            raise MlflowAway(f"mlflow server cannot be started: {error}") from error
        self._url = f"http://127.0.0.1:{port}"
        log.info("mlflow server is starting; its log is %s", log_file)
        try:
            async with asyncio.timeout(PATIENCE):
                await _until_it_serves(self._url, process)
        except BaseException as error:
            await end(process)
            if isinstance(error, TimeoutError):
                raise MlflowAway(f"mlflow server does not serve after {PATIENCE:g} s; see {log_file}") from None
            raise
        if process.returncode is not None:
            why = await asyncio.to_thread(_last_error, log_file)
            raise MlflowAway(f"mlflow server {how_it_ended(process.returncode)}{why}; see {log_file}")
        log.info("mlflow server is ready after %.0f s", time.monotonic() - began_at)

    async def _spawn(self, folder: Path, log_file: Path, port: int) -> asyncio.subprocess.Process:
        """Raises OSError."""
        command = [self._python or sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        environment = environment_for(self._python)
        for name in [name for name in environment if name.lstrip("_").startswith("MLFLOW_")]:
            del environment[name]  # they are for MLflow's clients; some would lead the server elsewhere
        # Its jobs (evaluations in the background) are nine processes of 60 to 250 MB, which nothing here needs.
        environment |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}
        with log_file.open("wb") as output:  # an empty file
            return await spawn(command, grace=GRACE, output=output, environment=environment)

    def _folder(self) -> Path:
        """Where it keeps what it has. Raises OSError."""
        if self._kept is not None:
            if "?" in str(self._kept):
                raise OSError(f"no URL of SQLite can have the ? of {self._kept}")
            self._kept.mkdir(parents=True, exist_ok=True)
            return self._kept
        if self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="mlflow-"))
        return self._temporary

    async def _require_mlflow(self) -> None:
        """Raises MlflowAway."""
        if self._python is None:
            try:
                importlib.metadata.version("mlflow")
            except importlib.metadata.PackageNotFoundError:
                raise MlflowAway(
                    "MLflow comes with an extra: pip install 'job-runtime-local[mlflow]'; --mlflow-python names an "
                    "interpreter that has it, --mlflow URL one that runs, and --mlflow off does without"
                ) from None
            return
        try:
            process = await asyncio.create_subprocess_exec(
                *(self._python, "-c", HAS_MLFLOW),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=environment_for(self._python),
            )
        except OSError as error:
            raise MlflowAway(f"cannot run MLflow's Python, {self._python}: {error.strerror}") from error
        try:
            async with asyncio.timeout(PATIENCE_WITH_PYTHON):
                status = await process.wait()
        except TimeoutError:
            raise MlflowAway(f"{self._python} does not say whether it has MLflow") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if status:
            raise MlflowAway(f"{self._python} has no MLflow: `pip install mlflow` there")


def make_mlflow(settings: Settings) -> MlflowServer | None:
    """The MLflow that `--mlflow` names. Raises InvalidSetting."""
    match settings.mlflow:
        case "off":
            return None
        case "serve":
            return ServedMlflow(_kept_beside(settings), settings.mlflow_python)
    try:
        return GivenMlflow(settings.mlflow)
    except ValueError as error:
        raise InvalidSetting(f"mlflow: {error}") from None


def _kept_beside(settings: Settings) -> Path | None:
    """The folder beside a SQLite database; None where nothing is kept here."""
    address = settings.address
    if settings.durability == "memory" or not isinstance(address, Path):
        return None
    address = address.absolute()
    return address.with_name(f"{address.name}-mlflow")


def _last_error(log_file: Path) -> str:
    """The last error in a log, to be put into a sentence; that its database has to be upgraded, say."""
    try:
        text = log_file.read_text("utf-8", "replace")
    except OSError:
        return ""
    errors = re.findall(r"^[\w.]+(?:Error|Exception): (.+)", text, re.MULTILINE)
    return f": {errors[-1][:400]}" if errors else ""


def _is_cancelled() -> bool:
    """Whether somebody has cancelled the task that asks."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _until_it_serves(url: str, process: asyncio.subprocess.Process) -> None:
    """Returns also when it has ended."""
    ended = asyncio.ensure_future(process.wait())
    origin = Origin(url)
    try:
        while not ended.done():
            try:
                if (await origin.send("GET", "/health")).status == 200:
                    return
            except HTTPError:
                pass  # not yet
            await asyncio.wait([ended], timeout=LOOK_EVERY)
    finally:
        ended.cancel()
        await origin.aclose()
