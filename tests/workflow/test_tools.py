"""The tools that come along: whatever a model asks of them, they answer it."""

import pytest

from chatter_db import Chatter, execute_chat_workflow
from chatter_db.workflow import OfflineChatModel
from chatter_db.workflow.tools import MAX_EXPRESSION, calculate


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("12 * (3 + 4)", "84"),
        ("-7 % 3 / 2", "1"),
        ("1.5e3 - +2", "1498"),
        ("(" * 100 + "1" + ")" * 100, "1"),
        ("1" + "0" * 300, "1e+300"),
    ],
)
def test_what_is_computed(expression: str, value: str) -> None:
    assert calculate.invoke({"expression": expression}) == value


@pytest.mark.parametrize(
    "expression",
    [
        "1 / 0",
        "1" + "0" * 400,
        "9" * 400 + " / 3",
        "*".join(["9" * 90] * 10),
        "1e400",
        "1e400 - 1e400",
        "2 ** 9",
        "True + 1",
        "1j",
        "__import__('os')",
        "1 +",
        "",
        "1\0",
        "\ud800",
        "(" * 900 + "1",
        "-" * (MAX_EXPRESSION - 1) + "x",
        "-" * 200_000 + "1",
        "9" * 100_000,
        "1+" * 100_000 + "1",
    ],
)
def test_what_is_not_is_said(expression: str) -> None:
    assert "can't be computed" in calculate.invoke({"expression": expression})


async def test_a_number_that_is_too_large_ends_no_run(chatter: Chatter) -> None:
    response = await execute_chat_workflow(f"What is 1{'0' * 400} + 1?", chatter=chatter)
    assert "can't be computed: int too large to convert to float" in response.content


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("What is 12 * (3 + 4) / 7?", "12 * (3 + 4) / 7"),
        ("((1+2)*3)-4", "((1+2)*3)-4"),
        ("Well...1.5-.5, or -2 * -3?", "-2 * -3"),
        ("from 2024-10 on", "2024-10"),
        ("version 1.2.3", None),
        ("room 12", None),
        # Tried from every place to the end these take longer than the suite lets a test.
        ("1" * 100_000, None),
        ("(" * 100_000, None),
        ("1." * 50_000, None),
        ("-" * 100_000 + "1+1", "-" * 100_000 + "1+1"),
    ],
)
async def test_what_the_offline_model_computes(text: str, expression: str | None) -> None:
    reply = await OfflineChatModel().bind_tools([calculate]).ainvoke(text)
    found = [call["args"]["expression"] for call in reply.tool_calls]
    assert found == ([expression] if expression else [])
