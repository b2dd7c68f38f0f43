"""Every kind of fault once; see campaign.py."""

import pytest

from tests.chaos.campaign import campaign
from tests.chaos.faults import FAULTS


@pytest.mark.timeout(300)
async def test_the_books_stay_true_through_every_fault() -> None:
    report = await campaign(len(FAULTS), seed=1)
    assert report.known.faults.keys() | report.skipped.keys() == FAULTS.keys()
    assert report.findings.all() == []
    assert report.tracebacks == []
    assert [reader for reader in report.readers if not reader.good] == []
    assert all(reader.events == report.messages > 1000 for reader in report.readers)
