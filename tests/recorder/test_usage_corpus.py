"""Recorded answers of some twenty providers: read from the bytes, and through the real packages.

No number may be wrong. What stays unknown is listed with the reason.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from chatter_db.recorder.usage import Usage, from_wire
from tests.recorder import corpus

RESPONSES = corpus.rows("provider_responses.jsonl")
ERRORS = corpus.rows("provider_errors.jsonl")

pytestmark = [
    pytest.mark.skipif(not RESPONSES, reason="the recorded answers are not beside the repository"),
    # What the packages warn of is theirs: deprecated arguments, models that they don't know.
    pytest.mark.filterwarnings("ignore"),
]

NO_PROMPT_IN_STREAM = "langchain-anthropic reads the last event, which has no prompt"
PACKAGE_RAISES = "the package raises on this body, and leaves nothing"
NO_USAGE_LEFT = "the package leaves no usage of a stream"

UNKNOWN_BY_PACKAGE = {
    "u0057": NO_PROMPT_IN_STREAM,
    "u0058": NO_PROMPT_IN_STREAM,
    "u0065": NO_PROMPT_IN_STREAM,
    "u0063": PACKAGE_RAISES,
    "u0071": PACKAGE_RAISES,
    "u0078": PACKAGE_RAISES,
    "u0085": PACKAGE_RAISES,
    "u0175": PACKAGE_RAISES,
    "u0314": PACKAGE_RAISES,
    "u0318": PACKAGE_RAISES,
    "u0563": "the stream ends in an error, which langchain-openai raises",
    "u0343": "x_groq.usage is Groq's own, and langchain-openai keeps nothing of it",
    "u0344": "x_groq.usage is Groq's own, and langchain-openai keeps nothing of it",
}
"""Rows of which the package that could be tried leaves less than the wire says."""

UNKNOWN_IN_METADATA = {
    "u0057": NO_PROMPT_IN_STREAM,
    "u0058": NO_PROMPT_IN_STREAM,
    "u0065": NO_PROMPT_IN_STREAM,
    "u0223": NO_USAGE_LEFT,
    "u0224": NO_USAGE_LEFT,
    "u0228": NO_USAGE_LEFT,
    "u0365": "langchain-mistralai leaves out what was cached",
}
"""Rows of which the package's usage_metadata alone says less than the wire."""


@pytest.fixture(scope="module")
def stage() -> Iterator[corpus.Stage]:
    with corpus.stage() as stage:
        yield stage


def named(row: dict[str, Any]) -> str:
    return f"{row.get('id', row['interaction'])}-{row['provider']}"


@pytest.mark.parametrize("row", RESPONSES, ids=named)
def test_the_wire_says(row: corpus.Row) -> None:
    for told in (True, False):
        usage = corpus.wire_usage(row, named=told)
        assert corpus.judge(row, usage) == corpus.Judged("right")
        assert usage.status == "reported"
        assert usage.raw and not usage.malformed


@pytest.mark.parametrize("row", [row for row in RESPONSES if corpus.maker_of(row)], ids=named)
def test_the_real_package_leaves(row: corpus.Row, stage: corpus.Stage) -> None:
    usage, _ = stage.play(row)
    judged = corpus.judge(row, usage)
    assert judged.verdict == ("unknown" if row["id"] in UNKNOWN_BY_PACKAGE else "right"), judged.why
    assert not usage.malformed


@pytest.mark.parametrize(
    "row", [row for row in RESPONSES if row.get("expected_langchain")], ids=named
)
def test_usage_metadata_alone_is_corrected(row: corpus.Row) -> None:
    """Packages that are not installed too, by what they are known to leave."""
    usage = corpus.left_by_langchain(row)
    judged = corpus.judge(row, usage)
    assert judged.verdict == ("unknown" if row["id"] in UNKNOWN_IN_METADATA else "right"), (
        judged.why
    )


@pytest.mark.parametrize("row", ERRORS, ids=named)
def test_an_error_has_no_numbers(row: corpus.Row, stage: corpus.Stage) -> None:
    nothing = Usage()
    assert corpus.wire_usage(row) == nothing
    assert corpus.wire_usage(row, named=False) == nothing
    if corpus.maker_of(row):
        usage, failure = stage.play(row)
        assert usage == nothing
        assert (failure is not None) == (row["kind"] == "error" or row["provider"] == "groq")


@pytest.mark.parametrize("row", [row for row in RESPONSES if row["stream"]], ids=named)
def test_half_a_stream_has_no_false_number(row: corpus.Row) -> None:
    """Cut anywhere, a stream says less than it would have, or a part of it, never more."""
    events = corpus.content(row)
    whole = corpus.wire_usage(row)
    for end in range(len(events)):
        usage = from_wire(row["provider"], events[:end])
        for name in ("completion_tokens", "reasoning_tokens", "total_tokens"):
            part, all_of_it = getattr(usage, name), getattr(whole, name)
            assert part is None or all_of_it is None or part <= all_of_it
        assert usage.completion_tokens != 0
        for name in ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens"):
            assert getattr(usage, name) != 0 or not getattr(whole, name)
