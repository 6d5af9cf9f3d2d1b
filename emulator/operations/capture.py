"""Taking a turn: ask the model, pass its answer on byte for byte, and have it stored before its last byte leaves."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from hashlib import blake2b
from time import perf_counter
from typing import NoReturn

from emulator.calls import Call, current_call
from emulator.completion import reports_error
from emulator.inference.model_server import ModelAnswer, ModelRequest, ModelServerError, hand_over, header_lines
from emulator.operations.runtime import DOMAIN_ERRORS, Runtime, aws_error
from emulator.protocol.answer import BrokenStream, Client
from emulator.protocol.errors import (
    InternalServiceError,
    ThrottlingException,
    ValidationException,
)
from emulator.store import OpenTrajectory, Turn, now
from emulator.trajectory import TurnStatus

EVENT_STREAM = "text/event-stream"

#: How OpenAI-style streams say that they are over. A client may stop reading here, so this waits for the commit.
DONE = re.compile(rb"[\r\n]data: ?\[DONE\]")


class AnswerTooLarge(Exception):
    """The model's answer is larger than may be captured."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The model's answer is larger than {limit} bytes; --max-answer-bytes sets another limit")


@lru_cache(maxsize=10_000)
def rollout_line(job_arn: str, trajectory_id: str) -> bytes:
    """The header that names a rollout to the model server, by a digest.

    By this one vllm-router's policies keep the turns of a rollout with one model server, and with its prefix cache.
    """
    digest = blake2b(f"{job_arn}\n{trajectory_id}".encode(), digest_size=16).hexdigest()
    return header_lines({"x-session-id": digest})


async def take_turn(runtime: Runtime, *, job_arn: str, trajectory_id: str, path: str, body: bytes) -> Capture:
    """Ask the model for a turn of the trajectory; returns when its answer begins.

    Turns are numbered in the order in which their requests had wholly arrived.

    Raises ValidationException (sealed, unknown job), ResourceNotFoundException (unknown trajectory, where they have
    to be registered), ThrottlingException (too many in flight), InternalServiceError (the server is stopping; no
    answer; not stored).
    """
    metrics = runtime.metrics
    if metrics.stopping:
        raise InternalServiceError("The server is stopping")
    if metrics.in_flight >= runtime.max_in_flight:
        raise ThrottlingException(f"{metrics.in_flight} samples are in flight; --max-in-flight sets another limit")
    arrived_at = now()
    metrics.in_flight += 1
    try:
        trajectory, number = await runtime.store.begin_turn(job_arn, trajectory_id)
    except BaseException as error:
        metrics.in_flight -= 1
        if isinstance(error, DOMAIN_ERRORS):
            raise aws_error(error, invalid_transition=ValidationException) from error
        raise
    call = current_call()
    call.turn = number
    lines = rollout_line(job_arn, trajectory_id)
    if (trace := call.ask("POST", path)) is not None:
        lines += header_lines(trace)
    request = ModelRequest(
        path,
        body,
        header_lines=lines,
        job_arn=job_arn,
        trajectory_id=trajectory_id,
        turn=number,
        instance=trajectory.instance,
    )
    capture = Capture(runtime, call, request, trajectory, number, arrived_at)
    await capture.ask()
    return capture


