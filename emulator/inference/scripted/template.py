"""Templates in replies: Jinja, in its sandbox, imported when the first one is used.

A template knows `last`, `last_user`, `last_tool` (texts), `json` (the last message read as JSON), `match` (the
groups of the rule's regular expression), `row`, `tools`, `model`, `trajectory`, `job`, `turn`, `choice`, `count` (how
often the rule answered in this trajectory before) and `random`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from emulator.inference.scripted.reply import Error, Reply, ToolCall
from emulator.inference.scripted.request import MISSING, Request

if TYPE_CHECKING:
    from jinja2 import Environment, Template

_SIGNS = ("{{", "{%", "{#")

#: Characters, items or bits that a product or a power in a template may have.
_LARGEST = 10_000_000


#: A text that is a single `{{ … }}`, with or without Jinja's signs for white space.
_EXPRESSION = re.compile(r"\s*\{\{[-+]?((?:(?!\{\{|\}\}|\{%|\{#).)*?)[-+]?\}\}\s*", re.DOTALL)

#: What a template of somebody else's may raise.
_FAILURES = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


class BadTemplate(ValueError):
    """A text is no template, or what it asks for is not there."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.line = line  #: which of the template's lines


def is_template(text: str) -> bool:
    """Whether anything in the text would be replaced."""
    return any(sign in text for sign in _SIGNS)


def check(text: str) -> None:
    """Raises BadTemplate."""
    if is_template(text):
        _compiled(text)


def rendered(reply: Reply, request: Request) -> Reply:
    """The reply with every template in it replaced. Raises BadTemplate."""
    names = _names(request)

    def text(given: str) -> str:
        return _render(given, names)

    def optional(given: str | None) -> str | None:
        return None if given is None else _render(given, names)

    calls = [ToolCall(text(call.name), _rendered(call.arguments, names), call.id) for call in reply.tool_calls]
    error = reply.error
    return replace(
        reply,
        content=optional(reply.content),
        reasoning=optional(reply.reasoning),
        tool_calls=calls or (),
        error=error and _rendered_error(error, names),
        template=False,
    )


def _rendered_error(error: Error, names: Mapping[str, Any]) -> Error:
    return error if error.message is None else replace(error, message=_render(error.message, names))


def _rendered(value: Any, names: Mapping[str, Any]) -> Any:
    """The value with the texts in it replaced. One that is a single expression keeps the type of what it gives."""
    if isinstance(value, str):
        return _render(value, names)
    if isinstance(value, Mapping):
        return {name: _of_any_type(item, names) for name, item in value.items()}
    return value


def _of_any_type(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, str):
        expression = _EXPRESSION.fullmatch(value)
        return _render(value, names) if expression is None else _evaluate(expression[1], names)
    if isinstance(value, Sequence):
        return [_of_any_type(item, names) for item in value]
    return _rendered(value, names)


def _names(request: Request) -> dict[str, Any]:
    match = request.match
    names: dict[str, Any] = {
        "last": request.last,
        "last_user": request.last_user,
        "last_tool": request.last_tool,
        "json": request.last_json,
        "match": {} if match is None else {0: match[0], **dict(enumerate(match.groups(), 1)), **match.groupdict()},
        "row": request.row,
        "tools": request.tools,
        "model": request.model,
        "trajectory": request.trajectory,
        "job": request.job,
        "turn": request.turn,
        "count": request.count,
        "choice": request.choice,
        "random": request.random,
    }
    return {name: value for name, value in names.items() if value is not MISSING}  # what is missing, is undefined


def _render(text: str, names: Mapping[str, Any]) -> str:
    if not is_template(text):
        return text
    from jinja2 import TemplateError

    try:
        return _compiled(text).render(names)
    except BadTemplate:
        raise
    except (TemplateError, *_FAILURES) as error:
        raise BadTemplate(f"template {_short(text)}: {str(error) or type(error).__name__}") from None


def _evaluate(expression: str, names: Mapping[str, Any]) -> Any:
    from jinja2 import TemplateError, Undefined

    try:
        value = _compiled_expression(expression)(**names)
        return str(value) if isinstance(value, Undefined) else value  # str raises
    except BadTemplate:
        raise
    except (TemplateError, *_FAILURES) as error:
        told = str(error) or type(error).__name__
        raise BadTemplate(f"template {{{{ {_short(expression)} }}}}: {told}") from None


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Raises OverflowError for what would take all memory, or for ever: the whole emulator would wait for it."""
    size = 0
    if operator == "**" and isinstance(left, int) and isinstance(right, int):
        size = left.bit_length() * right
    elif operator == "*" and isinstance(left, Sized) and isinstance(right, int):
        size = len(left) * right
    elif operator == "*" and isinstance(left, int) and isinstance(right, Sized):
        size = left * len(right)
    if size > _LARGEST:
        raise OverflowError(f"the result of {operator} is too large")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import StrictUndefined, pass_context
    from jinja2.runtime import Context
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Sandbox(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right)
            return super().call_binop(context, operator, left, right)

    environment = Sandbox(undefined=StrictUndefined, keep_trailing_newline=True)

    @pass_context
    def one_of(context: Context, values: Sequence[Any]) -> Any:
        return context["random"].choice(values)  # Jinja's own would choose anew in each run

    environment.filters["random"] = one_of
    return environment


@lru_cache(maxsize=1024)
def _compiled(text: str) -> Template:
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().from_string(text)
    except TemplateSyntaxError as error:
        raise BadTemplate(f"template {_short(text)}: {error.message}", error.lineno) from None
    except _FAILURES as error:
        raise BadTemplate(f"template {_short(text)}: {type(error).__name__}: {error}") from None


@lru_cache(maxsize=1024)
def _compiled_expression(text: str) -> Callable[..., Any]:
    from jinja2 import TemplateSyntaxError

    try:
        return _environment().compile_expression(text, undefined_to_none=False)
    except TemplateSyntaxError as error:
        raise BadTemplate(f"template {{{{ {_short(text)} }}}}: {error.message}", error.lineno) from None


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")
