"""The tool that the example agents offer their model: a calculator."""

from __future__ import annotations

import ast
import json
import operator
from collections.abc import Callable
from typing import Any

#: The tool as OpenAI-compatible models take it.
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "calculator",
        "description": "Work out an arithmetic expression of numbers, + - * / and parentheses.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "for example 12 * (3 + 4)"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def call(arguments: str) -> str:
    """Do what a tool call asks for. Raises ValueError if its arguments are not as the tool's schema wants them."""
    parsed = json.loads(arguments)
    if not isinstance(parsed, dict) or not isinstance(parsed.get("expression"), str):
        raise ValueError(f"not the arguments of a calculator: {arguments[:100]}")
    return calculate(parsed["expression"])


def calculate(expression: str) -> str:
    """The value of an expression, or what is wrong with it: a model may write anything."""
    try:
        value = _value(ast.parse(expression.strip()[:200], mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, OverflowError, RecursionError, MemoryError) as error:
        return f"error: {error}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _value(node: ast.expr) -> int | float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            result: int | float = _BINARY[type(op)](_value(left), _value(right))
            return result
    raise ValueError("only numbers, + - * / and parentheses")
