"""A short version of every campaign; see campaign.py."""

import pytest
from hypothesis import strategies as st

from tests.conftest import ONE_SERVER
from tests.fuzz.campaign import CAMPAIGNS
from tests.fuzz.tally import Outcome, Tally, drive

ON_POSTGRES = {"positions": 200, "sql": 200}
ABOVE_IT = {"normaliser": 200, "importer": 50, "pages": 100, "http": 150, "cli": 40}
"""One Postgres is enough for them: what they say doesn't depend on its version."""


def test_every_campaign_has_a_short_version() -> None:
    assert ON_POSTGRES.keys() | ABOVE_IT.keys() == CAMPAIGNS.keys()


@pytest.mark.parametrize("name", ON_POSTGRES)
def test_bad_input_does_no_harm(url: str, name: str) -> None:
    _run(url, name, ON_POSTGRES[name])


@pytest.mark.parametrize("name", ABOVE_IT)
@ONE_SERVER
def test_bad_requests_and_commands_do_no_harm(url: str, name: str) -> None:
    _run(url, name, ABOVE_IT[name])


def _run(url: str, name: str, inputs: int) -> None:
    tally = CAMPAIGNS[name](url, inputs, 1, lambda _: None)
    assert tally.failures == {}
    assert tally.tried == inputs
    assert tally.accepted > 0
    assert tally.refused > 0


def test_what_fails_is_counted_by_its_kind_and_the_next_input_is_tried() -> None:
    def attempt(number: int) -> Outcome:
        assert number % 5, "a multiple of five"
        if number % 7 == 0:
            raise ValueError("seven")
        return "accepted" if number % 2 else "refused"

    def tried() -> Tally:
        tally = Tally("numbers")
        drive(tally, st.integers(1, 10**6), 900, 7, attempt)
        return tally

    first, again = tried(), tried()
    assert first == again
    assert first.tried == 900
    assert first.failures.keys() == {"a multiple of five", "ValueError: seven"}
    assert first.accepted + first.refused + first.failed == 900
    assert int(first.failures["a multiple of five"].example) % 5 == 0
