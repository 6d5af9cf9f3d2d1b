"""Execution environments of a Lambda function: as many processes as there are invocations at once, kept for the next.

No Docker: a worker is a Python of the emulator's own kind, with all that is installed there.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any
from uuid import uuid4

from emulator.trainer.agents.lambda_process import Function, Invocation, Worker

#: Execution environments at once; more invocations wait for one. Each is a Python with all that the function imports.
MAX_WORKERS = 16

#: Seconds that a function's module may take to be imported.
INIT_TIMEOUT = 60.0

#: Seconds without an invocation after which an execution environment is given up.
IDLE_TIMEOUT = 120.0


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
        self._idle: list[Worker] = []
        self._workers: set[Worker] = set()
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
            lines = worker.take_lines()
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

    async def _ask(self, worker: Worker, event: Any, request_id: str) -> dict[str, Any]:
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

    def _take(self) -> Worker | None:
        while self._idle:
            worker = self._idle.pop()
            if worker.expiry is not None:
                worker.expiry.cancel()
                worker.expiry = None
            if worker.process.returncode is None:
                return worker
            self._give_up(worker)  # it has ended meanwhile
        return None

    def _keep(self, worker: Worker) -> None:
        if self._is_retired:
            self._give_up(worker)
            return
        self._idle.append(worker)
        worker.expiry = asyncio.get_running_loop().call_later(IDLE_TIMEOUT, self._expire, worker)

    def _expire(self, worker: Worker) -> None:
        self._idle.remove(worker)
        self._give_up(worker)

    def _give_up(self, worker: Worker) -> None:
        task = asyncio.create_task(self._end(worker))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _end(self, worker: Worker) -> None:
        self._workers.discard(worker)
        await worker.end()

    async def _start_worker(self) -> Worker:
        """A worker that has imported the function. Raises InitFailed."""
        function = self.function
        worker = await Worker.start(function, self._show)
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
            raise InitFailed(said["error"], _raised(said["error"]), worker.take_lines(), worker.log_stream)
        status = await worker.process.wait()
        await self._end(worker)
        message = f"Error: Runtime exited with error: {_exit(status)}"
        error = {"errorType": "Runtime.ExitError", "errorMessage": message}
        raise InitFailed(
            error, f"the Lambda function's process ended with status {status}", worker.take_lines(), worker.log_stream
        )


def _exit(status: int) -> str:
    return f"exit status {status}" if status >= 0 else f"signal: {signal.Signals(-status).name}"


def _raised(error: Mapping[str, Any]) -> str:
    return f"the agent raised {error['errorType']}: {error['errorMessage']}"
