"""What the scripted model answers: the objects that rules, rule files and functions give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

#: Where the text of a stream is cut into chunks.
Unit = Literal["token", "character", "word", "line", "all"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. Arguments are an object, or JSON text, which is sent as it is, broken or not."""

    name: str
    arguments: str | Mapping[str, Any] = "{}"
    id: str | None = None  #: given when it is written, if not here


@dataclass(frozen=True, slots=True)
class Error:
    """An error of the model server; what is left out is what vLLM or OpenAI say with that status. Raises ValueError."""

    status: int = 500
    message: str | None = None
    type: str | None = None
    code: str | None = None  #: OpenAI's; vLLM repeats the status
    param: str | None = None
    retry_after: str | float | None = None  #: the header, in seconds or as an HTTP date
    style: Literal["vllm", "openai"] = "vllm"

    def __post_init__(self) -> None:
        if type(self.status) is not int or not 400 <= self.status <= 599:
            raise ValueError(f"status: {self.status!r} is not that of an error, from 400 to 599")


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How a stream comes: `size` units a chunk, seconds before the first one and between two. Raises ValueError."""

    by: Unit = "token"
    size: int = 1
    first: float = 0.0
    pause: float = 0.0

    def __post_init__(self) -> None:
        if self.by not in get_args(Unit):
            raise ValueError(f"by: {self.by!r} is none of {', '.join(get_args(Unit))}")
        if self.size < 1:
            raise ValueError(f"size: {self.size!r} is not at least 1")


@dataclass(frozen=True, slots=True)
class Reply:
    """What is said in one choice, before `stop` and `max_tokens` of the request cut it, and how it is sent.

    Of the choices of one answer, the first with an error decides; delay and rhythm are the first choice's.
    """

    content: str | None = None
    tool_calls: Sequence[ToolCall] = ()
    reasoning: str | None = None
    finish_reason: str | None = None  #: by default `tool_calls` if there are some, else `stop`
    logprobs: float | Sequence[float] | None = None  #: of every token, or one by one; what is not given is made up
    error: Error | None = None  #: instead of all that is above
    delay: float = 0.0  #: seconds until the answer begins
    rhythm: Rhythm | None = None
    max_tokens: int | None = None  #: ends it after so many tokens, with `length`
    break_after: int | None = None  #: a stream breaks off after so many tokens; another answer in the middle
    template: bool = False  #: the texts in it are templates (see `template`)
