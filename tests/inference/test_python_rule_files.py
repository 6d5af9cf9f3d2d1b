"""Rule files in Python, and files that change while the server answers."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from pathlib import Path

import pytest

from emulator.inference.chosen import make_model_server
from emulator.inference.scripted import Request, Rules, ScriptedServer
from emulator.inference.scripted.script_file import ScriptFile, load
from emulator.inference.scripted.wrong_script import WrongScript
from emulator.settings import InvalidSetting, Settings
from tests.inference.test_scripted import CHAT, answer_to, ask, send
from tests.virtual_time import run

IMPORT = "from emulator.inference.scripted import Rule\n"


def written(folder: Path, text: str, name: str = "rules.py") -> Path:
    """A file whose time differs from that of the file that was there before, however quick the test is."""
    path = folder / name
    before = path.stat().st_mtime_ns if path.exists() else None
    path.write_text(text)
    if before is not None:
        os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
    return path


def said(rules: Rules, text: str = "Hello?") -> str | None:
    return rules.replies(Request(ask(text)), 1)[0].content


def problem_of(folder: Path, text: str) -> str:
    path = written(folder, text)
    with pytest.raises(WrongScript) as caught:
        load(path)
    (problem,) = caught.value.lines
    return problem.removeprefix(str(path))


def test_a_list_of_rules_is_a_script(tmp_path: Path) -> None:
    text = """
from emulator.inference.scripted import Reply, Rule

SEED = 7
DEFAULT = "other"
RULES = [Rule("one", last="1"), Rule([Reply("two"), "three"], last="2")]
"""
    rules = load(written(tmp_path, text))
    assert [said(rules, each) for each in "1223"] == ["one", "two", "three", "other"]


def test_a_function_is_a_script_and_answers_what_the_rules_do_not(tmp_path: Path) -> None:
    text = """
from __future__ import annotations
from dataclasses import dataclass
from emulator.inference.scripted import Reply, Request, Rule, choose

@dataclass
class Kept:
    text: str

RULES = [Rule("rule", last="rule")]

def answer(request: Request) -> Reply | str:
    return choose(request) if request.last == "builtin" else Kept(f"{request.last}, turn {request.turn}").text
