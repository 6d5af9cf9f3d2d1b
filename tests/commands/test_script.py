"""`job-runtime-local script check`: what is wrong, and which rule answers what."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from emulator.cli import main
from tests.inference.test_scripted import ask

RULES = """
rules:
  - name: greeting
    when: {last: Hello}
    reply: {content: "Good day, {{ trajectory }}", delay: 0.5}
  - when: {turn: 1, row: {answer: 42}}
    replies: [It is 42., Still 42.]
  - name: anything
    reply: What?
"""


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = Path("rules.yaml")
    path.write_text(RULES)
    return path


def check(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    status = main(["script", "check", *arguments])
    return status, capsys.readouterr().out.splitlines()


def test_a_file_that_is_right_is_ok_and_told_in_short(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(capsys, "rules.yaml") == (
        0,
        [
            "rules.yaml: OK, 3 rules; what none answers gets the built-in script's answer",
            "  1. greeting",
            "  2. turn 1; row answer 42 (2 replies)",
            "  3. anything",
        ],
    )


def test_all_that_is_wrong_is_listed_with_its_lines(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text("rules:\n  - rply: x\n  - reply: {content: x, delay: soon}\n")
    status, lines = check(capsys, "rules.yaml")
    assert status == 1
    assert [line.split(": ")[0] for line in lines] == ["rules.yaml:2", "rules.yaml:3"]


def test_a_python_file_is_checked_too(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("rules.py").write_text("x = 1\nRULES = 1\n")
    assert check(capsys, "rules.py") == (1, ["rules.py:2: RULES has to be a list of Rule"])


def asked(path: str, body: dict[str, Any]) -> None:
    Path(path).write_text(json.dumps(body))


def test_a_request_shows_which_rule_answers_what_and_why_others_do_not(
    rules: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked("request.json", ask("6*7?"))
    status, lines = check(capsys, "rules.yaml", "--request", "request.json", "--row", '{"answer": 42}')
    assert status == 0
    assert lines[:3] == [
        "1. greeting: last: wanted /Hello/, found '6*7?'",
        "2. turn 1; row answer 42: answers",
        "3. anything: would answer too, but comes later",
    ]
    assert json.loads("\n".join(lines[3:])) == {"content": "It is 42."}


def test_a_request_may_come_by_standard_input(
    rules: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "Hello"}')))
    status, lines = check(capsys, "rules.yaml", "--request", "-", "--trajectory", "t1")
    assert (status, lines[0]) == (0, "1. greeting: answers")
    assert json.loads("\n".join(lines[3:])) == {"content": "Good day, t1", "delay": 0.5}


def test_a_request_that_nothing_answers_says_why(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text("default: error\nrules: [{when: {turn: 2}, reply: x}]")
    asked("request.json", ask())
    assert check(capsys, "rules.yaml", "--request", "request.json") == (
        1,
        ["1. turn 2: turn: wanted 2, found 1", "No rule answers: the request is refused, with these reasons"],
    )


def test_the_default_answers_where_no_rule_does(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text("default: {error: {status: 429, retry_after: 3}}\nrules: [{when: {turn: 2}, reply: x}]")
    asked("request.json", ask())
    status, lines = check(capsys, "rules.yaml", "--request", "request.json")
    assert (status, lines[1]) == (0, "No rule answers: it gets the default reply")
    assert json.loads("\n".join(lines[2:])) == {"error": {"status": 429, "retry_after": 3}}


def test_an_answer_that_fails_says_so(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text("rules: [{reply: '{{ row.answer }}'}]")
    asked("request.json", ask())
    status, lines = check(capsys, "rules.yaml", "--request", "request.json")
    assert status == 1
    assert lines[1].startswith("The answer fails: template '{{ row.answer }}': 'row' is undefined")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["nothing.yaml"], "nothing.yaml is not a file"),
        (["rules.yaml", "--request", "nothing.json"], "nothing.json: No such file"),
        (["rules.yaml", "--request", "rules.yaml"], "rules.yaml: The body is not valid JSON"),
        (["rules.yaml", "--request", "empty.json"], "empty.json: `messages` must be a list"),
        (["rules.yaml", "--request", "request.json", "--row", "{"], "--row: not JSON"),
    ],
)
def test_what_cannot_be_checked_is_refused(
    arguments: list[str], reason: str, rules: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked("empty.json", {})
    asked("request.json", ask())
    assert main(["script", "check", *arguments]) == 2
    assert reason in capsys.readouterr().err
