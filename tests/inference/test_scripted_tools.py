"""Tool calls and JSON of the scripted model server."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openai.types.chat import ChatCompletion

from emulator.inference.scripted.arithmetic import expressions
from tests.inference.test_scripted import CALCULATOR, CHAT, answer_to, ask, content

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "minLength": 3},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
                "unit": {"enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city", "days", "unit"],
            "additionalProperties": False,
        },
    },
}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def called(**request: Any) -> tuple[str, Any]:
    """The name and arguments of the one call that a request leads to."""
    calls = answer_to(CHAT, **request)["choices"][0]["message"]["tool_calls"]
    assert len(calls) == 1
    return calls[0]["function"]["name"], json.loads(calls[0]["function"]["arguments"])


def conversation(question: str, *rounds: tuple[str, str]) -> list[dict[str, Any]]:
    """A question, and the calculator's expressions and results so far."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    for number, (expression, result) in enumerate(rounds):
        function = {"name": "calculator", "arguments": json.dumps({"expression": expression})}
        call = {"id": f"call_{number}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": result})
    return messages


def test_a_calculator_is_called_with_the_arithmetic_in_the_question() -> None:
    answer = ChatCompletion.model_validate(answer_to(CHAT, **ask("What is 12 × 7?", tools=[WEATHER, CALCULATOR])))
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert choice.message.tool_calls is not None
    call = choice.message.tool_calls[0]
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert (call.function.name, json.loads(call.function.arguments)) == ("calculator", {"expression": "12 * 7"})


def test_the_result_of_a_tool_becomes_the_answer() -> None:
    messages = conversation("What is 12*7?", ("12*7", "84"))
    assert content(messages=messages, tools=[CALCULATOR]) == "The answer is 84."
    assert content(messages=messages) == "The answer is 84."
    messages[-1]["content"] = [{"type": "text", "text": "84.0"}]
    assert content(messages=messages, tools=[CALCULATOR]) == "The answer is 84.0."


def test_each_expression_of_a_question_is_calculated_once() -> None:
    question = "Compare 12*7 with 9*9 and with 12*7."
    assert called(messages=conversation(question), tools=[CALCULATOR])[1] == {"expression": "12*7"}
    messages = conversation(question, ("12*7", "84"))
    assert called(messages=messages, tools=[CALCULATOR])[1] == {"expression": "9*9"}
    messages = conversation(question, ("12*7", "84"), ("9*9", "81"))
    assert content(messages=messages, tools=[CALCULATOR]) == "The answer is 81."


def test_a_new_question_is_calculated_anew() -> None:
    messages = [*conversation("12*7?", ("12*7", "84")), {"role": "assistant", "content": "84"}, *conversation("12*7?")]
    assert called(messages=messages, tools=[CALCULATOR])[1] == {"expression": "12*7"}


def test_without_arithmetic_or_a_calculator_no_tool_is_called() -> None:
    for request in (
        ask("Hello", tools=[CALCULATOR]),
        ask("12*7", tools=[WEATHER]),
        ask("12*7", tools=[CALCULATOR], tool_choice="none"),
        ask("12*7"),
    ):
        assert "scripted model" in content(**request)


def test_a_calculator_may_want_more_than_the_expression() -> None:
    parameters = {
        "type": "object",
        "properties": {"formula": {"type": "string", "maxLength": 9}, "digits": {"type": "integer", "minimum": 2}},
        "required": ["formula", "digits"],
    }
    tool = {"type": "function", "function": {"name": "Calc", "parameters": parameters}}
    assert called(**ask("12*7?", tools=[tool])) == ("Calc", {"formula": "12*7", "digits": 2})
    assert "scripted model" in content(**ask("1234567*1234567?", tools=[tool]))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("What is 12*7?", ["12*7"]),
        ("First 12 * 7, then add 5.", ["12 * 7"]),
        ("3x4 and 3 x 4 and 3×4", ["3*4", "3 * 4"]),
        ("12 ÷ 4 − 1", ["12 / 4 - 1"]),  # noqa: RUF001
        ("Work out (3 + 4) * -2.5.", ["(3 + 4) * -2.5"]),
        ("(it is 1 + 1)", ["1 + 1"]),
        ("((2+3)*4", ["(2+3)*4"]),
        ("1,234,567 * 2", ["1234567 * 2"]),
        ("2**10", ["2**10"]),
        ("5 apples\n- 3 pears", []),
        ("on 2026-01-05, room 12, version 1.2.3, x1+2", []),
        ("", []),
        ("no digits + here", []),
    ],
)
def test_arithmetic_is_found_in_a_sentence(text: str, found: list[str]) -> None:
    assert expressions(text) == found


@pytest.mark.parametrize("text", ["(" * 50_000, "1" * 50_000, "1 " * 50_000, "1+" * 50_000, "- " * 50_000])
def test_no_text_makes_the_search_for_arithmetic_slow(text: str) -> None:
    expressions(text)  # the suite's time-out would tell


@pytest.mark.parametrize(("choice", "reason"), [("required", "tool_calls"), (NAMED, "stop")])
def test_a_call_that_is_demanded_satisfies_the_tools_schema(choice: object, reason: str) -> None:
    request = ask("12*7", tools=[WEATHER], tool_choice=choice)
    name, arguments = called(**request)
    assert name == "get_weather"
    Draft202012Validator(WEATHER["function"]["parameters"]).validate(arguments)  # type: ignore[index]
    assert answer_to(CHAT, **request)["choices"][0]["finish_reason"] == reason


def test_a_named_tool_is_called_even_if_another_would_fit() -> None:
    assert called(**ask("12*7", tools=[CALCULATOR, WEATHER], tool_choice=NAMED))[0] == "get_weather"
    assert called(**ask("12*7", tools=[WEATHER, CALCULATOR], tool_choice="required"))[0] == "calculator"


@pytest.mark.parametrize("parameters", [None, {}, {"properties": {}}, {"type": "object"}])
def test_a_tool_without_parameters_is_called_without(parameters: object) -> None:
    tool = {"type": "function", "function": {"name": "now", "parameters": parameters}}
    assert called(**ask(tools=[tool], tool_choice="required")) == ("now", {})


def test_call_ids_differ_between_choices_and_requests() -> None:
    request = ask("12*7", tools=[CALCULATOR], n=2)
    answers = [answer_to(CHAT, **request), answer_to(CHAT, **request, seed=1)]
    calls = [choice["message"]["tool_calls"][0]["id"] for answer in answers for choice in answer["choices"]]
    assert len(set(calls)) == 4


SCHEMA = {
    "type": "object",
    "properties": {"answer": {"type": "integer", "minimum": 40}, "why": {"type": "string"}},
    "required": ["answer", "why"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "wanted",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "strict": True}}},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA)},
        {"structured_outputs": {"json": SCHEMA}},
    ],
)
def test_json_that_satisfies_a_schema_is_said(wanted: dict[str, Any]) -> None:
    assert json.loads(content(**ask(), **wanted)) == {"answer": 40, "why": "scripted"}


def test_json_of_any_shape_is_an_object_that_says_it_is_scripted() -> None:
    assert json.loads(content(**ask(response_format={"type": "json_object"})))["scripted"] is True


def test_text_may_be_asked_for_by_name() -> None:
    assert content(**ask(response_format={"type": "text"})) == content(**ask())
