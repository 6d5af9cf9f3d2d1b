"""Rule files in Python: `RULES`, or `def answer(request)`, or both; and `SEED` and `DEFAULT`."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from emulator.inference.scripted.reply import Reply
from emulator.inference.scripted.rules import Rule, Rules
from emulator.inference.scripted.script import choose
from emulator.inference.scripted.wrong_script import Problem, WrongScript, line_of

#: The module's name, by which its own classes and functions find it.
_MODULE = "job_runtime_local_script"


def parse(source: bytes, path: Path) -> Rules:
    """Run the file; its rules. Raises WrongScript, whatever it raises."""
    try:
        tree = ast.parse(source, str(path))
        code = compile(tree, str(path), "exec")
    except SyntaxError as error:
        raise WrongScript(path, [Problem(error.lineno or 1, f"not Python: {error.msg}")]) from None
    except (ValueError, RecursionError, MemoryError) as error:  # null bytes; nested too deeply
        raise WrongScript(path, [Problem(1, f"not Python: {error}")]) from None
    module = ModuleType(_MODULE)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module
    try:
        with _neighbours_of(path):
            exec(code, vars(module))  # noqa: S102 - the user's own file
    except (Exception, SystemExit) as error:
        message = f"{type(error).__name__}: {error}"
        raise WrongScript(path, [Problem(line_of(error, path) or 1, message)]) from error
    return _rules(module, _Lines(tree), path)


@contextmanager
def _neighbours_of(path: Path) -> Iterator[None]:
    """Let the file import what lies beside it."""
    folder = str(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


class _Lines:
    """Where a file gives its names their values."""

    def __init__(self, tree: ast.Module) -> None:
        self._lines: dict[str, int] = {}
        for statement in tree.body:
            if isinstance(statement, ast.Assign):
                names = [target.id for target in statement.targets if isinstance(target, ast.Name)]
            elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                names = [statement.target.id]
            elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names = [statement.name]
            else:
                continue
            self._lines.update(dict.fromkeys(names, statement.lineno))

    def __getitem__(self, name: str) -> int:
        return self._lines.get(name, 1)


def _rules(module: ModuleType, lines: _Lines, path: Path) -> Rules:
    given = vars(module)
    problems: list[Problem] = []
    if "RULES" not in given and "answer" not in given:
        problems.append(Problem(1, "there is neither a list RULES nor a function answer(request)"))
    rules = given.get("RULES", [])
    if not isinstance(rules, list | tuple) or not all(isinstance(rule, Rule) for rule in rules):
        problems.append(Problem(lines["RULES"], "RULES has to be a list of Rule"))
    if "answer" in given:
        problems += _check_answer(given["answer"], lines)
    default: Any = given.get("DEFAULT", given.get("answer", choose))
    if "DEFAULT" in given and default is not None and not isinstance(default, str | Reply) and not callable(default):
        problems.append(Problem(lines["DEFAULT"], "DEFAULT has to be a Reply, a text, a function, or None"))
    if "DEFAULT" in given and "answer" in given:
        problems.append(Problem(lines["DEFAULT"], "DEFAULT and answer(request) are both for what no rule answers"))
    seed = given.get("SEED", 0)
    if not isinstance(seed, int | str):
        problems.append(Problem(lines["SEED"], "SEED has to be a whole number or a text"))
    if problems:
        raise WrongScript(path, problems)
    return Rules(rules, default=default, seed=seed)


def _check_answer(answer: Any, lines: _Lines) -> list[Problem]:
    if not callable(answer):
        return [Problem(lines["answer"], "answer has to be a function")]
    if inspect.iscoroutinefunction(answer):
        return [Problem(lines["answer"], "answer has to be a plain function, not an async one")]
    try:
        inspect.signature(answer).bind(None)
    except TypeError:
        return [Problem(lines["answer"], "answer has to take one argument, the request")]
    except ValueError:  # a built-in function that does not tell
        pass
    return []
