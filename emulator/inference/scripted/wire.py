"""OpenAI requests off the wire: JSON in and out, and the checks that a real server makes before it answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_CHOICES = 128  # OpenAI's limit for `n`
MAX_TOP_LOGPROBS = 20  # OpenAI's limit, and vLLM's default `--max-logprobs`

#: Compact, text as it is.
dump_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def dump(value: object) -> bytes:
    """JSON in UTF-8. A lone surrogate, which UTF-8 cannot hold, becomes its JSON escape (the two spellings agree)."""
    return dump_text(value).encode("utf-8", "backslashreplace")


class BadRequest(Exception):
    """The model server refuses the request: a 400 with this message, naming the parameter at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Form:
    """The form in which a request wants its answer, whatever is said in it."""

    model: str
    n: int
    max_tokens: int | None
    stops: tuple[str, ...]
    stream: bool
    include_usage: bool
    logprobs: int | None  #: how many alternatives a token; None: no log probabilities at all
    token_ids: bool
    echo: bool = False
    tool_is_named: bool = False  #: by `tool_choice`: whoever must call it has not chosen to


def parse(body: bytes) -> dict[str, Any]:
    """The request as an object. Raises BadRequest."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"The body is not valid JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest("The body must be a JSON object")
    return request


def chat_form(request: Mapping[str, Any]) -> Form:
    """Check a chat completion request. Raises BadRequest."""
    check_messages(request)
    _check_tools(request)
    limit = _integer(request, "max_completion_tokens", 1)
    logprobs = _boolean(request, "logprobs")
    top = _integer(request, "top_logprobs", 0, MAX_TOP_LOGPROBS)
    if top and not logprobs:
        raise BadRequest("when using `top_logprobs`, `logprobs` must be set to true.", "top_logprobs")
    is_named = isinstance(request.get("tool_choice"), dict)
    return _form(request, limit, (top or 0) if logprobs else None, tool_is_named=is_named)


def completion_form(request: Mapping[str, Any]) -> Form:
    """Check a text completion request. Raises BadRequest."""
    if request.get("suffix") is not None:
        raise BadRequest("suffix is not currently supported", "suffix")  # neither by vLLM
    logprobs = _integer(request, "logprobs", 0, MAX_TOP_LOGPROBS)
    return _form(request, None, logprobs, echo=_boolean(request, "echo"))


def _form(
    request: Mapping[str, Any],
    limit: int | None,
    logprobs: int | None,
    *,
    echo: bool = False,
    tool_is_named: bool = False,
) -> Form:
    model = request.get("model")
    if not isinstance(model, str | None):
        raise BadRequest("`model` must be a string", "model")
    _number(request, "temperature", 0, 2)
    _number(request, "top_p", 0, 1)
    stream = _boolean(request, "stream")
    options = request.get("stream_options")
    if options is not None and not stream:
        raise BadRequest("Stream options can only be defined when `stream=True`.", "stream_options")
    if not isinstance(options, dict | None):
        raise BadRequest("`stream_options` must be an object", "stream_options")
    max_tokens = _integer(request, "max_tokens", 1)
    return Form(
        model=model or "default",
        n=_integer(request, "n", 1, MAX_CHOICES) or 1,
        max_tokens=max_tokens if limit is None else limit,
        stops=_stops(request.get("stop")),
        stream=stream,
        include_usage=bool(options and options.get("include_usage")),
        logprobs=logprobs,
        token_ids=_boolean(request, "return_token_ids"),
        echo=echo,
        tool_is_named=tool_is_named,
    )


def text_of(content: object) -> str:
    """The text of a message's content: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") if isinstance(part, dict) else part for part in content)
    return "".join(text for text in texts if isinstance(text, str))


def check_messages(request: Mapping[str, Any]) -> None:
    """Check that there are messages, each with a role and well-formed. Raises BadRequest."""
    messages = request.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("`messages` must be a list of at least one message", "messages")
    for index, message in enumerate(messages):
        where = f"messages.{index}"
        if not isinstance(message, dict):
            raise BadRequest("A message must be an object", where)
        if not isinstance(message.get("role"), str):
            raise BadRequest("A message needs a `role`", f"{where}.role")
        if not isinstance(message.get("content"), str | list | None):
            raise BadRequest("A message's `content` must be a string or a list of parts", f"{where}.content")
        calls = message.get("tool_calls")
        if calls and not _is_list_of_functions(calls):
            raise BadRequest("`tool_calls` must be a list of function calls", f"{where}.tool_calls")


def _is_list_of_functions(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("function"), dict)
        and isinstance(item["function"].get("name"), str)
        for item in value
    )


def _check_tools(request: Mapping[str, Any]) -> None:
    # The rules and their wording are those of vLLM's protocol.py (`check_tool_usage`).
    tools, choice = request.get("tools"), request.get("tool_choice")
    if tools is not None and (not tools or not _is_list_of_functions(tools)):
        raise BadRequest("`tools` must be a list of at least one function", "tools")
    if choice is None or choice == "none":
        return
    if tools is None:
        raise BadRequest("When using `tool_choice`, `tools` must be set.", "tool_choice")
    if choice in ("auto", "required"):
        return
    function = choice.get("function") if isinstance(choice, dict) else None
    if not isinstance(function, dict):
        message = 'Only named tools, "none", "auto" or "required" are supported.'
        raise BadRequest(f"Invalid value for `tool_choice`! {message}", "tool_choice")
    if all(tool["function"]["name"] != function.get("name") for tool in tools):
        message = "The tool specified in `tool_choice` does not match any of the specified `tools`"
        raise BadRequest(message, "tool_choice")


def _stops(stop: object) -> tuple[str, ...]:
    stops = [stop] if isinstance(stop, str) else stop or []
    if not isinstance(stops, list) or not all(isinstance(item, str) and item for item in stops):
        raise BadRequest("`stop` must be a string or a list of strings, none of them empty", "stop")
    return tuple(stops)


def _boolean(request: Mapping[str, Any], name: str) -> bool:
    value = request.get(name)
    if not isinstance(value, bool | None):
        raise BadRequest(f"`{name}` must be a boolean", name)
    return bool(value)


def _integer(request: Mapping[str, Any], name: str, low: int, high: int | None = None) -> int | None:
    value = request.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise BadRequest(f"`{name}` must be an integer", name)
    if value < low or (high is not None and value > high):
        bounds = f"at least {low}" if high is None else f"between {low} and {high}"
        raise BadRequest(f"`{name}` must be {bounds}, got {value}.", name)
    return value


def _number(request: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = request.get(name)
    if value is None:
        return
    # NaN, which Python's parser lets through, is in no range.
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise BadRequest(f"`{name}` must be a number between {low} and {high}.", name)
