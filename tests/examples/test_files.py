"""What makes an example one: it stands alone, is described, and rewards what is right and nothing else."""

from __future__ import annotations

import ast
import importlib
import json
import operator
import re
from collections.abc import Callable
from types import ModuleType

import pytest

from tests.examples.agents import EXAMPLES, SERVERS, commands

pytestmark = pytest.mark.filterwarnings("ignore:Support for class-based `config`")  # of what bedrock-agentcore uses

#: What is no example.
OTHERS = {"__init__"}
NAMES = sorted({path.stem for path in EXAMPLES.glob("*.py")} - OTHERS)
AGENTS = [name for name in NAMES if not name.startswith("test_")]

#: Those with a tool that this environment can import.
WITH_TOOL = ["openai_tools", "agentcore_app"]


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_needs_no_other_file(name: str) -> None:
    for node in ast.walk(ast.parse((EXAMPLES / f"{name}.py").read_text())):
        imported = [node.module] if isinstance(node, ast.ImportFrom) else []
        imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        assert not [module for module in imported if (module or "").partition(".")[0] in {"examples", "emulator"}]


@pytest.mark.parametrize("name", NAMES)
def test_an_example_says_how_to_run_it(name: str) -> None:
    assert 1 <= len(commands(name)) <= 2
    assert all(name in " ".join(words) for words in commands(name) if words[0] == "uvicorn" and name in SERVERS)


def test_the_table_of_examples_names_each() -> None:
    table = (EXAMPLES / "README.md").read_text()
    assert sorted(re.findall(r"^\| \[`(\w+)\.py`\]\(\1\.py\)", table, re.MULTILINE)) == NAMES


def test_the_data_set_is_arithmetic_that_is_right() -> None:
    rows = [json.loads(line) for line in (EXAMPLES / "arithmetic.jsonl").read_text().splitlines()]
    assert len(rows) >= 32
    assert len({row["prompt"] for row in rows}) == len(rows)
    signs: dict[str, Callable[[int, int], int]] = {"+": operator.add, "-": operator.sub, "*": operator.mul}
    for row in rows:
        ((left, sign, right),) = re.findall(r"(\d+) ([-+*]) (\d+)", row["prompt"])
        assert row["answer"] == str(signs[sign](int(left), int(right)))


@pytest.fixture(params=WITH_TOOL)
def with_tool(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(f"examples.{request.param}")


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("12 * 7", "12 * 7 = 84"),
        ("3+4", "3+4 = 7"),
        ("3 - 10 = ?", "3 - 10 = -7"),
        ("__import__('os')", "error: write two whole numbers with +, - or * between them"),
        ("9 ** 9 ** 9", "error: write two whole numbers with +, - or * between them"),
    ],
)
def test_the_calculator_calculates_and_does_nothing_else(with_tool: ModuleType, expression: str, result: str) -> None:
    assert with_tool.calculator(expression) == result


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("12 * 7 is 84, so the answer is 84.", 1.0),
        ("The answer is 1,084", 0.0),
        ("84 or 85", 0.0),
        ("I do not know", 0.0),
        ("", 0.0),
    ],
)
@pytest.mark.parametrize(
    ("name", "given"),
    [("openai_tools", "84"), ("agentcore_app", "What is 12 * 7?"), ("boto3_streaming", "What is 12 * 7?")],
)
def test_a_reward_is_for_the_last_number_of_the_answer(name: str, given: str, answer: str, value: float) -> None:
    assert importlib.import_module(f"examples.{name}").reward(answer, given) == value
