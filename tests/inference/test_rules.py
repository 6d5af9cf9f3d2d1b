"""Rules of the scripted model: which one answers."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from emulator.inference.scripted import NoRuleMatches, Reply, Request, Rule, Rules
from emulator.inference.scripted.json_path import BadPath
from tests.inference.test_scripted import CALCULATOR, ask

TOOLS = {"tools": [CALCULATOR]}


def chat(*said: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in said], **more}


def said(rules: Rules, body: dict[str, Any] | None = None, **which: Any) -> str | None:
    (reply,) = rules.replies(Request(ask() if body is None else body, **which), 1)
    return reply.content


def shown(value: object) -> str:
    """The same in each process: functions without their addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


ROLLOUT: dict[str, Any] = {
    "job": "arn:aws:sagemaker:us-west-2:123456789012:job/AgentRFT/my-job",
    "trajectory": "train-7",
    "instance": '{"question": "6*7?", "answer": 42, "level": "hard", "tags": ["a", {"id": true}]}',
}
CONVERSATION = chat(
    ("system", "Be brief."), ("user", "What is 6*7?"), ("assistant", "Hm."), ("tool", '{"result": [42]}'),
    model="qwen-3", **TOOLS,
)  # fmt: skip

MATCHES: list[dict[str, Any]] = [
    {},
    {"turn": 2},
    {"turn": [1, 2]},
    {"turn": range(2, 2**40)},
    {"last": "result.*42"},
    {"last": re.compile("RESULT", re.IGNORECASE)},
    {"last_user": r"^What is (\d+)"},
    {"last_tool": "42"},
    {"last_json": {"$.result[0]": 42}},
    {"last_json": {"result": [42]}},
    {"last_json": {"$..*": ...}},
    {"tools": ["calculator"]},
    {"model": "qwen-*"},
    {"model": re.compile(r"qwen-\d")},
    {"trajectory": "train-7"},
    {"trajectory": "train-[0-9]"},
    {"job": "*/my-job"},
    {"row": {"answer": 42, "level": re.compile("^h")}},
    {"row": {"answer": lambda value: value > 40}},
    {"row": {"$.tags[-1].id": True, "question": ...}},
    {"when": lambda request: len(request.messages) == 4},
    {"turn": 2, "tools": ["calculator"], "last": "42", "row": {"answer": 42}},
]

MISMATCHES: list[tuple[dict[str, Any], str]] = [
    ({"turn": 1}, "turn: wanted 1, found 2"),
    ({"turn": range(3, 2**40)}, "turn: wanted 3 or later, found 2"),
    ({"turn": range(3, 6)}, "turn: wanted 3 to 5, found 2"),
    ({"last": "^42"}, "last: wanted /^42/, found '{\"result\": [42]}'"),
    ({"last_user": "8"}, "last_user: wanted /8/, found 'What is 6*7?'"),
    ({"last_json": {"$.result[1]": ...}}, "last_json $.result[1]: wanted a value, found nothing"),
    ({"last_json": {"$.result[0]": "42"}}, "last_json $.result[0]: wanted '42', found 42"),
    ({"tools": ["calculator", "search"]}, "tools: wanted calculator, search, found ['calculator']"),
    ({"tools": ()}, "tools: wanted none, found ['calculator']"),
    ({"model": "qwen"}, "model: wanted 'qwen', found 'qwen-3'"),
    ({"model": re.compile("qwen")}, "model: wanted /qwen/, found 'qwen-3'"),
    ({"trajectory": "eval-*"}, "trajectory: wanted 'eval-*', found 'train-7'"),
    ({"row": {"answer": "42"}}, "row answer: wanted '42', found 42"),
    ({"row": {"$.tags[1].id": 1}}, "row $.tags[1].id: wanted 1, found True"),
    ({"row": {"nothing": None}}, "row nothing: wanted None, found nothing"),
    ({"when": lambda request: False}, "when: wanted <lambda>() to say yes"),
    ({"turn": 2, "model": "qwen"}, "model: wanted"),
]


