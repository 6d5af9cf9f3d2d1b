"""Rule files in YAML that are wrong: each problem is told with its line, whatever the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emulator.inference.scripted import Request
from emulator.inference.scripted.wrong_script import WrongScript
from emulator.inference.scripted.yaml_rules import parse
from tests.inference.test_rule_files import PATH, VALIDATOR
from tests.inference.test_rules import CONVERSATION, ROLLOUT

R = "rules:\n  - "
X = R + "reply: x\n    "


def problems_of(text: str | bytes) -> list[str]:
    with pytest.raises(WrongScript) as caught:
        parse(text.encode() if isinstance(text, str) else text, PATH)
    return caught.value.lines


WRONG: list[tuple[str, list[str]]] = [
    ("", ["1: the file is empty"]),
    ("# nothing", ["1: the file is empty"]),
    ("[]", ["1: a rule file has to be a mapping, not an empty list"]),
    ("seed: 1", ["1: there are no `rules`"]),
    ("rules:", ["1: rules: has to be a list of rules, not nothing"]),
    ("rules: []", ["1: rules: has to be a list of rules, not an empty list"]),
    ("rules: [x]", ["1: rules[0]: a rule has to be a mapping, not the text 'x'"]),
    ("rule: []", ["1: a rule file has no 'rule'; did you mean 'rules'?"]),
    ("a: 1\nrules: [{reply: x}]", ["1: a rule file has no 'a'; there are seed, default, rules"]),
    (R + "reply: x\n   bad", ["3: not YAML: while "]),
    ("rules:\n\t- reply: x", ["2: not YAML: while scanning for the next token found character that cannot start"]),
    ("rules: [{reply: x}]\n---\nrules: []", ["2: not YAML: expected a single document"]),
    (X + "reply: y", ["3: 'reply' was given before, in line 2"]),
    (R + "? [a]\n    : x", ["2: a name has to be a text"]),
    (R + "reply: {{ last }}", ["2: a name has to be a text; a template has to stand in quotes"]),
    (R + "reply: !secret x", ["2: !secret is no type that is known here"]),
    (R + "reply: !!binary x", ["2: tag:yaml.org,2002:binary is no type"]),
    ("rules: &a\n  - *a", ["it is nested too deeply, or holds itself"]),
    ("rules: " + "[" * 200_000, ["it is nested too deeply"]),
    ("rules: [{reply: \x01}]", ["1: not YAML: "]),
    (R + "when: {turn: 1}", ["2: rules[0]: a rule needs one of 'reply', 'replies' and 'one_of'; this one has none"]),
    (X + "replies: [y]", ["2: rules[0]: a rule needs one of", "'reply' and 'replies'"]),
    (X + "then: loop", ["3: rules[0]: 'then' says what comes after 'replies'"]),
    (R + "replies: [x]\n    then: again",
     ["3: rules[0].then: has to be one of stay, loop, next, not the text 'again'"]),
    (X + "times: 0", ["3: rules[0].times: has to be a whole number, at least 1, not 0"]),
    (X + "when: 1", ["3: rules[0].when: `when` has to be a mapping, not 1"]),
    (X + "when:\n      lst: a", ["4: rules[0].when: `when` has no 'lst'; did you mean 'last'?"]),
    (X + "when:\n      last: (", ["4: rules[0].when.last: '(' is not a regular expression: missing )"]),
    (X + "when: {model: {regx: a}}", ["3: rules[0].when.model: a name has no 'regx'; did you mean 'regex'?"]),
    (X + "when: {model: {}}", ["3: rules[0].when.model: has to be a text or {regex: …}"]),
    (X + "when: {turn: 0}", ["3: rules[0].when.turn: has to be a whole number, at least 1, not 0"]),
    (X + "when: {turn: 3-2}", ["3: rules[0].when.turn: has to be a turn (2), turns"]),
    (X + "when: {last_json: 1}", ["3: rules[0].when.last_json: has to be a mapping from names"]),
    (X + "when: {last_json: {'$.a[': 1}}", ["3: rules[0].when.last_json: not a JSON path: '$.a['"]),
    (X + "when: {row: {a: {regex: '['}}}", ["3: rules[0].when.row.a.regex: '[' is not a regular"]),
    (X + "when: {row: {a: {b: 1}}}", ["3: rules[0].when.row.a: a test has no 'b'; there are regex, exists"]),
    (X + "when: {row: {a: {}}}", ["3: rules[0].when.row.a: has to be one test"]),
    (X + "when: {tools: [1, [2]]}", ["3: rules[0].when.tools[1]: has to be a text, not a list"]),
    (R + "reply: {}", ["2: rules[0].reply: a reply needs 'content', 'tool_calls'"]),
    (R + "reply: [x]", ["2: rules[0].reply: has to be a text, not a list"]),
    (R + "reply: {builtin: true, content: x}", ["2: rules[0].reply: what is 'builtin' cannot have 'content'"]),
    (R + "reply: {content: x, weight: 1}", ["2: rules[0].reply: a reply has no 'weight'"]),
    (R + "one_of: [{content: x, weight: 0}]", ["2: rules[0]: weights: "]),
    (R + "one_of: [{content: x, weight: -1}]", ["2: rules[0].one_of[0].weight: has to be a number"]),
    (R + "reply: {content: x, delay: soon}",
     ["2: rules[0].reply.delay: has to be a number that is not negative, not the"]),
    (R + "reply: {content: x, delay: 1e999}", ["2: 1e999 is too large"]),
    (R + "reply: {content: x, rhythm: {by: syllable}}", ["2: rules[0].reply.rhythm.by: has to be one of token, char"]),
    (R + "reply: {content: x, logprobs: [0.1]}",
     ["2: rules[0].reply.logprobs[0]: a log probability is a number, at most 0"]),
    (R + "reply: {error: 200}", ["2: rules[0].reply.error: has to be the status of an error, from 400 to 599"]),
    (R + "reply: {error: {status: 429, retry_after: -1}}", ["2: rules[0].reply.error.retry_after: has to be a number"]),
    (R + 'reply: {error: {retry_after: "a\\nb"}}', ["2: rules[0].reply.error.retry_after: has to be seconds or"]),
    (R + "reply: {tool_calls: [{arguments: {}}]}", ["2: rules[0].reply.tool_calls[0]: a tool call needs a 'name'"]),
    (R + "reply: {tool_calls: [{name: a, arguments: [1]}]}",
     ["2: rules[0].reply.tool_calls[0].arguments: has to be a map"]),
    (R + "reply: '{{ x'", ["2: rules[0].reply: template '{{ x': unexpected end of template"]),
    (R + "reply: '{{ x | nothing }}'", ["2: rules[0].reply: template '{{ x | nothing }}': No filter named 'nothing'"]),
    (R + "reply: '{{ " + "(" * 5000 + "'", ["2: rules[0].reply: template "]),
    (R + "reply: '{{ " + "1" * 5000 + " }}'", ["2: rules[0].reply: template "]),
    (R + "reply: |\n      one\n      {% if %}", ["4: rules[0].reply: template "]),
    (R + "reply: {tool_calls: [{name: a, arguments: {b: ['{{']}}]}",
     ["2: rules[0].reply.tool_calls[0].arguments.b[0]: temp"]),
    ("default: maybe\nrules: [{reply: x}]", ["1: default: has to be 'builtin', 'error', or a reply"]),
    ("seed: [1]\nrules: [{reply: x}]", ["1: seed: has to be a whole number or a text"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), WRONG, ids=[text[:60] for text, _ in WRONG])
def test_what_is_wrong_is_told_with_its_line(text: str, expected: list[str]) -> None:
    (problem,) = problems_of(text)
    assert problem.startswith("rules.yaml:")
    for part in expected:
        assert part in problem


def test_all_that_is_wrong_is_told_at_once_in_the_order_of_lines() -> None:
    problems = problems_of(R + "rply: x\n    when: {last: '(', turn: x}\n  - reply: {delay: x}\nsed: 1")
    assert [problem.split(":")[1] for problem in problems] == ["2", "3", "3", "4", "4", "5"]


def test_a_file_that_is_no_utf_8_is_refused() -> None:
    assert problems_of(b"rules:\n  - reply: \xff") == ["rules.yaml:2: the file is not encoded in UTF-8"]


def test_a_file_that_would_not_end_is_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert "more than" in problems_of("\n".join(lines))[0]
    assert "nested" in problems_of("[" * 500)[0] or "not YAML" in problems_of("[" * 500)[0]


# Files that are nearly right.

REPLY_MEMBERS: dict[str, list[Any]] = {
    "content": ["x", "{{ last }}", "{{", None, 1, []],
    "tool_calls": [[{"name": "a"}], [{"name": "a", "arguments": {"b": "{{ 1 }}"}}], [], [{}], "a"],
    "reasoning": ["x", 1],
    "builtin": [True, False, "yes"],
    "finish_reason": ["stop", None],
    "logprobs": [-1, [-1, 0], 1, [], "x"],
    "error": [500, {"status": 429, "retry_after": 1}, 200, {"style": "other"}, {}],
    "delay": [0, 0.5, -1, "1"],
    "rhythm": [{}, {"by": "word", "size": 2}, {"by": "x"}, {"size": 0}, 1],
    "max_tokens": [1, 0],
    "break_after": [0, -1],
    "template": [True, False, 1],
    "contnt": ["x"],
}
CONDITIONS: dict[str, list[Any]] = {
    "turn": [1, [1, 2], "2+", "1-3", 0, "x", []],
    "last": ["a", "(", 1, None],
    "last_user": ["a"],
    "last_tool": ["a"],
    "last_json": [{"$.a": 1}, {"a": {"regex": "b"}}, {"$[": 1}, {}, 1, {"a": {"equals": 1, "exists": True}}],
    "tools": ["a", ["a"], [], {}],
    "model": ["a", {"regex": "a"}, {"regex": "("}, {}, []],
    "trajectory": ["a*"],
    "job": ["*"],
    "row": [{"a": 1}, {"a": {"exists": False}}, {"a": [1, {"b": 2}]}, {"a": {"b": 1}}],
    "lst": ["a"],
}


def some_of(members: dict[str, list[Any]], *, required: str | None = None) -> st.SearchStrategy[Any]:
    options = {name: st.sampled_from(values) for name, values in members.items()}
    needed = {} if required is None else {required: options.pop(required)}
    return st.fixed_dictionaries(needed, optional=options)


one_reply = (
    st.sampled_from(["x", "{{ turn }}", "{{"]) | some_of(REPLY_MEMBERS, required="content") | some_of(REPLY_MEMBERS)
)
one_rule = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["a", 1]),
        "when": some_of(CONDITIONS),
        "reply": one_reply,
        "replies": st.lists(one_reply, max_size=2),
        "one_of": st.lists(one_reply, max_size=2),
        "then": st.sampled_from(["stay", "loop", "next", "x"]),
        "times": st.sampled_from([1, 0]),
    },
)
documents = st.fixed_dictionaries(
    {"rules": st.lists(one_rule, max_size=3)},
    optional={
        "seed": st.sampled_from([1, "a", None]),
        "default": st.sampled_from(["error", "builtin", "x"]) | one_reply,
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example({"rules": [{"reply": {"content": "x", "finish_reason": None}}]})
@given(documents)
def test_what_the_schema_refuses_is_refused_and_what_is_read_answers(document: dict[str, Any]) -> None:
    text = yaml.safe_dump(document)
    try:
        rules = parse(text.encode(), PATH)
    except WrongScript as error:
        lines = [problem.line for problem in error.problems]
    else:
        lines = []
        assert VALIDATOR.is_valid(document)
        for rule, reason in rules.explain(Request(CONVERSATION, **ROLLOUT)):
            assert reason is None or reason
            assert str(rule)
    assert all(1 <= line <= text.count("\n") for line in lines)


GOOD = (Path(__file__).parents[2] / "docs" / "script.md").read_text()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_to_a_file_is_understood_or_told(data: st.DataObject) -> None:
    text = yaml.safe_dump(data.draw(documents)) if data.draw(st.booleans()) else GOOD[GOOD.find("```yaml") + 8 :][:600]
    at = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 20))
    put = data.draw(st.text("{}[]:-&*!|>'\"%@`#,? \n\t\x00\ufeffab1é\ud800", max_size=4))
    damaged = (text[:at] + put + text[at + length :]).encode("utf-8", "surrogatepass")
    problems = []
    try:
        parse(damaged, PATH)
    except WrongScript as error:
        problems = error.problems
    assert all(problem.line >= 1 and problem.message for problem in problems)
