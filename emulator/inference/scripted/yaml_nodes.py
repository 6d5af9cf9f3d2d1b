"""YAML whose values know their lines. Plain scalars are read as YAML 1.2 has it: `yes` and `on` are texts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml
from yaml.nodes import MappingNode, ScalarNode, SequenceNode
from yaml.nodes import Node as YAMLNode

from emulator.inference.scripted.wrong_script import Problem

_MOST = 100_000  # values, where aliases repeat others
_DEEPEST = 100

_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"~|null|Null|NULL|")
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,4000}")
_NUMBER = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")


class NoYAML(Exception):
    """A text is no YAML, or none that is understood here."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


@dataclass(slots=True)
class Node:
    """A value, and where it stands."""

    value: Any  #: null, boolean, number or text; a list of nodes; nodes by name
    line: int  #: where it begins; a member of a mapping, where its name stands
    text: str | None = None  #: of a scalar, as it was written
    text_line: int = 0  #: where that text begins
    name_lines: dict[str, int] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value as JSON would have it."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def read(source: bytes) -> Node:
    """The one document of a file. Raises NoYAML."""
    try:
        text = source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = source.count(b"\n", 0, error.start) + 1
        raise NoYAML(Problem(line, "the file is not encoded in UTF-8")) from None
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    try:
        _check_depth(text, loader)
        root = yaml.compose(text, loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise NoYAML(Problem(mark.line + 1 if mark else 1, f"not YAML: {what}")) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise NoYAML(Problem(line, f"not YAML: {error.reason}")) from None
    except RecursionError:
        raise NoYAML(Problem(1, "it is nested too deeply")) from None
    if root is None:
        raise NoYAML(Problem(1, "the file is empty"))
    return _Walk().node(root, 0)


def _check_depth(text: str, loader: Any) -> None:
    """Raises NoYAML for what is nested so deeply that libyaml would end the process."""
    depth = 0
    for event in yaml.parse(text, loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                mark = event.start_mark
                raise NoYAML(Problem(mark.line + 1 if mark else 1, "it is nested too deeply"))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Walk:
    def __init__(self) -> None:
        self._count = 0

    def node(self, given: YAMLNode, depth: int) -> Node:
        line = given.start_mark.line + 1
        self._count += 1
        if depth > _DEEPEST:
            raise NoYAML(Problem(line, "it is nested too deeply, or holds itself"))
        if self._count > _MOST:
            raise NoYAML(Problem(line, f"there are more than {_MOST} values"))
        if isinstance(given, MappingNode):
            return self._mapping(given, line, depth)
        if isinstance(given, SequenceNode):
            _check_tag(given, line, "seq")
            return Node([self.node(item, depth + 1) for item in given.value], line)
        assert isinstance(given, ScalarNode)
        return _scalar(given, line)

    def _mapping(self, given: MappingNode, line: int, depth: int) -> Node:
        _check_tag(given, line, "map")
        found = Node({}, line)
        for key, item in given.value:
            key_line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise NoYAML(Problem(key_line, "a name has to be a text; a template has to stand in quotes"))
            if key.value in found.value:
                message = f"{key.value!r} was given before, in line {found.name_lines[key.value]}"
                raise NoYAML(Problem(key_line, message))
            node = self.node(item, depth + 1)
            node.line = key_line
            found.value[key.value] = node
            found.name_lines[key.value] = key_line
        return found


def _scalar(given: ScalarNode, line: int) -> Node:
    text: str = given.value
    kind = _check_tag(given, line, "str", "int", "float", "bool", "null")
    is_plain = not given.style
    text_line = line + 1 if given.style in ("|", ">") else line
    value: Any = text
    if is_plain or kind != "str":
        value = _resolve(text, line)
    return Node(value, line, text, text_line)


def _resolve(text: str, line: int) -> Any:
    if _NULL.fullmatch(text):
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _NUMBER.fullmatch(text):
        value = float(text)
        if value in (float("inf"), float("-inf")):
            raise NoYAML(Problem(line, f"{text} is too large"))
        return value
    return text


def _check_tag(given: YAMLNode, line: int, *known: str) -> str:
    kind = str(given.tag).removeprefix(_TAG)
    if kind not in known:
        raise NoYAML(Problem(line, f"{given.tag} is no type that is known here"))
    return kind
