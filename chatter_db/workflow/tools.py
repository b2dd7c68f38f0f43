"""Tools of the chat workflow: small, offline, and useful for trying things out."""

import ast
import operator
from collections.abc import Callable
from datetime import UTC, datetime

from langchain_core.tools import BaseTool, tool

_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


@tool
def calculate(expression: str) -> str:
    """Computes an arithmetic expression of numbers, + - * / % and parentheses."""
    try:
        value = _value(ast.parse(expression, mode="eval").body)
    except (SyntaxError, ValueError, ZeroDivisionError, RecursionError) as error:
        return f"{expression!r} can't be computed: {error}"
    return f"{value:.10g}"


@tool
def current_time() -> str:
    """The date and time now, UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _value(node: ast.AST) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=operation, operand=operand) if type(operation) in _OPERATORS:
            return _OPERATORS[type(operation)](_value(operand))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATORS:
            return _OPERATORS[type(operation)](_value(left), _value(right))
        case _:
            raise ValueError("only numbers, + - * / % and parentheses are allowed")


TOOLS: tuple[BaseTool, ...] = (calculate, current_time)
