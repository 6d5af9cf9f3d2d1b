"""Rule files in YAML: what can be said in them, and what it means."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import jsonschema
import pytest

from emulator.inference.scripted import Error, Reply, Request, Rhythm, Rules, ToolCall
from emulator.inference.scripted.yaml_nodes import read
from emulator.inference.scripted.yaml_rules import parse
from tests.inference.test_rules import CONVERSATION, ROLLOUT, chat
from tests.inference.test_scripted import ask

PATH = Path("rules.yaml")
SCHEMA: dict[str, Any] = json.loads((Path(__file__).parents[2] / "docs" / "schemas" / "script-1.json").read_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def rules_of(text: str) -> Rules:
    rules = parse(text.encode(), PATH)
    VALIDATOR.validate(read(text.encode()).plain())
    return rules


def reply_of(text: str, **which: Any) -> Reply:
    """What a file with this one reply answers."""
    indented = indent(dedent(text).strip(), "      ").strip()
    return rules_of(f"rules:\n  - reply:\n      {indented}\n").replies(Request(ask("6*7"), **which), 1)[0]


def test_the_first_rule_whose_conditions_hold_answers() -> None:
    rules = rules_of("""
        rules:
          - when: {turn: 1}
            reply: one
          - when: {turn: 2, last: "^b"}
            reply: two
          - reply: three
    """)
    one, two = chat(("user", "a")), chat(("user", "a"), ("assistant", "x"), ("user", "b"))
    three = chat(("user", "a"), ("assistant", "x"), ("user", "a"))
    assert [rules.replies(Request(body), 1)[0].content for body in (one, two, three)] == ["one", "two", "three"]


@pytest.mark.parametrize(
    "condition",
    [
        "turn: 2",
        "turn: [1, 2]",
        "turn: 2+",
        "turn: 1-2",
        "last: result.*42",
        "last_user: '^What'",
        "last_tool: '42'",
        "last_json: {$.result: [42]}",
        "last_json: {'$.result[0]': 42}",
        "last_json: {result: {equals: [42]}}",
        "last_json: {$.nothing: {exists: false}}",
        "tools: calculator",
        "tools: [calculator]",
        "model: qwen-*",
        "model: {regex: 'qwen-\\d'}",
        "trajectory: train-*",
        "job: '*/my-job'",
        "row: {answer: 42, level: {regex: ^h}, question: {exists: true}, other: {exists: false}}",
        "row: {'$.tags[*].id': true}",
    ],
)
def test_a_condition_holds(condition: str) -> None:
    rules = rules_of(f"default: error\nrules:\n  - when:\n      {condition}\n    reply: yes\n")
    assert rules.replies(Request(CONVERSATION, **ROLLOUT), 1)[0].content == "yes"


@pytest.mark.parametrize("condition", ["turn: 3+", "turn: 3-4", "tools: []", "model: qwen", "row: {answer: '42'}"])
def test_a_condition_fails(condition: str) -> None:
    rules = rules_of(
        f"default: no\nrules:\n  - when:\n      {condition}\n    reply: yes\n".replace("no\n", "{content: no}\n")
    )
    assert rules.replies(Request(CONVERSATION, **ROLLOUT), 1)[0].content == "no"


def test_a_reply_may_be_all_that_a_reply_is() -> None:
    assert reply_of("yes") == Reply("yes")
    assert reply_of("'{{ match is mapping }}'") == Reply("True")
    assert reply_of(
        """
        reasoning: Hm.
        content: 42
        tool_calls:
          - {name: calculator, arguments: {expression: "{{ last }}", depth: 1}}
          - {name: broken, arguments: '{"a": ', id: call_1}
        finish_reason: length
        logprobs: [-0.5, -1, 0]
        delay: 0.5
        rhythm: {by: word, size: 2, first: 1, pause: 0.1}
        max_tokens: 10
        break_after: 0
        """
    ) == Reply(
        "42",
        [ToolCall("calculator", {"expression": "6*7", "depth": 1}), ToolCall("broken", '{"a": ', "call_1")],
        "Hm.",
        "length",
        [-0.5, -1, 0],
        None,
        0.5,
        Rhythm("word", 2, 1, 0.1),
        10,
        0,
    )
    assert reply_of("error: 503").error == Error(503)
    assert reply_of(
        "error: {status: 429, message: No, type: t, code: c, param: p, retry_after: 3, style: openai}"
    ).error == Error(429, "No", "t", "c", "p", 3, "openai")
    assert reply_of("content: '{{ last }}'\ntemplate: false") == Reply("{{ last }}")
    assert reply_of("content:\ntool_calls: [{name: a}]") == Reply(tool_calls=[ToolCall("a")])


def test_the_built_in_scripts_answer_may_come_in_another_way() -> None:
    reply = reply_of("builtin: true\ndelay: 2\nrhythm: {by: all}")
    assert "scripted model" in (reply.content or "")
    assert (reply.delay, reply.rhythm) == (2, Rhythm("all"))


def test_text_is_text_whatever_it_looks_like() -> None:
    for text in ("yes", "no", "on", "2026-01-01", "1:30", "42", "1e3", "true", "0x10", "'null'", "=", "<<"):
        assert reply_of(f"content: {text}").content == text.strip("'")


def test_values_are_those_of_json() -> None:
    rules = rules_of("rules: [{when: {row: {a: 010, b: yes, c: 1.5, d: null, e: true, f: 2026-01-01}}, reply: yes}]")
    row = {"a": 10, "b": "yes", "c": 1.5, "d": None, "e": True, "f": "2026-01-01"}
    assert rules.explain(Request(ask(), instance=json.dumps(row)))[0][1] is None


@pytest.mark.parametrize(
    ("then", "heard"),
    [("", "a b b b"), ("then: stay", "a b b b"), ("then: loop", "a b a b"), ("then: next", "a b - -")],
)
def test_replies_follow_each_other(then: str, heard: str) -> None:
    rules = rules_of(f"default: {{content: '-'}}\nrules:\n  - replies: [a, b]\n    {then}\n")
    assert " ".join(rules.replies(Request(ask()), 1)[0].content or "" for _ in range(4)) == heard


def test_a_reply_may_be_given_once_a_trajectory_or_once_at_all() -> None:
    rules = rules_of("rules: [{times: 1, reply: once}, {reply: first, then: next}, {reply: other}]")
    heard = [rules.replies(Request(ask(), trajectory=each), 1)[0].content for each in ("t", "t", "t", "u")]
    assert heard == ["once", "first", "other", "first"]


def test_one_of_several_replies_is_chosen_by_weight_and_seed() -> None:
    text = "seed: SEED\nrules:\n  - one_of: [{content: good, weight: 3}, bad]\n"

    def heard(seed: str) -> list[str | None]:
        rules = rules_of(text.replace("SEED", seed))
        return [rules.replies(Request(ask(), trajectory=str(each)), 1)[0].content for each in range(100)]

    assert 60 <= heard("7").count("good") <= 90
    assert heard("7") == heard("7") != heard("other")


def test_the_default_is_the_built_in_script_an_error_or_a_reply() -> None:
    rules = "rules: [{when: {turn: 9}, reply: x}]"
    assert rules_of(f"default: error\n{rules}").default is None
    assert rules_of(f"default: builtin\n{rules}").default is rules_of(rules).default
    assert rules_of(f"default: {{content: other}}\n{rules}").default == Reply("other")


def test_what_is_written_once_may_be_used_again() -> None:
    rules = rules_of(
        "rules:\n  - {when: &first {turn: 1}, reply: &hello {content: Hello}}\n  - {when: *first, reply: *hello}"
    )
    assert len(rules) == 2
