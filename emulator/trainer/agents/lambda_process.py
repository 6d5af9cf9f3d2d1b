"""One execution environment of a Lambda function: its process, what it says, what it prints."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

#: Seconds that the last of an invocation's output is waited for; it comes at once if the function left it open.
OUTPUT_TIMEOUT = 1.0

_WORKER = Path(__file__).with_name("lambda_worker.py")

#: The longest line that comes from a worker: Lambda's answers have 6 MB at most, and escapes make them longer.
_LINE = 32 * 1024 * 1024

#: Characters of output that are kept until an invocation ends: a function that never stops printing must not take
#: all memory.
MOST_OUTPUT = 8 * 1024 * 1024

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
class Worker:
    """One execution environment, which serves one invocation at a time."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    lifeline: int  #: whatever it says, the process and all that it has started end
    log_stream: str
    lines: list[str] = field(default_factory=list)  #: printed since the last invocation ended
    size: int = 0  #: of all that was printed since
    dropped: int = 0  #: lines beyond MOST_OUTPUT
    output_ended: asyncio.Event = field(default_factory=asyncio.Event)
    showing: asyncio.Task[None] | None = None
    expiry: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, function: Function, show: Callable[[str], None] | None) -> Worker:
        """Start the process; the first that it says is whether it has imported the function."""
        log_stream = f"{datetime.now(UTC):%Y/%m/%d}/[{function.version}]{uuid4().hex}"
        ours, theirs = socket.socketpair()
        its_end, lifeline = os.pipe()
        writer = None
        try:
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=_LINE)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-uPB", str(_WORKER), str(theirs.fileno()), str(its_end),
                function.folder, function.source, function.handler,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
                pass_fds=(theirs.fileno(), its_end),
                env={**function.environment, "AWS_LAMBDA_LOG_STREAM_NAME": log_stream},
                cwd=function.directory, limit=_LINE, start_new_session=True,
            )  # fmt: skip
        except BaseException:
            os.close(lifeline)
            (writer or ours).close()
            raise
        finally:
            os.close(its_end)
            theirs.close()
        # Nothing is awaited from here on: whoever was cancelled then would leave it behind.
        worker = cls(process, reader, writer, lifeline, log_stream)
        worker.showing = asyncio.create_task(worker._read_output(show))
        return worker

    def keep(self, line: str) -> None:
        """Keep a line that it has printed, as long as there is room."""
        self.size += len(line) + 1
        if self.size <= MOST_OUTPUT:
            self.lines.append(line)
        else:
            self.dropped += 1

    def take_lines(self) -> list[str]:
        """What it has printed since this was asked last."""
        lines, dropped = self.lines, self.dropped
        self.lines, self.size, self.dropped = [], 0, 0
        return [*lines, f"(the emulator has dropped {dropped} more lines)"] if dropped else lines

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
        if self.lifeline >= 0:
            with suppress(OSError):
                os.write(self.lifeline, b".")  # a fork of this process may hold it open too
            os.close(self.lifeline)
            self.lifeline = -1
        self.writer.close()
        assert self.showing is not None
        waiting = asyncio.ensure_future(self.process.wait()), self.showing
        _, late = await asyncio.wait(waiting, timeout=LAST_LINES)
        if late:  # somebody who has got away, as there is no Linux, holds its output open
            with suppress(ProcessLookupError, PermissionError):
                self.process.kill()
            self.process._transport.close()  # type: ignore[attr-defined]  # there is no public way to
            await asyncio.wait(waiting)

    async def _read_output(self, show: Callable[[str], None] | None) -> None:
        """Take what it prints, line by line."""
        assert self.process.stdout is not None
        while True:
            try:
                line = await self.process.stdout.readline()
            except ValueError:  # a line without end: what came of it is dropped
                continue
            if not line:
                return
            text, ends, _ = line.rstrip(b"\r\n").partition(b"\0")
            if text or not ends:
                said = text.decode(errors="replace").rstrip()
                self.keep(said)
                if show is not None:
                    show(said)
            if ends:
                self.output_ended.set()
