"""Requests a minute: what a caller has left, and how it comes back."""

from types import SimpleNamespace

import pytest

from chatter_db.server import limits
from chatter_db.server.limits import RateLimit


def test_tokens_come_back_with_time_and_no_more_than_there_were(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = 1000.0
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda: clock))
    limit = RateLimit(60)

    def passed() -> int:
        """How many requests in a row are let through."""
        count = 0
        while not limit.wait("ada"):
            count += 1
        return count

    assert passed() == 60
    # Who is refused loses nothing by it, and is told when to come again.
    assert limit.wait("ada") == limit.wait("ada") == 1
    assert limit.wait("bob") == 0
    for seconds, tokens in ((0.5, 0), (0.5, 1), (10, 10), (3600, 60)):
        clock += seconds
        assert passed() == tokens


def test_a_refusal_is_news_once_a_minute() -> None:
    limit = RateLimit(1)
    assert limit.wait("ada") == 0
    told = []
    for _ in range(3):
        assert limit.wait("ada") > 0
        told.append(limit.is_news("ada"))
    assert told == [True, False, False]
    assert limit.wait("bob") == 0 and limit.wait("bob") > 0
    assert limit.is_news("bob")


def test_a_refusal_of_another_minute_is_news_again(monkeypatch: pytest.MonkeyPatch) -> None:
    limit = RateLimit(1)
    told = []
    for second in (0, 1, 30, 62, 63):
        monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=lambda at=second: at))
        if limit.wait("ada"):
            told.append((second, limit.is_news("ada")))
    assert told == [(1, True), (30, False), (63, True)]


def test_the_caller_not_seen_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_CALLERS", 2)
    limit = RateLimit(1)
    for caller in ("ada", "bob"):
        assert limit.wait(caller) == 0
    assert limit.wait("ada") > 0  # seen again
    assert limit.wait("carl") == 0  # in the place of bob
    assert limit.wait("ada") > 0
    assert limit.wait("bob") == 0
