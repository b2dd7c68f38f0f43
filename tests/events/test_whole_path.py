"""Commit to reader under random faults; see whole_path.py."""

from tests.events.whole_path import campaign


async def test_nothing_is_lost_doubled_invented_or_disordered(url: str) -> None:
    ledger, verdicts = await campaign(url, seconds=3, seed=1, commits=100)
    assert len(ledger.committed) >= 100
    assert ledger.rolled_back
    assert [v for v in verdicts if not v.good] == []
    assert all(v.events == len(ledger.committed) for v in verdicts)
    assert any(v.reconnects > 0 for v in verdicts)  # whom the faults meet is chance
