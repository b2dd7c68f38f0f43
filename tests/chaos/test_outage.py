"""Postgres away and the app killed, with both durabilities; see outage.py for the long one."""

import pytest

from tests.chaos.outage import outage


@pytest.mark.timeout(300)
@pytest.mark.parametrize("durability", ["database", "spool"])
async def test_every_answered_call_is_booked_once(durability: str) -> None:
    told = await outage(runs=30, seconds=2, durability=durability)
    assert told.found == []
    assert told.answered_while_away > 0
    assert told.answered > 60
