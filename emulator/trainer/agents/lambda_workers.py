"""Execution environments of a Lambda function: as many processes as there are invocations at once, kept for the next.

No Docker: a worker is a Python of the emulator's own kind, with all that is installed there.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

#: Execution environments at once; more invocations wait for one. Each is a Python with all that the function imports.
MAX_WORKERS = 16

#: Seconds that a function's module may take to be imported.
INIT_TIMEOUT = 60.0

#: Seconds without an invocation after which an execution environment is given up.
IDLE_TIMEOUT = 120.0

#: Seconds that the last of an invocation's output is waited for; it comes at once if the function left it open.
OUTPUT_TIMEOUT = 1.0

_WORKER = Path(__file__).with_name("lambda_worker.py")

#: The longest line that comes from a worker: Lambda's answers have 6 MB at most, and escapes make them longer.
_LINE = 32 * 1024 * 1024

#: Seconds in which what an ended worker has printed is shown.
LAST_LINES = 2.0


@dataclass(frozen=True, slots=True)
class Function:
    """A function's code, and how it is run."""

    name: str
    arn: str
    folder: str  #: stands first in the path
    source: str  #: a module, or a Python file's path
    handler: str  #: empty: lambda_handler or handler
    environment: Mapping[str, str]  #: all that a worker gets, but for the names of its log
    timeout: float  #: seconds that an invocation may take
    memory: int = 512  #: in MB: told to the function, not enforced
    version: str = "$LATEST"
    directory: str | None = None  #: to work in; None: the server's own


@dataclass(frozen=True, slots=True)
class Invocation:
    """What came of an invocation."""

    request_id: str
    answer: Any  #: JSON
    error: Mapping[str, Any] | None  #: as the function answers with it
    problem: str | None  #: the error, for people
    lines: list[str]  #: that it has printed
    log_stream: str
    seconds: float


