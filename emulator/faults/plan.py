"""Reading a plan of faults from a YAML file, of which JSON is a part."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from emulator.faults.fault import Fault, InvalidFault, fault_of

if TYPE_CHECKING:
    import yaml


class InvalidPlan(Exception):
    """A file that is no plan of faults; the message is one line with file, line and reason."""


def read_plan(path: Path) -> tuple[Fault, ...]:
    """The faults of a file: a list, or an object with a list named `faults`. Raises InvalidPlan."""
    import yaml  # rarely needed

    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidPlan(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidPlan(f"{path}: is no text in UTF-8") from None
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        nodes = _list(root, path)
        return tuple(_fault(node, path) for node in nodes)
    except yaml.MarkedYAMLError as error:
        where = error.problem_mark or error.context_mark
        line = "" if where is None else f":{where.line + 1}"
        raise InvalidPlan(f"{path}{line}: not YAML: {error.problem or error.context}") from None
    except RecursionError:
        raise InvalidPlan(f"{path}: not YAML: it is nested too deeply") from None
    except yaml.YAMLError as error:
        raise InvalidPlan(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _list(root: yaml.Node | None, path: Path) -> list[yaml.Node]:
    import yaml

    if root is None:
        return []
    if isinstance(root, yaml.MappingNode):
        for key, _ in root.value:
            if key.value != "faults":
                raise _invalid(path, key, f"there is no {key.value!r} in a plan: it is a list named faults")
        if len(root.value) > 1:
            raise _invalid(path, root.value[1][0], "faults is given twice")
        root = root.value[0][1] if root.value else None
    if not isinstance(root, yaml.SequenceNode):
        raise _invalid(path, root, "a plan is a list of faults: [{kind: rate-limit}]")
    nodes: list[yaml.Node] = root.value
    return nodes


def _fault(node: yaml.Node, path: Path) -> Fault:
    import yaml

    keys: dict[str, yaml.Node] = {}
    document: Any = None
    if isinstance(node, yaml.MappingNode):
        document = {}
        for key, value in node.value:
            name = str(key.value)
            if name in keys:
                raise _invalid(path, key, f"{name} is given twice")
            keys[name] = key
            document[name] = _plain(value)
    try:
        return fault_of(document)
    except InvalidFault as error:
        raise _invalid(path, keys.get(error.option or "", node), str(error)) from None


def _plain(node: yaml.Node) -> Any:
    """What a node says, in plain values."""
    import yaml

    loader = yaml.SafeLoader("")
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:  # a date that is none, a number of thousands of digits
        raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None
    finally:
        loader.dispose()


def _invalid(path: Path, node: yaml.Node | None, reason: str) -> InvalidPlan:
    line = "" if node is None else f":{node.start_mark.line + 1}"
    return InvalidPlan(f"{path}{line}: {reason}")
