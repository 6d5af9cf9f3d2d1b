"""`job-runtime-local script`: check the rules of the scripted model, and try them."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.commands import Refused
from emulator.terminal import prepare_output, visible

if TYPE_CHECKING:
    from emulator.inference.scripted import Reply, Request, Rules

#: The exit status where a file is wrong, or nothing answers.
WRONG = 1


def configure(parser: argparse.ArgumentParser) -> None:
    """Add `check`."""
    commands = parser.add_subparsers(metavar="ACTION", required=True)
    check = commands.add_parser("check", help="list what is wrong with a rule file; exit status 1 if something is")
    check.add_argument("file", type=Path, metavar="FILE", help="rules in YAML, or in Python where the name ends in .py")
    check.add_argument("--request", metavar="FILE", help="say which rule answers this request, and what; - reads it")
    check.add_argument("--trajectory", default="", metavar="ID", help="the request's trajectory")
    check.add_argument("--job", default="", metavar="ARN", help="the request's job")
    check.add_argument("--row", metavar="JSON", help="the row of the data set that the request is about")
    check.set_defaults(run=_check)


def _check(given: argparse.Namespace) -> int:
    from emulator.inference.scripted.script_file import load
    from emulator.inference.scripted.wrong_script import WrongScript

    prepare_output()
    if not given.file.is_file():
        raise Refused(f"{given.file} is not a file")
    try:
        rules = load(given.file)
    except WrongScript as error:
        for line in error.lines:
            _say(line)
        return WRONG
    if given.request is None:
        _say(f"{given.file}: OK, {_summary(rules)}")
        for number, rule in enumerate(rules.rules, 1):
            count = len(rule.answers)
            _say(f"  {number}. {rule}" + (f" ({count} replies)" if count > 1 else ""))
        return 0
    return _try(rules, _request(given))


def _summary(rules: Rules) -> str:
    return f"{rules.count_text}; what none answers {rules.default_text}"


def _request(given: argparse.Namespace) -> Request:
    """The request to try, checked as the model server checks it. Raises Refused."""
    from emulator.inference.scripted import BadRequest, Request
    from emulator.inference.scripted.completion import prompts
    from emulator.inference.scripted.wire import chat_form, completion_form, parse

    try:
        body = sys.stdin.buffer.read() if given.request == "-" else Path(given.request).read_bytes()
    except OSError as error:
        raise Refused(f"{given.request}: {error.strerror}") from None
    try:
        asked = parse(body)
        if "prompt" in asked and "messages" not in asked:
            completion_form(asked)
            asked = {**asked, "prompt": prompts(asked)[0].text}
        else:
            chat_form(asked)
    except (BadRequest, RecursionError) as error:
        raise Refused(f"{given.request}: {error}") from None
    if given.row is not None:
        try:
            json.loads(given.row)
        except ValueError as error:
            raise Refused(f"--row: not JSON: {error}") from None
    return Request(asked, job=given.job, trajectory=given.trajectory, instance=given.row)


def _try(rules: Rules, request: Request) -> int:
    """Say which rule answers, and what; and of those before it, why they do not."""
    from emulator.inference.scripted import BadRequest
    from emulator.inference.scripted.template import BadTemplate

    found = False
    try:
        for number, (rule, reason) in enumerate(rules.explain(request), 1):
            fits = "would answer too, but comes later" if found else "answers"
            _say(f"{number}. {rule}: {reason or fits}")
            found = found or reason is None
        if not found and rules.default is None:
            _say("No rule answers: the request is refused, with these reasons")
            return WRONG
        if not found:
            _say(f"No rule answers: it {rules.default_text}")
        (reply,) = rules.replies(request, 1)
    except (BadRequest, BadTemplate) as error:
        _say(f"The answer fails: {error}")
        return WRONG
    except Exception as error:  # of a function of the file's own
        _say(f"The answer fails: {type(error).__name__}: {error}")
        return WRONG
    _say(json.dumps(_shown(reply), ensure_ascii=False, indent=2))
    return 0


def _shown(value: Reply | Any) -> Any:
    """What of a reply is not as it would be anyway."""
    if is_dataclass(value) and not isinstance(value, type):
        members = ((each, getattr(value, each.name)) for each in fields(value))
        return {each.name: _shown(member) for each, member in members if member not in (each.default, ())}
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    return value


def _say(text: str) -> None:
    print(visible(text, lines=True))
