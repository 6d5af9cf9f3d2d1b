"""The vocabulary of rule files in YAML (docs/script.md; docs/schemas/script-1.json says the same to editors)."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from emulator.inference.scripted.json_path import BadPath
from emulator.inference.scripted.reply import Error, Reply, Rhythm, ToolCall
from emulator.inference.scripted.request import MISSING, Request
from emulator.inference.scripted.rules import Answer, Rule, Rules, answered
from emulator.inference.scripted.script import choose
from emulator.inference.scripted.template import is_template
from emulator.inference.scripted.wrong_script import WrongScript
from emulator.inference.scripted.yaml_nodes import Node, NoYAML, read
from emulator.inference.scripted.yaml_reader import Read, Reader

_TURNS = re.compile(r"(\d{1,9})(?:-(\d{1,9})|(\+))")

#: Ways to give replies, of which a rule has one.
_WAYS = ("reply", "replies", "one_of")


def parse(source: bytes, path: Path) -> Rules:
    """The rules of a file. Raises WrongScript."""
    try:
        root = read(source)
    except NoYAML as error:
        raise WrongScript(path, [error.problem]) from None
    vocabulary = Vocabulary()
    rules = vocabulary.rules(root)
    if rules is None:
        raise WrongScript(path, vocabulary.problems)
    return rules


class Vocabulary(Reader):
    """Reads one file."""

    def rules(self, root: Node) -> Rules | None:
        """All of it; None if there are problems."""
        found = self.members(root, "", self.file_members, "a rule file")
        if "rules" not in found and not self.problems:
            self.wrong(root, "", "there are no `rules`")
        if self.problems:
            return None
        return Rules(found["rules"], default=found.get("default", choose), seed=found.get("seed", 0))

    @property
    def file_members(self) -> Mapping[str, Read]:
        """What a file may say."""
        return {"seed": self._seed, "default": self._default, "rules": self._rules}

    @property
    def rule_members(self) -> Mapping[str, Read]:
        """What a rule may say."""
        return {
            "name": self.text,
            "when": lambda node, where: self.members(node, where, self.conditions, "`when`"),
            "reply": self._reply,
            "replies": lambda node, where: self.items(node, where, self._reply, "replies"),
            "one_of": lambda node, where: self.items(node, where, self._weighted, "replies"),
            "then": self.one_of("stay", "loop", "next"),
            "times": self.whole(1),
        }

    @property
    def conditions(self) -> Mapping[str, Read]:
        """What a rule may ask for."""
        return {
            "turn": self._turns,
            "last": self.regex,
            "last_user": self.regex,
            "last_tool": self.regex,
            "last_json": self._values,
            "tools": self._tools,
            "model": self.glob_or_regex,
            "trajectory": self.glob_or_regex,
            "job": self.glob_or_regex,
            "row": self._values,
        }

    @property
    def reply_members(self) -> Mapping[str, Read]:
        """What a reply may say."""
        return {
            "content": lambda node, where: None if node.value is None else self.template(node, where),
            "tool_calls": lambda node, where: self.items(node, where, self._tool_call, "tool calls"),
            "reasoning": self.template,
            "builtin": self.boolean,
            "finish_reason": self.text,
            "logprobs": self._logprobs,
            "error": self._error,
            "delay": self.number,
            "rhythm": lambda node, where: Rhythm(**self.members(node, where, self.rhythm_members, "a rhythm")),
            "max_tokens": self.whole(1),
            "break_after": self.whole(0),
            "template": self.boolean,
        }

    @property
    def error_members(self) -> Mapping[str, Read]:
        """What an error may say."""
        return {
            "status": self._status,
            "message": self.template,
            "type": self.text,
            "code": self.text,
            "param": self.text,
            "retry_after": self._retry_after,
            "style": self.one_of("vllm", "openai"),
        }

    @property
    def rhythm_members(self) -> Mapping[str, Read]:
        """What a rhythm may say."""
        by = self.one_of("token", "character", "word", "line", "all")
        return {"by": by, "size": self.whole(1), "first": self.number, "pause": self.number}

    @property
    def call_members(self) -> Mapping[str, Read]:
        """What a tool call may say."""
        return {"name": self.template, "arguments": self._arguments, "id": self.text}

    def _seed(self, node: Node, where: str) -> int | str:
        if isinstance(node.value, bool) or not isinstance(node.value, int | str):
            self.wrong(node, where, "has to be a whole number or a text")
        return node.value  # type: ignore[no-any-return]

    def _default(self, node: Node, where: str) -> Reply | Answer | None:
        if node.value == "error":
            return None
        if node.value == "builtin":
            return choose
        if isinstance(node.value, dict):
            return self._reply(node, where)
        self.wrong(node, where, "has to be 'builtin', 'error', or a reply with its `content`")
        return None

    def _rules(self, node: Node, where: str) -> list[Rule]:
        return self.items(node, where, self._rule, "rules")

    def _rule(self, node: Node, where: str) -> Rule | None:
        before = len(self.problems)
        found = self.members(node, where, self.rule_members, "a rule")
        if not isinstance(node.value, dict):
            return None
        ways = [way for way in _WAYS if way in node.value]
        if not ways and node.value.keys() - self.rule_members.keys():
            return None  # a misspelt one, which was told
        if len(ways) != 1:
            has = " and ".join(map(repr, ways)) or "none"
            self.wrong(node, where, f"a rule needs one of 'reply', 'replies' and 'one_of'; this one has {has}")
        elif "then" in node.value and ways != ["replies"] and not (ways == ["reply"] and found["then"] == "next"):
            line = node.value["then"].line
            self.wrong(node, where, f"'then' says what comes after 'replies'; here is {ways[0]!r}", line)
        if len(self.problems) > before:
            return None
        given = {**found.pop("when", {}), **{name: found[name] for name in ("name", "then", "times") if name in found}}
        replies = found[ways[0]]
        if ways == ["one_of"]:
            given |= {"at_random": True, "weights": [weight for weight, _ in replies]}
            replies = [reply for _, reply in replies]
        try:
            return Rule(replies, **given)
        except (ValueError, BadPath, re.error) as error:
            self.wrong(node, where, str(error))
            return None

    def _weighted(self, node: Node, where: str) -> tuple[float, Reply | Answer]:
        weight: list[float] = []
        known = {**self.reply_members, "weight": lambda item, place: weight.append(self.number(item, place))}
        reply = self._made(node, where, known)
        return weight[0] if weight else 1.0, reply

    def _reply(self, node: Node, where: str) -> Reply | Answer:
        return self._made(node, where, self.reply_members)

    def _made(self, node: Node, where: str, known: Mapping[str, Read]) -> Reply | Answer:
        if not isinstance(node.value, dict):
            text = self.template(node, where)
            return Reply(text, template=is_template(text))
        found = self.members(node, where, known, "a reply")
        found.pop("weight", None)
        is_builtin = found.pop("builtin", False)
        says = {"content", "tool_calls", "reasoning", "error"} & found.keys()
        if is_builtin and says:
            self.wrong(node, where, f"what is 'builtin' cannot have {', '.join(map(repr, sorted(says)))}")
        elif not is_builtin and not says and node.value.keys() <= known.keys():
            self.wrong(node, where, "a reply needs 'content', 'tool_calls', 'reasoning', 'error' or 'builtin'")
        if found.get("template", True):
            found["template"] = _has_template(found)
        if not is_builtin:
            return Reply(**found)
        return lambda request: _as_builtin(found, request)

    def _tool_call(self, node: Node, where: str) -> ToolCall:
        found = self.members(node, where, self.call_members, "a tool call")
        if isinstance(node.value, dict) and "name" not in node.value:
            self.wrong(node, where, "a tool call needs a 'name'")
        return ToolCall(**{"name": "", **found})

    def _arguments(self, node: Node, where: str) -> str | dict[str, Any]:
        if isinstance(node.value, str):
            return self.template(node, where)
        if not isinstance(node.value, dict):
            self.wrong(node, where, "has to be a mapping, or a text that is sent as it is")
            return ""
        self._templates_in(node, where)
        return node.plain()  # type: ignore[no-any-return]

    def _templates_in(self, node: Node, where: str) -> None:
        if isinstance(node.value, dict):
            for name, item in node.value.items():
                self._templates_in(item, f"{where}.{name}")
        elif isinstance(node.value, list):
            for number, item in enumerate(node.value):
                self._templates_in(item, f"{where}[{number}]")
        elif isinstance(node.value, str):
            self.template(node, where)

    def _error(self, node: Node, where: str) -> Error:
        if isinstance(node.value, dict):
            return Error(**self.members(node, where, self.error_members, "an error"))
        return Error(self._status(node, where))

    def _status(self, node: Node, where: str) -> int:
        value = node.value
        if not isinstance(value, int) or isinstance(value, bool) or not 400 <= value <= 599:
            self.wrong(node, where, "has to be the status of an error, from 400 to 599")
            return 500
        return value

    def _retry_after(self, node: Node, where: str) -> str | float:
        if isinstance(node.value, str):
            if not node.value.isascii() or not node.value.isprintable():
                self.wrong(node, where, "has to be seconds or an HTTP date")
            return node.value
        return self.number(node, where)

    def _logprobs(self, node: Node, where: str) -> float | list[float]:
        def one(item: Node, place: str) -> float:
            if isinstance(item.value, bool) or not isinstance(item.value, int | float) or item.value > 0:
                self.wrong(item, place, "a log probability is a number, at most 0")
                return 0.0
            return item.value

        return self.items(node, where, one, "numbers") if isinstance(node.value, list) else one(node, where)

    def _turns(self, node: Node, where: str) -> int | range | Sequence[int]:
        if isinstance(node.value, list):
            return self.items(node, where, self.whole(1), "turns")
        if isinstance(node.value, str):
            found = _TURNS.fullmatch(node.value)
            if found is None or (found[2] and int(found[2]) < int(found[1])):
                self.wrong(node, where, "has to be a turn (2), turns ([1, 3]), or a range of them ('2-4', '3+')")
                return 1
            return range(int(found[1]), int(found[2]) + 1 if found[2] else sys.maxsize)
        return self.whole(1)(node, where)  # type: ignore[no-any-return]

    def _tools(self, node: Node, where: str) -> Sequence[str]:
        if isinstance(node.value, str):
            return (node.value,)
        if node.value == []:
            return ()
        return self.items(node, where, self.text, "tools")

    def _values(self, node: Node, where: str) -> dict[str, Any]:
        if not isinstance(node.value, dict) or not node.value:
            self.wrong(node, where, "has to be a mapping from names or JSON paths to values")
            return {}
        for name, item in node.value.items():
            self.path(name, item, where)
        return {name: self._value(item, f"{where}.{name}") for name, item in node.value.items()}

    def _value(self, node: Node, where: str) -> Any:
        """A value to be equal to, or one of the tests."""
        if not isinstance(node.value, dict):
            return node.plain()
        tests: dict[str, Read] = {
            "regex": self.regex,
            "exists": lambda item, place: ... if self.boolean(item, place) else MISSING,
            "equals": lambda item, _: item.plain(),
        }
        found = self.members(node, where, tests, "a test")
        if len(node.value) != 1:
            self.wrong(node, where, "has to be one test: 'regex', 'exists' or 'equals'")
        return next(iter(found.values()), None)


def _has_template(found: Mapping[str, Any]) -> bool:
    error: Error | None = found.get("error")
    calls: Sequence[ToolCall] = found.get("tool_calls", ())
    texts = [found.get("content"), found.get("reasoning"), error and error.message]
    texts += [text for call in calls for text in (call.name, str(call.arguments))]
    return any(text and is_template(text) for text in texts)


def _as_builtin(found: Mapping[str, Any], request: Request) -> Reply:
    return replace(answered(choose, request), **found)
