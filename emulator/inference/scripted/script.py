"""What the scripted model says: the built-in script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from emulator.inference.scripted import arithmetic
from emulator.inference.scripted.instance import Unsatisfiable, instance_text
from emulator.inference.scripted.reply import Reply, ToolCall
from emulator.inference.scripted.request import Request
from emulator.inference.scripted.wire import BadRequest, dump_text, text_of

_QUOTED = 200  # characters of the user's message that the default answer repeats

#: A small object for `response_format: json_object`, which asks for JSON of any shape.
_ANY_OBJECT = {"answer": "This is a scripted model, not a language model.", "scripted": True}

_PLAIN_OBJECT = {"$schema", "type", "title", "description", "properties", "required", "additionalProperties"}
_PLAIN_STRING = {"type", "title", "description"}


def choose(asked: Request) -> Reply:
    """The built-in script: arithmetic by way of a calculator tool, whatever form is asked for, else who is speaking.

    Raises BadRequest if a JSON schema is asked for that no value is found for.
    """
    request, messages = asked.body, asked.messages
    if request.get("tools") and request.get("tool_choice") != "none":
        reply = _call(request, messages)
        if reply is not None:
            return reply
    structured = _structured(request)
    if structured is not None:
        return Reply(structured)
    if messages and messages[-1]["role"] == "tool":
        return Reply(f"The answer is {asked.last}.")
    return Reply(_default_answer(asked))


def _default_answer(asked: Request) -> str:
    user = asked.last_user
    said = asked.last if user is None else user
    if len(said) > _QUOTED:
        said = said[:_QUOTED] + "…"
    where = f"turn {asked.turn}" if asked.choice == 0 else f"turn {asked.turn}, choice {asked.choice + 1}"
    return (
        "This is job-runtime-local's scripted model, not a language model. "
        f'You said: "{said}" ({where}). Start with --model vllm:… or --model http://… for a real one.'
    )


def last_user(messages: Sequence[Mapping[str, Any]]) -> int:
    """Where the user's last message is; the last message of all if the user said nothing."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index]["role"] == "user":
            return index
    return len(messages) - 1


def _call(request: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> Reply | None:
    wanted = request.get("tool_choice") or "auto"
    tools = [tool["function"] for tool in request["tools"]]
    if isinstance(wanted, dict):
        tools = [tool for tool in tools if tool["name"] == wanted["function"]["name"]]
    call = _calculation(tools, messages)
    if call is None and wanted != "auto":
        call = _any_call(tools[0])
    return Reply(tool_calls=(call,)) if call else None


def _calculation(tools: Sequence[Mapping[str, Any]], messages: Sequence[Mapping[str, Any]]) -> ToolCall | None:
    """A call for the first expression in the user's last message that was not calculated yet."""
    asked = last_user(messages)
    for tool in tools:
        parameter = arithmetic.expression_parameter(tool)
        if parameter is None:
            continue
        called = {_argument(call, parameter) for message in messages[asked:] for call in _calls(message)}
        for expression in arithmetic.expressions(text_of(messages[asked].get("content"))):
            if expression not in called:
                try:
                    return ToolCall(tool["name"], _calculator_arguments(tool["parameters"], parameter, expression))
                except BadRequest:
                    break  # the tool takes no such expression
    return None


def _calculator_arguments(schema: Mapping[str, Any], parameter: str, expression: str) -> str:
    properties = schema["properties"]
    required = schema.get("required", [])
    if not isinstance(required, list) or not all(isinstance(name, str) for name in required):
        raise BadRequest("`required` must be a list of names", "tools")
    if schema.keys() <= _PLAIN_OBJECT and properties[parameter].keys() <= _PLAIN_STRING and {*required} <= {parameter}:
        return dump_text({parameter: expression})  # any string will do: no need to search
    wanted = {"allOf": [properties[parameter], {"const": expression}]}
    required = list(dict.fromkeys([*required, parameter]))
    schema = {**schema, "properties": {**properties, parameter: wanted}, "required": required}
    return _satisfying(schema, "the calculator", "tools")


def _calls(message: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    return message.get("tool_calls") or ()


def _argument(call: Mapping[str, Any], name: str) -> str | None:
    try:
        arguments = json.loads(call["function"]["arguments"])
    except (KeyError, TypeError, ValueError):
        return None
    value = arguments.get(name) if isinstance(arguments, dict) else None
    return value if isinstance(value, str) else None


def _any_call(tool: Mapping[str, Any]) -> ToolCall:
    schema = tool.get("parameters") or {}
    if isinstance(schema, dict):
        schema = {"type": "object", **schema}
    return ToolCall(tool["name"], _satisfying(schema, f"the parameters of tool `{tool['name']}`", "tools"))


def _structured(request: Mapping[str, Any]) -> str | None:
    """JSON if the request asks for it: OpenAI's `response_format`, vLLM's `structured_outputs` or `guided_json`."""
    wanted = request.get("response_format")
    if wanted is not None:
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if kind == "json_object":
            return dump_text(_ANY_OBJECT)
        if kind == "json_schema":
            described = wanted.get("json_schema")
            if not isinstance(described, dict):
                message = "When response_format type is 'json_schema', the 'json_schema' field must be provided."
                raise BadRequest(message, "response_format")
            schema = described.get("schema")
            return _satisfying({"type": "object"} if schema is None else schema, "response_format", "response_format")
        if kind != "text":
            raise BadRequest("`response_format.type` must be text, json_object or json_schema", "response_format")
    outputs = request.get("structured_outputs")
    schema = outputs.get("json") if isinstance(outputs, dict) else None
    schema = request.get("guided_json") if schema is None else schema
    if isinstance(schema, str):  # vLLM takes a schema as text as well
        try:
            schema = json.loads(schema)
        except ValueError:
            raise BadRequest("The schema is not valid JSON", "structured_outputs") from None
    return None if schema is None else _satisfying(schema, "the structured output", "structured_outputs")


def _satisfying(schema: object, what: str, param: str) -> str:
    text = dump_text(schema)
    try:
        return instance_text(text)
    except Unsatisfiable as error:
        shown = text if len(text) <= 500 else text[:500] + "…"
        raise BadRequest(f"The schema of {what} could not be satisfied: {error}. Schema: {shown}", param) from None