class Capture:
    """One turn under way, begun by `take_turn`. Either `read` or `relay` ends it, whatever happens."""

    def __init__(
        self,
        runtime: Runtime,
        call: Call,
        request: ModelRequest,
        trajectory: OpenTrajectory,
        number: int,
        arrived_at: int,
    ) -> None:
        self._runtime = runtime
        self._call = call
        self._request = request
        self._trajectory = trajectory
        self._number = number
        self._arrived_at = arrived_at
        self._first_byte_at: int | None = None
        self._pieces: list[bytes] = []
        self._size = 0
        self._limit = runtime.max_answer_bytes
        self._answer: ModelAnswer | None = None
        # Of the model's answer, once `ask` has returned.
        self.status = 0  #: its HTTP status
        self.content_type: str | None = None  #: as it was sent
        self.is_success = False  #: whether the model did what it was asked for
        self.is_event_stream = False  #: whether it answers with server-sent events

    @property
    def retry_after(self) -> str | None:
        """When the model server wants to be asked again, in its own words."""
        return None if self._answer is None else self._answer.headers.get("retry-after")

    async def ask(self) -> None:
        """Send the request and wait for the head of the answer. Raises InternalServiceError."""
        try:
            answer = self._answer = await self._runtime.model_server.send(self._request)
            self.status = answer.status
            self.is_success = 200 <= answer.status < 300
            self.content_type = answer.headers.get("content-type")
            if self.content_type is not None:
                self.is_event_stream = self.content_type.partition(";")[0].strip().lower() == EVENT_STREAM
        except BaseException as failure:
            await self._fail(failure, InternalServiceError)

    async def read(self) -> bytes:
        """The whole answer, which is stored when this returns.

        Raises InternalServiceError if the answer breaks off, is too large, or cannot be stored.
        """
        try:
            async for piece in self._arriving:
                self._take(piece)
        except BaseException as failure:
            await self._fail(failure, InternalServiceError)
        return await self._end_whole()

    async def relay(self, client: Client) -> None:
        """Write the answer as it arrives; its last bytes are written when it is stored.

        Raises BrokenStream if the answer breaks off or is too large, InternalServiceError if it cannot be stored.
        """
        held: list[bytes] = []
        is_event_stream, write = self.is_event_stream, client.write
        tail = b"\n"  # of what was written, where the event that ends the stream may have begun

        def take(piece: bytes) -> bool:
            nonlocal tail
            self._take(piece)
            if is_event_stream and not held:
                text = tail + piece
                tail = text[-16:]
                # To look for the plain bytes first spares a stream two thirds of its processor time; and `in`, which
                # takes a number too, would raise and catch an error for each piece.
                if text.find(b"[DONE]") < 0 or DONE.search(text) is None:
                    return write(piece)
            held.append(piece)
            # Where there are no events, any piece may be the last, and complete what a client can act on.
            return is_event_stream or len(held) == 1 or write(held.pop(0))

        try:
            await hand_over(self._arriving, take, client.drained)
        except BaseException as failure:
            await self._fail(failure, BrokenStream)
        await self._end_whole()
        for piece in held:
            await client.drained()
            client.write(piece)

    @property
    def _arriving(self) -> ModelAnswer:
        assert self._answer is not None, "`ask` comes first"
        return self._answer

    def _take(self, piece: bytes) -> None:
        """Keep a piece of the answer. Raises AnswerTooLarge."""
        if self._first_byte_at is None:
            self._first_byte_at = now()
        self._size += len(piece)
        if self._size > self._limit:
            raise AnswerTooLarge(self._limit)
        self._pieces.append(piece)

    async def _fail(self, failure: BaseException, error: type[InternalServiceError | BrokenStream]) -> NoReturn:
        """Store the turn as it is, and raise the failure; what the model server did wrong becomes `error`."""
        received = b"".join(self._pieces)
        self._note_answered(received, failure)
        if isinstance(failure, asyncio.CancelledError):  # the client went away, or the server stops
            await self._end(TurnStatus.ABORTED, received)
        elif isinstance(failure, ModelServerError | AnswerTooLarge):
            text = f"Model server: {failure}" if isinstance(failure, ModelServerError) else str(failure)
            await self._end(TurnStatus.FAILED, received, text)
            raise error(text) from failure
        else:
            await self._end(TurnStatus.FAILED, received, f"{type(failure).__name__}: {failure}")
        raise failure

    async def _end_whole(self) -> bytes:
        """Store an answer that has wholly arrived; its bytes."""
        response = b"".join(self._pieces)
        self._note_answered(response)
        # ASSUMED: a stream that reports an error is no turn of a trajectory, although its HTTP is in order.
        failed = not self.is_success or (self.is_event_stream and reports_error(response))
        await self._end(TurnStatus.FAILED if failed else TurnStatus.COMPLETED, response)
        return response

    def _note_answered(self, response: bytes, failure: BaseException | None = None) -> None:
        """The model server's part is over."""
        self._call.answered_at = perf_counter()
        if self._call.spans is not None:
            self._call.spans.answered(
                status=self.status or None,
                error=type(failure).__name__ if failure else None,
                first_byte_at=self._first_byte_at,
                request=self._request.body,
                response=response,
                content_type=self.content_type,
            )

    async def _end(self, status: TurnStatus, response: bytes, error: str | None = None) -> None:
        """Let go of the answer, which makes the model stop if it has not, and store the turn."""
        metrics = self._runtime.metrics
        metrics.in_flight -= 1
        if self._answer is not None:
            self._answer.close()
        turn = Turn(
            trajectory=self._trajectory.id,
            number=self._number,
            status=str(status),  # drivers know no enumerations
            path=self._request.path,
            http_status=self.status or None,
            content_type=self.content_type,
            error=error and error.replace("\0", "\\0"),  # which PostgreSQL's texts cannot hold
            arrived_at=self._arrived_at,
            first_byte_at=self._first_byte_at,
            ended_at=now(),
            request=self._request.body,
            response=response,
        )
        try:
            stored = await self._runtime.store.end_turn(self._trajectory, turn)
        except DOMAIN_ERRORS as failure:
            raise aws_error(failure) from failure
        metrics.turns[stored] += 1