@dataclass(eq=False, slots=True)
class _Worker:
    """One execution environment, which serves one invocation at a time."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log_stream: str
    lines: list[str] = field(default_factory=list)  #: printed since the last invocation ended
    output_ended: asyncio.Event = field(default_factory=asyncio.Event)
    showing: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None

    async def answer(self) -> dict[str, Any] | None:
        """The next thing that it says; None if it is gone."""
        try:
            line = await self.reader.readline()
        except (OSError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        said: dict[str, Any] = json.loads(line)
        with suppress(TimeoutError):
            async with asyncio.timeout(OUTPUT_TIMEOUT):
                await self.output_ended.wait()
        return said

    async def end(self) -> None:
        """Kill it, and whatever it has started; all that it has printed is shown."""
        if self.expiry is not None:
            self.expiry.cancel()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.writer.close()
        assert self.showing is not None
        waiting = asyncio.ensure_future(self.process.wait()), self.showing
        _, late = await asyncio.wait(waiting, timeout=LAST_LINES)
        if late:  # somebody who has left its group holds its output open
            self.process._transport.close()  # type: ignore[attr-defined]  # there is no public way to
            await asyncio.wait(waiting)


class InitFailed(Exception):
    """A function cannot be imported; the message is for people."""

    def __init__(self, error: Mapping[str, Any], problem: str, lines: list[str], log_stream: str) -> None:
        super().__init__(problem)
        self.error = error  #: as the function answers with it
        self.lines = lines
        self.log_stream = log_stream


class LambdaWorkers:
    """The execution environments of one function. Belongs to one event loop."""

    def __init__(self, function: Function, show: Callable[[str], None] | None = None) -> None:
        """`show` takes each line as it is printed."""
        self.function = function
        self._show = show
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._places = asyncio.Semaphore(MAX_WORKERS)
        self._ending: set[asyncio.Task[None]] = set()
        self._is_retired = False

    async def start(self, patience: float) -> str | None:
        """Import the function once; what is wrong with it, or nothing."""
        try:
            async with asyncio.timeout(patience):
                self._keep(await self._start_worker())
        except TimeoutError:
            return f"the Lambda function was not imported within {patience:g} s"
        except InitFailed as failed:
            return str(failed)
        return None

    async def invoke(self, event: Any) -> Invocation:
        """Invoke it, when there is a place for it. Whoever is cancelled while the handler runs ends its process."""
        async with self._places:
            request_id, began_at = str(uuid4()), time.monotonic()
            try:
                worker = self._take() or await self._start_worker()
            except InitFailed as failed:
                seconds = time.monotonic() - began_at
                return Invocation(
                    request_id, None, failed.error, str(failed), failed.lines, failed.log_stream, seconds
                )  # fmt: skip
            began_at = time.monotonic()
            try:
                said = await self._ask(worker, event, request_id)
            except BaseException:
                await self._end(worker)
                raise
            if "gone" in said:
                await self._end(worker)
            lines, worker.lines = worker.lines, []
            if "gone" not in said:
                self._keep(worker)
            error, seconds = said.get("error"), time.monotonic() - began_at
            return Invocation(
                request_id, said.get("answer"), error, said.get("gone") or (error and _raised(error)), lines,
                worker.log_stream, seconds,
            )  # fmt: skip

    def retire(self) -> None:
        """Keep no worker after its invocation: the function has changed, or is gone."""
        self._is_retired = True
        while (worker := self._take()) is not None:
            self._give_up(worker)

    async def aclose(self) -> None:
        """End the processes."""
        for worker in list(self._workers):
            await self._end(worker)
        await asyncio.gather(*self._ending)

    async def _ask(self, worker: _Worker, event: Any, request_id: str) -> dict[str, Any]:
        """`answer` or `error`; and why the worker is `gone`, if it is."""
        function = self.function
        worker.output_ended.clear()
        document = {"event": event, "id": request_id, "seconds": function.timeout, "arn": function.arn}
        worker.writer.write(json.dumps(document).encode() + b"\n")
        try:
            async with asyncio.timeout(function.timeout):
                said = await worker.answer()
        except TimeoutError:
            message = f"RequestId: {request_id} Error: Task timed out after {function.timeout:.2f} seconds"
            return {
                "error": {"errorType": "Sandbox.Timedout", "errorMessage": message},
                "gone": f"the Lambda function timed out after {function.timeout:g} s",
            }
        if said is None:
            status = await worker.process.wait()
            message = f"RequestId: {request_id} Error: Runtime exited with error: {_exit(status)}"
            return {
                "error": {"errorType": "Runtime.ExitError", "errorMessage": message},
                "gone": f"the Lambda function's process ended with status {status}",
            }
        return said

    def _take(self) -> _Worker | None:
        if not self._idle:
            return None
        worker = self._idle.pop()
        if worker.expiry is not None:
            worker.expiry.cancel()
            worker.expiry = None
        return worker

    def _keep(self, worker: _Worker) -> None:
        if self._is_retired:
            self._give_up(worker)
            return
        self._idle.append(worker)
        worker.expiry = asyncio.get_running_loop().call_later(IDLE_TIMEOUT, self._expire, worker)

    def _expire(self, worker: _Worker) -> None:
        self._idle.remove(worker)
        self._give_up(worker)

    def _give_up(self, worker: _Worker) -> None:
        task = asyncio.create_task(self._end(worker))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        await worker.end()

    async def _start_worker(self) -> _Worker:
        """A worker that has imported the function. Raises InitFailed."""
        function = self.function
        log_stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid4().hex}"
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-uP", str(_WORKER), str(theirs.fileno()),
                function.folder, function.source, function.handler,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),), env={**function.environment, "AWS_LAMBDA_LOG_STREAM_NAME": log_stream},
                cwd=function.directory, limit=_LINE, start_new_session=True,
            )  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE)
        worker = _Worker(process, reader, writer, log_stream)
        worker.showing = asyncio.create_task(self._read_output(worker))
        self._workers.add(worker)
        said: dict[str, Any] | None
        try:
            async with asyncio.timeout(INIT_TIMEOUT):
                said = await worker.answer()
        except TimeoutError:
            problem = f"the Lambda function was not imported within {INIT_TIMEOUT:g} s"
            said = {"error": {"errorType": "Sandbox.Timedout", "errorMessage": problem}}
        except BaseException:
            await self._end(worker)
            raise
        if said is not None and "error" not in said:
            return worker
        if said is not None:
            await self._end(worker)
            raise InitFailed(said["error"], _raised(said["error"]), worker.lines, log_stream)
        status = await process.wait()
        await self._end(worker)
        message = f"Error: Runtime exited with error: {_exit(status)}"
        error = {"errorType": "Runtime.ExitError", "errorMessage": message}
        raise InitFailed(error, f"the Lambda function's process ended with status {status}", worker.lines, log_stream)

    async def _read_output(self, worker: _Worker) -> None:
        """Take what a worker prints, line by line."""
        assert worker.process.stdout is not None
        while True:
            try:
                line = await worker.process.stdout.readline()
            except ValueError:  # a line without end: what came of it is dropped
                continue
            if not line:
                return
            text, ends, _ = line.rstrip(b"\r\n").partition(b"\0")
            if text or not ends:
                said = text.decode(errors="replace").rstrip()
                worker.lines.append(said)
                if self._show is not None:
                    self._show(said)
            if ends:
                worker.output_ended.set()


def _exit(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal: {signal.Signals(-status).name}"


def _raised(error: Mapping[str, Any]) -> str:
    return f"the agent raised {error['errorType']}: {error['errorMessage']}"
