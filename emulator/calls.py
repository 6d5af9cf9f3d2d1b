"""One request from its arrival to the end of its answer: what the metrics, its spans and its log lines say of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from random import Random
from time import perf_counter

from starlette.types import Scope

from emulator.conduct import MESSAGE, CallRecord, Conduct
from emulator.metrics import Metrics
from emulator.tracing import Spans, Tracing

log = logging.getLogger(__name__)

_random = Random()  # of its own: a test suite that seeds the common one shall not repeat our ids  # noqa: S311

_VERSION_4 = 0x4 << 76 | 0b10 << 62
_FREE_BITS = ~(0xF << 76 | 0b11 << 62)

#: The operation of a request for none; and of one for `/_emulator/`, which is not counted.
UNKNOWN, MANAGEMENT = "Unknown", "Management"

#: Operations whose requests ask for something new each time, which only their bodies tell apart.
SAMPLING = frozenset({"Sample", "SampleWithResponseStream", "ChatCompletions", "Completions"})

#: What `Call.code` says besides the names of AWS's errors.
OK = "ok"
CLIENT_GONE = "ClientGone"  #: the client left before its answer was whole
BROKEN_STREAM = "BrokenStream"  #: the answer had begun, and was broken off
MODEL_ERROR = "ModelError"  #: the model server's own error was passed on, as the OpenAI-style paths do


def new_request_id() -> bytes:
    """What `x-amzn-RequestId` carries: a UUID of version 4."""
    # Not uuid4, which asks the system for randomness each time; and its class takes 1.6 µs where this takes 0.6.
    digits = b"%032x" % (_random.getrandbits(128) & _FREE_BITS | _VERSION_4)
    return b"%b-%b-%b-%b-%b" % (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])


@dataclass(slots=True)
class Call:
    """A request under way. Times are those of `perf_counter`."""

    request_id: bytes
    operation: str
    arrived_at: float
    received_at: float | None = None  #: its body was whole
    asked_at: float | None = None  #: the model server was asked
    answered_at: float | None = None  #: the last of the model server's answer came, or it failed
    seconds: float | None = None  #: from its arrival to the end of its answer
    job_arn: str | None = None
    trajectory_id: str | None = None
    turn: int | None = None
    status: int | None = None
    code: str = OK
    problem: str | None = None  #: what was wrong, for the log
    reason: str | None = None  #: the exception of the domain from which the error was made, by its name
    retry_after: str | None = None  #: as the client was told
    body: bytes = b""  #: of the request, until the call is over
    is_over: bool = False
    spans: Spans | None = None

    def ask(self, method: str, path: str) -> Mapping[str, str] | None:
        """The model server is asked from now on; the headers that take the request's trace there, if it has one."""
        self.asked_at = perf_counter()
        return None if self.spans is None else self.spans.ask(method, path)

    @property
    def model_seconds(self) -> float | None:
        """How long the model server took, if it was asked."""
        return None if self.asked_at is None or self.answered_at is None else self.answered_at - self.asked_at

    @property
    def is_failure(self) -> bool:
        """Whether it is the server's fault, or the model server's, that there is no whole answer."""
        return self.code == BROKEN_STREAM or (self.status is not None and self.status >= 500)


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def find_call() -> Call | None:
    """The request that is served here, if one is."""
    call = _current.get()
    # What a connection does between two requests may still run in the context of the one before.
    return None if call is None or call.is_over else call


def current_call() -> Call:
    """The request that is served here; where none is, one that nobody looks at."""
    return find_call() or Call(b"", "", 0.0)


class Calls:
    """Opens and closes the record of each request."""

    def __init__(self, metrics: Metrics, tracing: Tracing | None) -> None:
        self.metrics = metrics
        self._tracing = tracing
        self.conduct = Conduct()

    def begin(self, operation: str, scope: Scope) -> Call:
        """A request has arrived; from now on it is what `current_call` finds here."""
        call = Call(new_request_id(), operation, perf_counter())
        _current.set(call)
        if self._tracing is not None and operation != MANAGEMENT:
            call.spans = self._tracing.begin(scope, call.request_id.decode(), is_known=operation != UNKNOWN)
        return call

    def end(self, call: Call, scope: Scope) -> None:
        """Its answer is written, or never will be."""
        ended_at = perf_counter()
        call.seconds = ended_at - call.arrived_at
        if call.operation != MANAGEMENT:
            measured = self.metrics.operations[call.operation]
            measured.codes[call.code] += 1
            if call.received_at is not None and call.code != CLIENT_GONE:  # whose times say when it left
                ours = ended_at - call.received_at
                if (model_seconds := call.model_seconds) is not None:
                    measured.model.observe(model_seconds)
                    ours -= model_seconds
                measured.added.observe(ours)
        if call.spans is not None:
            call.spans.end(
                status=call.status,
                code=call.code,
                is_error=call.is_failure or call.code == CLIENT_GONE,
                job_arn=call.job_arn,
                trajectory_id=call.trajectory_id,
                turn=call.turn,
            )
        if call.code != OK or self.conduct.trajectories:
            self._note(call, scope, ended_at)
        call.body = b""
        self._log(call, scope)
        call.is_over = True

    def _note(self, call: Call, scope: Scope, ended_at: float) -> None:
        """Remember a call that failed, and any that comes after such a one in its trajectory."""
        if call.job_arn is None or call.trajectory_id is None:
            return
        key = (call.job_arn, call.trajectory_id)
        if call.code == OK and key not in self.conduct.trajectories:
            return
        attempt = dict(scope["headers"]).get(b"amz-sdk-request", b"")
        record = CallRecord(
            operation=call.operation,
            request_id=call.request_id.decode(),
            code=call.code,
            status=call.status,
            message=call.problem and call.problem[:MESSAGE],
            reason=call.reason,
            retry_after=call.retry_after,
            same=hash((call.operation, call.body if call.operation in SAMPLING else b"")),
            is_sdk_retry=b"attempt=" in attempt and b"attempt=1" not in attempt.split(b";"),
            arrived=call.arrived_at,
            ended=ended_at,
            at=time.time_ns() // 1000 - int((ended_at - call.arrived_at) * 1e6),
        )
        self.conduct.note(key, record)

    @staticmethod
    def _log(call: Call, scope: Scope) -> None:
        level = logging.DEBUG
        if call.is_failure:
            level = logging.WARNING
        elif call.code not in {OK, CLIENT_GONE}:
            level = logging.INFO
        if log.isEnabledFor(level):
            # As it came: a path that is decoded, or a model's message, may break the line.
            path = scope["raw_path"].decode("latin-1")
            told = f": {' '.join(call.problem.split())}" if call.problem and call.is_failure else ""
            log.log(level, "%s %s %s%s", scope["method"], path, call.status or call.code, told)
