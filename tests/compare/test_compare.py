"""The comparison itself: our own contender at a tiny size, and one that can't be had."""

from pathlib import Path

import psycopg
import pytest

from tests.compare import versions
from tests.compare.measuring import Row, Scale, measure
from tests.compare.ours import SmallBatches
from tests.compare.reporting import BEGIN, END, write_readme
from tests.compare.tokenledger import TokenLedger
from tests.compare.workload import agent_over, generate, recount
from tests.conftest import ONE_SERVER

TINY = Scale(calls=200, filled=400, pace=1000.0, kill_after=100)


class Tiny(SmallBatches):
    """Batches of 20, written once, asked its questions too."""

    batch = 20
    rounds = 1
    fills = True


@ONE_SERVER
def test_ours_agrees_with_a_recount(url: str, tmp_path: Path) -> None:
    row = measure(Tiny(), url, tmp_path, tmp_path, TINY)
    assert row.reason is None
    assert (row.seen, row.filled) == (200, 400)
    assert row.cost_error == 0
    assert row.token_error == 0
    assert row.totals == "agree"
    assert row.delivered_twice == "counted once"
    # A commit may have gone through whose acknowledgement the kill cut off; none is missing.
    assert row.acknowledged is not None
    assert row.present is not None
    assert row.acknowledged <= row.present <= row.acknowledged + 20
    assert row.milliseconds.keys() == {"conversation", "model", "user"}
    # Its database is gone.
    with psycopg.connect(url) as connection:
        left = connection.execute("select datname from pg_database where datname ~ '^compare_'")
        assert left.fetchall() == []


def test_a_contender_that_cannot_be_installed_has_a_row_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = tmp_path / "no-such-package"
    monkeypatch.setitem(versions.PACKAGES, "tokenledger", (f"{nowhere}==0.1.1",))
    row = measure(TokenLedger(), "postgresql://unused", tmp_path, tmp_path, TINY)
    assert row.calls_per_second is None
    assert row.version == "0.1.1"
    assert row.reason is not None
    assert row.reason.startswith("pip install failed: ")


def test_the_calls_are_the_same_every_time() -> None:
    calls = generate(200, "w")
    assert calls == generate(200, "w")
    assert len({call.id for call in calls}) == 200
    assert len({call.conversation for call in calls}) == 20
    agent = agent_over(calls[:2], calls[2].id)
    assert recount([agent]).cost == recount(calls[:2]).cost
    assert recount([agent]).tokens == recount(calls[:2]).tokens


def test_the_readme_gets_the_table_between_its_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    rows = [
        Row("limit", "", "A table.", calls_per_second=1000.0),
        Row("theirs", "2.0", "A server.", calls_per_second=5.0),
        Row("other", "3.0", "-", reason="no wheel"),
    ]
    write_readme(readme, rows, TINY)
    text = readme.read_text()
    assert text.startswith(f"before\n{BEGIN}\n|")
    assert text.endswith(f"{END}\nafter\n")
    assert "| theirs 2.0 | 5 | 0.0050 |" in text
    assert "- other 3.0: not run: no wheel" in text
    assert "old" not in text
    write_readme(readme, rows, TINY)
    assert readme.read_text() == text


def test_the_readme_must_have_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("nothing to write between")
    with pytest.raises(SystemExit, match="to write between"):
        write_readme(readme, [], TINY)
