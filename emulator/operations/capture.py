"""Taking a turn: ask the model, pass its answer on byte for byte, and have it stored before its last byte leaves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from emulator.inference.model_server import ModelAnswer, ModelRequest, ModelServerError
from emulator.operations.runtime import Runtime, aws_errors
from emulator.protocol.answer import BrokenStream, Write
from emulator.protocol.errors import (
    AWSError,
    InternalServiceError,
    ThrottlingException,
    ValidationException,
)
from emulator.store import OpenTrajectory, now
from emulator.trajectory import TurnStatus

EVENT_STREAM = "text/event-stream"

#: How OpenAI-style streams say that they are over. A client may stop reading here, so this waits for the commit.
DONE = re.compile(rb"[\r\n]data: ?\[DONE\]")


class AnswerTooLarge(Exception):
    """The model's answer is larger than may be captured."""


async def at_most(limit: int, answer: ModelAnswer) -> AsyncIterator[bytes]:
    """The pieces of an answer. Raises AnswerTooLarge before the one with which there would be too much."""
    size = 0
    async for piece in answer:
        size += len(piece)
        if size > limit:
            raise AnswerTooLarge(
                f"The model's answer is larger than {limit} bytes; --max-answer-bytes sets another limit"
            )
        yield piece


async def take_turn(runtime: Runtime, *, job_arn: str, trajectory_id: str, path: str, body: bytes) -> Capture:
    """Ask the model for a turn of the trajectory; returns when its answer begins.

    Turns are numbered in the order in which their requests had wholly arrived.

    Raises ValidationException (sealed, unknown job), ResourceNotFoundException (unknown trajectory, where they have
    to be registered), ThrottlingException (too many in flight), InternalServiceError (no answer; not stored).
    """
    if runtime.in_flight >= runtime.max_in_flight:
        raise ThrottlingException(f"{runtime.in_flight} samples are in flight; --max-in-flight sets another limit")
    runtime.in_flight += 1
    try:
        with aws_errors(invalid_transition=ValidationException):
            trajectory, number = await runtime.store.begin_turn(job_arn, trajectory_id)
    except BaseException:
        runtime.in_flight -= 1
        raise
    capture = Capture(runtime, ModelRequest(path, body), trajectory, number)
    await capture._ask()
    return capture


class Capture:
    """One turn under way, begun by `take_turn`. Either `read` or `relay` ends it, whatever happens."""

    def __init__(self, runtime: Runtime, request: ModelRequest, trajectory: OpenTrajectory, number: int) -> None:
        self._runtime = runtime
        self._request = request
        self._trajectory = trajectory
        self._number = number
        self._arrived_at = now()
        self._first_byte_at: int | None = None
        self._pieces: list[bytes] = []
        self._tail = b"\n"  # of what was written, where the event that ends the stream may have begun
        self._answer: ModelAnswer | None = None

    @property
    def status(self) -> int:
        """The HTTP status of the model's answer."""
        assert self._answer is not None
        return self._answer.status

    @property
    def content_type(self) -> str | None:
        """The content type of the model's answer, as it was sent."""
        assert self._answer is not None
        return self._answer.headers.get("content-type")

    @property
    def is_event_stream(self) -> bool:
        """Whether the model answers with server-sent events."""
        return (self.content_type or "").partition(";")[0].strip().lower() == EVENT_STREAM

    @property
    def is_success(self) -> bool:
        """Whether the model did what it was asked for."""
        return 200 <= self.status < 300

    @property
    def retry_after(self) -> str | None:
        """When the model server wants to be asked again, in its own words."""
        assert self._answer is not None
        return self._answer.headers.get("retry-after")

    async def read(self) -> bytes:
        """The whole answer, which is stored when this returns.

        Raises InternalServiceError if the answer breaks off, is too large, or cannot be stored.
        """
        try:
            with self._released():
                async for _ in self._arriving():
                    pass
        except (ModelServerError, AnswerTooLarge) as error:
            await self._end(TurnStatus.FAILED, str(error))
            raise InternalServiceError(str(error)) from error
        except asyncio.CancelledError:
            await self._end(TurnStatus.ABORTED)
            raise
        await self._end(TurnStatus.COMPLETED if self.is_success else TurnStatus.FAILED)
        return b"".join(self._pieces)

    async def relay(self, write: Write) -> None:
        """Write the answer as it arrives; its last bytes are written when it is stored.

        Raises BrokenStream if the answer breaks off, is too large, or cannot be stored.
        """
        held: list[bytes] = []
        holds_last = not self.is_event_stream
        try:
            with self._released():
                async for piece in self._arriving():
                    if holds_last:  # any piece may be the last, and complete what a client can act on
                        if held:
                            await write(held.pop())
                        held.append(piece)
                    elif held or self._says_done(piece):
                        held.append(piece)
                    else:
                        await write(piece)
        except (ModelServerError, AnswerTooLarge) as error:
            await self._end(TurnStatus.FAILED, str(error))
            raise BrokenStream(str(error)) from error
        except asyncio.CancelledError:
            await self._end(TurnStatus.ABORTED)
            raise
        try:
            await self._end(TurnStatus.COMPLETED)
        except AWSError as error:
            raise BrokenStream(error.message) from error
        for piece in held:
            await write(piece)

    async def _ask(self) -> None:
        """Send the request and wait for the head of the answer. Raises InternalServiceError."""
        try:
            self._answer = await self._runtime.model_server.send(self._request)
        except ModelServerError as error:
            await self._end(TurnStatus.FAILED, str(error))
            raise InternalServiceError(str(error)) from error
        except asyncio.CancelledError:
            await self._end(TurnStatus.ABORTED)
            raise

    async def _arriving(self) -> AsyncIterator[bytes]:
        assert self._answer is not None
        async for piece in at_most(self._runtime.max_answer_bytes, self._answer):
            if self._first_byte_at is None:
                self._first_byte_at = now()
            self._pieces.append(piece)
            yield piece

    def _says_done(self, piece: bytes) -> bool:
        text = self._tail + piece
        self._tail = text[-16:]
        return DONE.search(text) is not None

    @contextmanager
    def _released(self) -> Iterator[None]:
        """Let go of the model's answer at the end; if that is early, the model stops its work."""
        assert self._answer is not None
        try:
            yield
        finally:
            self._answer.close()

    async def _end(self, status: TurnStatus, error: str | None = None) -> None:
        self._runtime.in_flight -= 1
        with aws_errors():
            await self._runtime.store.end_turn(
                self._trajectory,
                self._number,
                status=status,
                path=self._request.path,
                request=self._request.body,
                response=b"".join(self._pieces),
                http_status=self._answer.status if self._answer else None,
                content_type=self.content_type if self._answer else None,
                error=error,
                arrived_at=self._arrived_at,
                first_byte_at=self._first_byte_at,
                ended_at=now(),
            )