@pytest.mark.parametrize("conditions", MATCHES, ids=shown)
def test_a_rule_whose_conditions_hold_answers(conditions: dict[str, Any]) -> None:
    rules = Rules([Rule("yes", **conditions)], default=None)
    assert said(rules, CONVERSATION, **ROLLOUT) == "yes"


@pytest.mark.parametrize(("conditions", "reason"), MISMATCHES, ids=shown)
def test_a_rule_whose_conditions_fail_does_not_and_says_why(conditions: dict[str, Any], reason: str) -> None:
    rules = Rules([Rule("yes", name="mine", **conditions)], default=None)
    with pytest.raises(NoRuleMatches, match=re.escape(f"1. mine: {reason}")):
        said(rules, CONVERSATION, **ROLLOUT)


def test_without_a_row_or_tools_or_json_conditions_on_them_fail() -> None:
    for conditions in ({"row": {"a": ...}}, {"last_json": {"$": ...}}, {"tools": ["x"]}, {"last_tool": ""}):
        assert said(Rules([Rule("yes", **conditions)], default="no")) == "no"
    assert said(Rules([Rule("yes", tools=())], default="no")) == "yes"


def test_a_prompt_is_the_last_message_of_the_first_turn() -> None:
    rules = Rules([Rule("yes", turn=1, last="^Once", last_user="upon")], default=None)
    assert said(rules, {"prompt": "Once upon a time"}) == "yes"


@pytest.mark.parametrize(
    "wrong",
    [
        {"last": "("},
        {"model": re.compile(""), "last_json": {"$.[": 1}},
        {"row": {"$..": 1}},
        {"then": "again"},
        {"weights": [1], "at_random": True},
        {"weights": [0, 0], "at_random": True},
        {"weights": [-1, 2], "at_random": True},
    ],
)
def test_a_rule_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((re.error, BadPath, ValueError)):
        Rule(["a", "b"], **wrong)
    with pytest.raises(ValueError, match="needs a reply"):
        Rule([])


def test_the_first_rule_that_fits_answers_and_else_the_default() -> None:
    rules = Rules([Rule("one", last="1"), Rule("two", last="[12]")], default="other")
    assert [said(rules, ask(text)) for text in ("1", "2", "3")] == ["one", "two", "other"]


def test_without_rules_the_built_in_script_answers() -> None:
    assert "scripted model" in (said(Rules()) or "")
    assert "scripted model" in (said(Rules([Rule("no", last="nothing")])) or "")


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        ("stay", ["a", "b", "b", "b", "b"]),
        ("loop", ["a", "b", "a", "b", "a"]),
        ("next", ["a", "b", "other", "other", "other"]),
    ],
)
def test_a_sequence_goes_on_with_each_match(then: Any, expected: list[str]) -> None:
    rules = Rules([Rule(["a", "b"], then=then)], default="other")
    assert [said(rules) for _ in range(5)] == expected


def test_each_trajectory_has_its_own_place_in_a_sequence_and_so_has_each_rule() -> None:
    rules = Rules([Rule(["a", "b"], last="x"), Rule(["c", "d"], last="y")], default=None)
    asked = [("x", "t1"), ("x", "t2"), ("y", "t1"), ("x", "t1"), ("y", "t1"), ("x", "t2")]
    assert [said(rules, ask(text), trajectory=each) for text, each in asked] == ["a", "a", "c", "b", "d", "b"]
    assert said(rules, ask("x"), trajectory="t1", job="another") == "a"


def test_reset_begins_sequences_anew() -> None:
    rules = Rules([Rule(["a", "b"])])
    assert (said(rules), said(rules)) == ("a", "b")
    rules.reset()
    assert (said(rules), said(rules)) == ("a", "b")


def test_the_place_of_the_trajectory_that_was_silent_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emulator.inference.scripted.rules.MAX_TRAJECTORIES", 2)
    rules = Rules([Rule(["a", "b"])])
    assert [said(rules, trajectory=each) for each in ("t1", "t2", "t1", "t3", "t1", "t2")] == [
        "a",
        "a",
        "b",
        "a",
        "b",
        "a",
    ]


