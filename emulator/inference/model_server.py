"""What a model server is: the one interface behind `--model`, and the errors that it raises.

ModelServerError
├── ModelServerUnavailable   nobody answers: refused, still starting, died before it answered
├── ModelServerTimeout       it took too long to connect, to answer, or between two chunks
└── BrokenAnswer             the answer began or came, but is no HTTP, or ended too early
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol


class ModelServerError(Exception):
    """The model server gave no answer, or no whole one. The message says what happened, for people."""


class ModelServerUnavailable(ModelServerError):
    """Nobody answers there: refused, still starting, or gone before it answered."""


class ModelServerTimeout(ModelServerError):
    """The model server took longer than a time-out allows."""


class BrokenAnswer(ModelServerError):
    """What came back is not HTTP, or ended before it was whole."""


@dataclass(slots=True)  # frozen ones take 1 µs longer to make
class ModelRequest:
    """One request to a model server.

    `path` is the OpenAI-style path (`/v1/chat/completions`, `/v1/completions`, `/v1/models`); `body` travels as it is.
    `header_lines` are those that are its own: of its rollout, and of its trace. What follows them is not sent: it tells
    an embedded model server whom it answers.
    """

    path: str
    body: bytes = b""
    method: str = "POST"
    content_type: str = "application/json"
    header_lines: bytes = b""
    job_arn: str = ""
    trajectory_id: str = ""
    turn: int = 0  #: the turn's number
    instance: str | None = None  #: the row of the dataset that the rollout is about, in JSON


def header_lines(headers: Mapping[str, str]) -> bytes:
    """Header fields as they stand in a request's head. Raises ValueError for a line break in one."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if not lines.count("\r") == lines.count("\n") == len(headers):
        raise ValueError("a line break in a header of a request")
    return lines.encode("latin-1")


class ModelAnswer(Protocol):
    """An answer whose head has arrived and whose body is still on its way."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The header fields, names in lower case."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The body in the pieces in which it arrives, transfer coding removed, none of them empty.

        Raises ModelServerTimeout or BrokenAnswer when the body does not end as it should.
        """

    def close(self) -> None:
        """Let go. Called when the body was read to its end, or earlier: then the model server is made to stop.

        May be called more than once; never raises.
        """


#: Takes a piece of a body; whether the next one may follow at once, or only when a `Ready` has returned.
Take = Callable[[bytes], bool]

#: Returns when the next piece may follow.
Ready = Callable[[], Awaitable[None]]


class PushedAnswer(ModelAnswer, Protocol):
    """An answer that can do without a task that wakes for each piece."""

    async def hand_over(self, take: Take, ready: Ready) -> None:
        """Have `take` called with each piece as it arrives; returns when the body has ended.

        Raises what iteration raises, and what `take` raises.
        """


async def hand_over(answer: ModelAnswer, take: Take, ready: Ready) -> None:
    """Have `take` called with each piece of an answer's body, the way that costs least.

    Raises ModelServerTimeout or BrokenAnswer, and what `take` raises.
    """
    # Not by isinstance, which takes 10 µs to ask a protocol.
    pushed: Callable[[Take, Ready], Awaitable[None]] | None = getattr(answer, "hand_over", None)
    if pushed is not None:
        await pushed(take, ready)
        return
    async for piece in answer:
        if not take(piece):
            await ready()


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a model server can take a request now, and in a few words why, or why not."""

    ready: bool
    detail: str


class ModelServer(Protocol):
    """Whoever answers the samples."""

    async def start(self) -> None:
        """Make ready to answer; returns at once even where the model takes minutes to load (see `health`)."""

    async def send(self, request: ModelRequest) -> ModelAnswer:
        """Send a request and wait for the head of its answer, whatever its status.

        Raises ModelServerError. Cancelling it abandons the request at the model server.
        """

    async def health(self) -> Health:
        """Ask whether it can answer now. Quick; never raises."""

    def reset(self) -> None:
        """Forget what it remembers of the rollouts that it answered, if anything."""

    async def aclose(self) -> None:
        """End whatever `start` began: connections, child processes. Answers still on their way break."""
