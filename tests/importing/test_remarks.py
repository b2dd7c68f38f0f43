"""What an import says at its end of rows that it could book."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from chatter_db import UsageError
from chatter_db.importing import import_file
from tests.conftest import ONE_SERVER
from tests.forked import Run

from .test_importing import call, jsonl

DAY = 24 * 60 * 60


@ONE_SERVER
def test_rows_without_a_time_and_of_the_future_are_counted(
    chatter_command: Run, url: str, tmp_path: Path
) -> None:
    now = int(time.time())
    table = tmp_path / "a.csv"
    rows = ["", "", "", now, now + DAY // 2, now + 2 * DAY]
    table.write_text("conversation,time\n" + "".join(f"c,{at}\n" for at in rows))
    tried = chatter_command("import", str(table), "--dry-run", "--json", url=url)
    facts = json.loads(tried.stdout)
    assert (facts["booked"], facts["without_time"], facts["in_future"]) == (6, 3, 1)
    tried = chatter_command("import", str(table), "--dry-run", url=url)
    done = chatter_command("import", str(table), url=url)
    for said in (tried.stdout, done.stdout):
        assert "Rows without a time: 3. Theirs is that of their booking." in said
        assert "Rows with a time more than a day ahead: 1." in said


def test_nothing_is_said_of_rows_with_a_time(url: str, tmp_path: Path) -> None:
    report = import_file(url, jsonl(tmp_path / "a.jsonl", [call(), call(time=None)]))
    assert (report.without_time, report.in_future) == (1, 0)


@ONE_SERVER
def test_an_empty_file_is_said_to_be_empty(chatter_command: Run, url: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").touch()
    done = chatter_command("import", "a.csv", "--map", "usd=cost", url=url)
    assert (done.returncode, "The file is empty." in done.stdout) == (0, True)


def test_the_advice_for_columns_that_mean_the_same_can_be_followed(
    url: str, tmp_path: Path
) -> None:
    table = tmp_path / "a.csv"
    table.write_text("conversation,input_tokens,prompt_tokens\nc,1,2\n")
    with pytest.raises(UsageError, match="as in --map prompt_tokens=prompt_tokens"):
        import_file(url, table)
    report = import_file(url, table, mapping={"prompt_tokens": "prompt_tokens"})
    assert (report.prompt_tokens, report.ignored_columns) == (2, ("input_tokens",))


@ONE_SERVER
def test_calls_without_a_cost_are_counted_and_can_be_priced(
    chatter_command: Run, url: str, tmp_path: Path
) -> None:
    import_file(url, jsonl(tmp_path / "before.jsonl", [call(cost=None)]))
    rows = [call(cost=None), call(cost=None, n=1), call(cost=0), call(role="user", model=None)]
    jsonl(tmp_path / "a.jsonl", rows)
    done = chatter_command("import", "a.jsonl", "--dry-run", "--json", url=url)
    assert json.loads(done.stdout)["unpriced_calls"] == 1
    done = chatter_command("import", "a.jsonl", url=url)
    assert "Calls without a cost: 1. chatter reprice --reason WHY prices those" in done.stdout
    assert "yes" in chatter_command("prices", "--missing", url=url).stdout
    done = chatter_command("reprice", "--reason", "imported", "--json", url=url)
    assert json.loads(done.stdout)["priced"] == 2


@ONE_SERVER
def test_the_cost_of_calls_without_a_price_is_not_0(
    chatter_command: Run, url: str, tmp_path: Path
) -> None:
    cases: list[tuple[list[Any], str | None]]
    cases = [([None, None], None), ([None, "0.25"], "0.25"), ([0], "0")]
    for number, (costs, told) in enumerate(cases):
        rows = [call(cost=cost, conversation=f"{number} {n}") for n, cost in enumerate(costs)]
        jsonl(tmp_path / "a.jsonl", rows)
        tried = chatter_command("import", "a.jsonl", "--dry-run", "--json", url=url)
        facts = json.loads(tried.stdout)
        assert (facts["cost"], facts["unpriced_calls"]) == (told, costs.count(None))
        done = chatter_command("import", "a.jsonl", url=url)
        (shown,) = (line for line in done.stdout.splitlines() if "cost, US dollars" in line)
        assert shown.split("│")[2].strip() == ("unknown" if told is None else told)
