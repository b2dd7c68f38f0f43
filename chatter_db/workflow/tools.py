"""Tools of the chat workflow: small, offline, and useful for trying things out."""

import ast
import math
import operator
from collections.abc import Callable
from datetime import UTC, datetime

from langchain_core.tools import BaseTool, tool

MAX_EXPRESSION = 1_000
"""Characters that are computed; what Python's parser takes of more is a matter of its memory."""

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
    if len(expression) > MAX_EXPRESSION:
        return (
            f"An expression of {len(expression)} characters can't be computed, "
            f"only of {MAX_EXPRESSION} or less."
        )
    try:
        value = float(_value(ast.parse(expression, mode="eval").body))
        if not math.isfinite(value):
            raise OverflowError("a number is too large")
    # What a model asks for must not end its run.
    except (SyntaxError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
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