"""
    rules = load(written(tmp_path, text))
    assert [said(rules, each) for each in ("rule", "x")] == ["rule", "x, turn 1"]
    assert "scripted model" in (said(rules, "builtin") or "")


def test_without_a_default_the_built_in_script_answers_what_the_rules_do_not(tmp_path: Path) -> None:
    text = "from emulator.inference.scripted import Rule\nRULES = [Rule('x', turn=2)]\n"
    assert "scripted model" in (said(load(written(tmp_path, text))) or "")
    assert load(written(tmp_path, text + "DEFAULT = None\n")).default is None


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "TEXT = 'from beside'", "words_beside_the_rules.py")
    before = list(sys.path)
    rules = load(written(tmp_path, "from words_beside_the_rules import TEXT\ndef answer(request): return TEXT"))
    assert said(rules) == "from beside"
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", ":1: there is neither a list RULES nor a function answer(request)"),
        ("x = 1\nRULES = [", ":2: not Python: '[' was never closed"),
        ("\0", ":1: not Python: "),
        ("x = 1\n\n1 / 0\n", ":3: ZeroDivisionError: division by zero"),
        ("import json\njson.loads('{')\n", ":2: JSONDecodeError: "),
        ("import sys\nsys.exit(1)\n", ":2: SystemExit: 1"),
        ("import nothing_of_that_name", ":1: ModuleNotFoundError: "),
        ("RULES = [1]", ":1: RULES has to be a list of Rule"),
        ("\nRULES: list = {}", ":2: RULES has to be a list of Rule"),
        ("\nanswer = 1", ":2: answer has to be a function"),
        ("\nasync def answer(request): ...", ":2: answer has to be a plain function, not an async one"),
        ("\ndef answer(): ...", ":2: answer has to take one argument, the request"),
        ("\ndef answer(one, two): ...", ":2: answer has to take one argument, the request"),
        ("RULES = []\nDEFAULT = 1", ":2: DEFAULT has to be a Reply, a text, a function, or None"),
        ("def answer(request): ...\nDEFAULT = 'x'", ":2: DEFAULT and answer(request) are both for what no rule"),
        ("RULES = []\nSEED = 1.5", ":2: SEED has to be a whole number or a text"),
        (f"{IMPORT}RULES = [\n  Rule('x', last='('),\n]", f":3: {re.error.__name__}: missing ), un"),
        (f"{IMPORT}RULES = [Rule('x', row={{'$[': 1}})]", ":2: BadPath: '$['"),
        (f"{IMPORT}RULES = [Rule('x', lst='a')]", ":2: TypeError: "),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    assert problem_of(tmp_path, text).startswith(problem)


def test_a_function_that_fails_is_told_with_its_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "import json\ndef answer(request):\n    return json.loads('{')\n")
    status, _, received = send(CHAT, ask(), server=ScriptedServer(ScriptFile(path)))
    assert status == 500
    assert f"{path}:3: JSONDecodeError: " in json.loads(received[0])["error"]["message"]
    assert "json.loads('{')" in caplog.text


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(WrongScript, match=r"nothing.yaml:1: No such file"):
        load(tmp_path / "nothing.yaml")


def heard(server: ScriptedServer) -> str:
    content = answer_to(CHAT, server, **ask())["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def test_a_file_that_changes_is_read_again_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = written(tmp_path, "rules: [{reply: old}]", "rules.yaml")
    server = ScriptedServer(ScriptFile(path))
    assert heard(server) == "old"
    written(tmp_path, "rules: [{reply: new}]", "rules.yaml")
    assert heard(server) == "new"
    assert "has changed: 1 rule" in caplog.text


@pytest.mark.parametrize("change", ["rules: [{rply: new}]", None], ids=["wrong", "gone"])
def test_a_change_that_is_wrong_keeps_the_old_rules_and_says_so(
    change: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(tmp_path, "rules: [{reply: old}]", "rules.yaml")
    server = ScriptedServer(ScriptFile(path))
    if change is None:
        path.unlink()
    else:
        written(tmp_path, change, "rules.yaml")
    health = run(server.health())
    assert health.ready
    assert "AS IT WAS" in health.detail
    assert f"{path}:1: " in health.detail
    assert [heard(server), heard(server)] == ["old", "old"]
    (record,) = caplog.records  # said once
    assert record.levelno == logging.ERROR
    assert f"{path}:1: " in record.getMessage()
    path.write_text("rules: [{reply: new}]  # and right")
    assert heard(server) == "new"
    assert "AS IT WAS" not in run(server.health()).detail


def test_the_model_may_be_a_rule_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, "rules: [{reply: by rule}]", "rules.yaml")
    monkeypatch.chdir(tmp_path)
    server = make_model_server(Settings(model="scripted:rules.yaml"))
    monkeypatch.chdir("/")
    assert isinstance(server, ScriptedServer)
    assert heard(server) == "by rule"
    with pytest.raises(InvalidSetting, match="'scripted' is none of"):
        make_model_server(Settings(model="scripted:"))


def test_a_wrong_rule_file_is_refused_at_the_start(tmp_path: Path) -> None:
    path = written(tmp_path, "rules:\n  - rply: x\n  - reply: {delay: x}\n", "rules.yaml")
    with pytest.raises(InvalidSetting, match=rf"model: {path}:2: .*did you mean 'reply'.*and 2 more: `job-runtime"):
        make_model_server(Settings(model=f"scripted:{path}"))


def test_a_reset_begins_sequences_of_a_file_anew(tmp_path: Path) -> None:
    server = ScriptedServer(ScriptFile(written(tmp_path, "rules: [{replies: [a, b]}]", "rules.yaml")))
    assert (heard(server), heard(server)) == ("a", "b")
    server.reset()
    assert heard(server) == "a"