def test_a_rule_answers_as_often_as_it_may_whoever_asks() -> None:
    rules = Rules([Rule("once", times=1), Rule("twice", times=2)], default="other")
    assert [said(rules, trajectory=each) for each in "abcd"] == ["once", "twice", "twice", "other"]


def test_chance_differs_between_trajectories_and_turns_but_repeats() -> None:
    rule = Rule(["good", "bad"], at_random=True, weights=[1, 3])
    group = [f"rollout-{number}" for number in range(200)]

    def run(seed: int) -> list[str | None]:
        rules = Rules([rule], seed=seed)
        return [said(rules, trajectory=each) for each in group]

    assert run(1) == run(1) != run(2)
    assert 30 <= run(1).count("good") <= 70
    rules = Rules([rule])
    turns = [chat(*[("user", "a"), ("assistant", "b")] * turn, ("user", "c")) for turn in range(20)]
    assert len({said(rules, body) for body in turns}) == 2
    assert said(rules, turns[3]) == said(rules, turns[3])  # a retry


def test_choices_of_one_answer_are_chosen_each_by_itself_and_count_once() -> None:
    rules = Rules([Rule([lambda request: f"{request.count}/{request.choice}"] * 2)])
    assert [reply.content for reply in rules.replies(Request(ask()), 3)] == ["0/0", "0/1", "0/2"]
    assert said(rules) == "1/0"
    random = Rules([Rule(["a", "b"], at_random=True)])
    assert len({reply.content for reply in random.replies(Request(ask()), 30)}) == 2


def test_a_function_may_answer_with_what_the_expression_found() -> None:
    def double(request: Request) -> Reply | str:
        assert request.match is not None
        number = int(request.match["number"])
        return str(2 * number) if number < 10 else Reply(reasoning="too large")

    rules = Rules([Rule(double, last=r"double (?P<number>\d+)")])
    assert said(rules, ask("Please double 4.")) == "8"
    assert rules.replies(Request(ask("double 40")), 1) == [Reply(reasoning="too large")]


def test_a_function_that_answers_with_something_else_is_told() -> None:
    with pytest.raises(TypeError, match="not with int"):
        said(Rules([Rule(lambda request: 7)]))  # type: ignore[arg-type,return-value]


def test_rules_know_what_was_used_and_what_nothing_answered() -> None:
    rules = Rules()
    one, two = rules.add(Rule("a", last="a")), rules.add(Rule("b", last="b", times=2))
    said(rules, ask("a"))
    said(rules, ask("b"))
    assert (rules.uses(one), rules.uses(two)) == (1, 1)
    assert rules.unused == [two]
    assert rules.unmatched == []
    said(rules, ask("c"), trajectory="t")
    (unmatched,) = rules.unmatched
    assert unmatched.asked == "<Request: turn 1 of t, last 'c'>"
    assert unmatched.reasons == (
        "last /a/: last: wanted /a/, found 'c'",
        "last /b/: last: wanted /b/, found 'c'",
    )
    rules.clear()
    assert (rules.rules, rules.unused, rules.unmatched) == ([], [], [])


def test_explaining_changes_nothing() -> None:
    rules = Rules([Rule(["a", "b"], then="next", name="ab"), Rule("c", last="x")])
    assert [reason for _, reason in rules.explain(Request(ask()))] == [None, "last: wanted /x/, found 'Hello?'"]
    assert (said(rules), said(rules)) == ("a", "b")
    assert rules.explain(Request(ask()))[0][1] == "all of its replies were given"


def test_rules_may_be_changed_by_another_thread_while_they_answer() -> None:
    rules = Rules(default="other")
    done = threading.Event()

    def change() -> None:
        for _ in range(300):
            rules.add(Rule(["a", "b"]))
            rules.clear()
        done.set()

    thread = threading.Thread(target=change)
    thread.start()
    heard = set()
    while not done.is_set():
        heard.add(said(rules))
    thread.join()
    assert heard <= {"a", "b", "other"}
