"""What the model says in a test: replies in order, or by what is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from emulator.inference.model_server import ModelServer
from emulator.inference.scripted import (
    Error,
    NoRuleMatches,
    Reply,
    Request,
    Rhythm,
    Rule,
    Rules,
    ScriptedServer,
    ToolCall,
)
from emulator.inference.scripted.conditions import Named, Searched, Turns, Values

_SHOWN = 60


class NotScripted(Exception):
    """A reply was scripted for a model that is not the embedded one."""


class UnexpectedRequests(AssertionError):
    """The model was asked what no reply was scripted for; the message says what, and why each reply did not fit."""


class FailedReplies(AssertionError):
    """A function that scripts the model failed, its own assertion say; the message says where and how."""


class UnusedReplies(AssertionError):
    """Replies were scripted that nobody asked for; the message says which."""


class Conditions(TypedDict, total=False):
    """Which requests a reply is for; all that are named must hold. See `Rule`."""

    turn: Turns  #: 1 + how often the assistant spoke
    last: Searched  #: a regular expression, in the last message
    last_user: Searched
    last_tool: Searched
    last_json: Values  #: in the last message, read as JSON: by JSON path
    tools: Sequence[str]  #: all of these are offered
    model: Named
    trajectory: Named
    job: Named
    row: Values  #: in the dataset's row
    when: Callable[[Request], object]  #: anything else


class Model:
    """The scripted model of a test.

    Without replies the model answers as it always does. As soon as there are some, a request gets the first that is
    left and fits; one that finds none is refused (HTTP 400), and the test fails.
    """

    def __init__(self, server: ModelServer, shown: str) -> None:
        """`shown`: what `--model` names."""
        self._server = server
        self._shown = shown
        self._rules = Rules(default=self._say_otherwise)
        self._otherwise: Reply | Callable[[Request], Reply | str] | None = None

    def reply(
        self,
        content: str | None = None,
        *,
        tool_calls: Sequence[ToolCall | tuple[str, Mapping[str, Any]]] = (),
        reasoning: str | None = None,
        finish_reason: str | None = None,
        logprobs: float | Sequence[float] | None = None,
        delay: float = 0.0,
        rhythm: Rhythm | None = None,
        max_tokens: int | None = None,
        break_after: int | None = None,
        template: bool = False,
        times: int | None = 1,
        **conditions: Unpack[Conditions],
    ) -> Rule:
        """Script an answer; what it may hold, `Reply` says.

        `tool_calls`: as pairs of name and arguments, or as `ToolCall`. `times`: to so many requests; None: to all.
        Raises NotScripted, TypeError, and whatever `Rule` raises.
        """
        if content is not None and not isinstance(content, str):
            raise TypeError(
                f"a reply's content is a text, not {content!r}; functions and the like go into a Rule: `add`"
            )
        reply = Reply(
            content,
            tool_calls=tuple(map(_tool_call, tool_calls)),
            reasoning=reasoning,
            finish_reason=finish_reason,
            logprobs=logprobs,
            delay=delay,
            rhythm=rhythm,
            max_tokens=max_tokens,
            break_after=break_after,
            template=template,
        )
        return self.add(Rule(reply, name=f"reply({_told(reply)})", times=times, **conditions))

    def error(
        self,
        status: int = 500,
        message: str | None = None,
        *,
        type: str | None = None,  # noqa: A002  # as the member is called
        code: str | None = None,
        param: str | None = None,
        retry_after: str | float | None = None,
        delay: float = 0.0,
        times: int | None = 1,
        **conditions: Unpack[Conditions],
    ) -> Rule:
        """Script an error of the model server. Raises NotScripted, and whatever `Rule` raises."""
        error = Error(status, message, type=type, code=code, param=param, retry_after=retry_after)
        return self.add(Rule(Reply(error=error, delay=delay), name=f"error({status})", times=times, **conditions))

    def add(self, rule: Rule) -> Rule:
        """Add a rule of any kind: sequences, loops, chance. Raises NotScripted."""
        self._take_over()
        return self._rules.add(rule)

    def otherwise(self, reply: str | Reply | Callable[[Request], Reply | str]) -> None:
        """Say this where no reply fits; a function is given the request. Raises NotScripted."""
        self._take_over()
        self._otherwise = Reply(reply) if isinstance(reply, str) else reply

    def uses(self, rule: Rule) -> int:
        """How many requests a reply has answered."""
        return self._rules.uses(rule)

    @property
    def unused(self) -> list[Rule]:
        """The replies that are left."""
        return self._rules.unused

    def check(self, *, strict: bool = False) -> None:
        """Raises FailedReplies, UnexpectedRequests; `strict`: UnusedReplies too."""
        if failures := self._rules.failures:
            raise FailedReplies(f"a function that scripts the model failed:{_listed(failures)}")
        if self._otherwise is None and (unmatched := self._rules.unmatched):
            asked = "\n".join(f"{each.asked}{_listed(each.reasons)}" for each in unmatched)
            raise UnexpectedRequests(f"the model was asked what no scripted reply was left for:\n{asked}")
        if strict and (unused := self.unused):
            named = _listed([f"{rule}: used {self.uses(rule)} of {rule.times or 1} times" for rule in unused])
            raise UnusedReplies(f"scripted replies that nobody asked for:{named}")

    def reset(self) -> None:
        """Forget all replies, and what was asked."""
        self._otherwise = None
        self._rules.clear()
        if isinstance(self._server, ScriptedServer):
            self._server.answer_by(None)

    def _take_over(self) -> None:
        if not isinstance(self._server, ScriptedServer):
            raise NotScripted(
                f"replies are the embedded model's, and here {self._shown} answers: leave out that setting"
            )
        self._server.answer_by(self._rules)

    def _say_otherwise(self, request: Request) -> Reply | str:
        """Raises NoRuleMatches."""
        answer = self._otherwise
        if answer is None:
            unmatched = self._rules.unmatched
            raise NoRuleMatches(f"No scripted reply is left for this request{_listed(unmatched[-1].reasons)}")
        return answer if isinstance(answer, Reply) else answer(request)


def _tool_call(given: object) -> ToolCall:
    match given:
        case ToolCall():
            return given
        case (str(name), str() | Mapping() as arguments):
            return ToolCall(name, arguments)
    raise TypeError(f"tool_calls: a list of pairs of name and arguments, or of ToolCall; {given!r} is neither")


def _told(reply: Reply) -> str:
    """What a reply says, in a few words."""
    calls = ", ".join(f"{call.name}(…)" for call in reply.tool_calls)
    text = repr(reply.content) if reply.content is not None else calls
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def _listed(lines: Sequence[str]) -> str:
    return "".join(f"\n  {number}. {line}" for number, line in enumerate(lines, 1))
