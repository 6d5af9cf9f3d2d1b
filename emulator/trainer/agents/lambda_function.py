"""A Lambda function on this machine: as many worker processes as there are invocations at once, kept for the next."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from emulator.trainer.agents import AgentContext, AgentFailed
from emulator.trainer.agents.answers import check_document, shortened

#: Execution environments at once; more invocations wait for one. Each is a Python with all that the function imports.
MAX_WORKERS = 16

#: Seconds that a function's module may take to be imported.
INIT_TIMEOUT = 60.0

_WORKER = Path(__file__).with_name("lambda_worker.py")

#: The longest line that comes from a worker: Lambda's answers have 6 MB at most, and escapes make them longer.
_LINE = 32 * 1024 * 1024

#: Seconds in which what an ended worker has printed is shown.
LAST_LINES = 2.0


class _Worker:
    """One execution environment, which serves one invocation at a time."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        showing: asyncio.Task[None],
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._showing = showing

    async def answer(self) -> dict[str, Any]:
        """The next thing that it says. Raises AgentFailed if it is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError) as error:
            raise AgentFailed(f"the Lambda function's answer cannot be read: {error}") from None
        if not line.endswith(b"\n"):
            status = await self.process.wait()
            raise AgentFailed(f"the Lambda function's process ended with status {status}")
        said: dict[str, Any] = json.loads(line)
        if raised := said.get("error"):
            text = f"{raised['errorType']}: {raised['errorMessage']}"
            raise AgentFailed(f"the agent raised {shortened(text)}")
        return said

    async def ask(self, document: Mapping[str, Any]) -> Any:
        """Invoke the handler. Raises AgentFailed."""
        self._writer.write(json.dumps(document).encode() + b"\n")
        return (await self.answer()).get("answer")

    async def end(self) -> None:
        """Kill it, with what it has started; all that it has printed is shown."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._writer.close()
        waiting = asyncio.ensure_future(self.process.wait()), self._showing
        _, late = await asyncio.wait(waiting, timeout=LAST_LINES)
        if late:  # somebody who has left its group holds its output open
            self.process._transport.close()  # type: ignore[attr-defined]  # there is no public way to
            await asyncio.wait(waiting)


class LambdaFunction:
    """`FILE.py[:HANDLER]`, or `MODULE:HANDLER` from the working directory."""

    #: It may have handed its work to somebody else.
    answers_when_done = False

    def __init__(self, target: str, context: AgentContext) -> None:
        """Raises ValueError."""
        source, _, handler = target.partition(":")
        if not source or (not handler and not source.endswith(".py")):
            raise ValueError("a Lambda function is named like lambda:FILE.py[:HANDLER] or lambda:MODULE:HANDLER")
        path = Path(source).absolute()
        if source.endswith(".py") and not path.is_file():
            raise ValueError(f"there is no file {source}")
        is_file = source.endswith(".py")
        self._source = (str(path.parent), str(path)) if is_file else (str(Path.cwd()), source)
        self._name = path.stem if is_file else source
        self._handler = handler
        self._context = context
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._places = asyncio.Semaphore(MAX_WORKERS)

    async def start(self, patience: float) -> None:
        """Import it once, so that what is wrong with it is known before the first rollout. Raises AgentFailed."""
        try:
            async with asyncio.timeout(patience):
                self._idle.append(await self._start_worker())
        except TimeoutError:
            raise AgentFailed(f"the Lambda function was not imported within {patience:g} s") from None

    async def roll_out(self, request: Mapping[str, Any], trajectory_id: str) -> None:  # noqa: ARG002 - of no use to Lambda
        """Invoke it. Whoever is cancelled while the handler runs ends its process. Raises AgentFailed."""
        async with self._places:
            seconds = self._context.timeout
            worker = self._idle.pop() if self._idle else await self._start_worker()
            try:
                async with asyncio.timeout(seconds):
                    answer = await worker.ask({"event": request, "id": str(uuid4()), "seconds": seconds})
            except TimeoutError:
                await self._end(worker)
                raise AgentFailed(f"the Lambda function timed out after {seconds:g} s") from None
            except AgentFailed:
                # One that raised serves on, as at Lambda; one that has gone does not.
                if worker.process.returncode is None:
                    self._idle.append(worker)
                else:
                    await self._end(worker)
                raise
            except BaseException:
                await self._end(worker)
                raise
            self._idle.append(worker)
        check_document(answer)

    async def aclose(self) -> None:
        """End the processes."""
        for worker in list(self._workers):
            await self._end(worker)

    async def _end(self, worker: _Worker) -> None:
        self._workers.discard(worker)
        await worker.end()

    async def _start_worker(self) -> _Worker:
        """An execution environment that has imported the function. Raises AgentFailed."""
        ours, theirs = socket.socketpair()
        environment = os.environ | dict(self._context.environment) | {"AWS_LAMBDA_FUNCTION_NAME": self._name}
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-uP", str(_WORKER), str(theirs.fileno()), *self._source, self._handler,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(),), env=environment, limit=_LINE, start_new_session=True,
            )  # fmt: skip
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE)
        worker = _Worker(process, reader, writer, asyncio.create_task(self._show(process)))
        self._workers.add(worker)
        try:
            async with asyncio.timeout(INIT_TIMEOUT):
                await worker.answer()
        except TimeoutError:
            await self._end(worker)
            raise AgentFailed(f"the Lambda function was not imported within {INIT_TIMEOUT:g} s") from None
        except BaseException:
            await self._end(worker)
            raise
        return worker

    async def _show(self, process: asyncio.subprocess.Process) -> None:
        """Show what a worker prints, line by line."""
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # a line without end: what came of it is dropped
                continue
            if not line:
                return
            self._context.show(f"[{self._name}] {line.decode(errors='replace').rstrip()}")
