"""All of a file or nothing, nothing twice, and every mistake named by line and field."""

import csv
import json
import os
import signal
import threading
from collections.abc import Callable, Iterable
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chatter_db import ImportRejected, SchemaError, UsageError
from chatter_db.importing import LinesRejected, import_file
from tests import forked
from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.polling import wait_until_blocked

Db = psycopg.Connection[Any]


def call(**changes: Any) -> dict[str, Any]:
    """A good row, with changes; a change to None leaves the field out."""
    row = {
        "conversation": "c-1",
        "user": "ada",
        "time": 1700000000,
        "model": "gpt-4o-mini",
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cost": 0.25,
        **changes,
    }
    return {name: value for name, value in row.items() if value is not None}


def jsonl(path: Path, rows: Iterable[dict[str, Any] | str | bytes]) -> Path:
    with path.open("wb") as file:
        for row in rows:
            if isinstance(row, bytes):
                file.write(row)
            else:
                text = row if isinstance(row, str) else json.dumps(row)
                file.write(text.encode() + b"\n")
    return path


def booked(db: Db) -> int:
    row = db.execute("select count(*) from chatter.messages").fetchone()
    assert row is not None
    return int(row[0])


def nothing_there(db: Db) -> bool:
    row = db.execute(
        "select (select count(*) from chatter.messages) + (select count(*) from chatter.users) "
        "+ (select count(*) from chatter.conversations)"
    ).fetchone()
    return row == (0,)


def test_a_row_gets_its_defaults(url: str, db: Db, tmp_path: Path) -> None:
    import_file(url, jsonl(tmp_path / "a.jsonl", [call(cost=None), call(role="user", cost=None)]))
    rows = db.execute(
        "select role, kind, total_tokens, cost, cost_source, usage_status, status, "
        "extract(epoch from created_at) from chatter.messages order by id"
    ).fetchall()
    assert (
        "assistant", "turn", 15, None, None, "reported", "completed", Decimal("1700000000.000000")
    ) in rows  # fmt: skip
    assert {row[0] for row in rows} == {"assistant", "user"}


@pytest.mark.parametrize(
    ("row", "booked_as"),
    [
        ({"completion_tokens": 5}, (5, "reported")),
        ({"total_tokens": 5}, (5, "reported")),
        ({"model": "gpt-4o"}, (None, "unknown")),
        ({"role": "user"}, (None, None)),
        ({"role": "user", "model": "gpt-4o"}, (None, "unknown")),
        ({"role": "tool", "model": "gpt-4o", "prompt_tokens": 5}, (5, "reported")),
    ],
)
def test_what_a_row_says_of_its_usage(
    url: str, db: Db, tmp_path: Path, row: dict[str, Any], booked_as: tuple[Any, ...]
) -> None:
    import_file(url, jsonl(tmp_path / "a.jsonl", [{"conversation": "c", **row}]))
    found = db.execute("select total_tokens, usage_status from chatter.messages").fetchall()
    assert found == [booked_as]


def test_a_conversation_begins_with_its_first_row(url: str, db: Db, tmp_path: Path) -> None:
    rows = [call(time=time) for time in (1700000002, 1700000001, 1700000003)]
    import_file(url, jsonl(tmp_path / "a.jsonl", rows))
    began = db.execute("select extract(epoch from created_at)::int from chatter.conversations")
    assert began.fetchall() == [(1700000001,)]


def test_the_digits_of_a_cost_arrive(url: str, db: Db, tmp_path: Path) -> None:
    """Never through a float, in either format."""
    digits = ["5.8274999999999993e-05", "0.1", "1e-30", "0.30000000000000004", "12"]
    lines = [json.dumps(call(cost=None))[:-1] + f', "cost": {text}}}' for text in digits]
    import_file(url, jsonl(tmp_path / "a.jsonl", lines))
    table = tmp_path / "a.csv"
    table.write_text("conversation,cost\n" + "".join(f"csv,{text}\n" for text in digits))
    import_file(url, table)
    for name in ("c-1", "csv"):
        total = db.execute(
            "select total_cost from chatter.conversations where external_id = %s", [name]
        ).fetchone()
        with localcontext() as exact:
            exact.prec = 100
            assert total == (sum(map(Decimal, digits)),)


def test_nothing_is_booked_twice(
    url: str, db: Db, tmp_path: Path, books_hold: Callable[[], None]
) -> None:
    """Two equal lines are two calls; the same lines again, or with more after them, are not."""
    file = jsonl(tmp_path / "a.jsonl", [call(), call(), call(prompt_tokens=3)])
    assert import_file(url, file).booked == 3
    again = import_file(url, file)
    assert (again.booked, again.already_there) == (0, 3)
    with file.open("a") as more:
        more.write(json.dumps(call()) + "\n")
    appended = import_file(url, file)
    assert (appended.booked, appended.already_there) == (1, 3)
    assert booked(db) == 4
    books_hold()


def test_rows_are_known_by_their_key(url: str, db: Db, tmp_path: Path) -> None:
    rows = [call(number="a"), call(number="b")]
    assert import_file(url, jsonl(tmp_path / "a.jsonl", rows), key="number").booked == 2
    moved = jsonl(tmp_path / "b.jsonl", [*reversed(rows), call(number="c")])
    assert import_file(url, moved, key="number").booked == 1
    assert booked(db) == 3


def test_a_key_is_known_within_its_conversation(url: str, db: Db, tmp_path: Path) -> None:
    owners = [call(n=1), call(n=1, user="bob"), call(n=1, user=None), call(n=1, conversation="c-2")]
    file = jsonl(tmp_path / "a.jsonl", owners)
    assert import_file(url, file, key="n").booked == 4
    assert import_file(url, file, key="n").booked == 0


def test_other_line_ends_make_no_other_rows(url: str, tmp_path: Path) -> None:
    for name, lines in (
        ("a.jsonl", [json.dumps(call()), json.dumps(call(cost=9))]),
        ("a.csv", ["conversation,cost", "c,1", "c,2"]),
    ):
        (tmp_path / name).write_bytes(("\n".join(lines) + "\n").encode())
        assert import_file(url, tmp_path / name).booked == 2
        (tmp_path / name).write_bytes("\r\n".join(lines).encode())
        assert import_file(url, tmp_path / name).booked == 0


def test_a_dry_run_says_it_all_and_changes_nothing(url: str, db: Db, tmp_path: Path) -> None:
    report = import_file(url, jsonl(tmp_path / "a.jsonl", [call(), call()]), dry_run=True)
    assert (report.booked, report.new_conversations, report.cost) == (2, 1, Decimal("0.5"))
    assert report.dry_run
    assert nothing_there(db)


def test_other_names_are_mapped(url: str, db: Db, tmp_path: Path) -> None:
    row = {"session": "s", "usd": 2, "tokens_in": 7, "comment": "x"}
    report = import_file(
        url,
        jsonl(tmp_path / "a.jsonl", [row]),
        mapping={"session": "conversation", "usd": "cost", "tokens_in": "prompt_tokens"},
    )
    assert report.ignored_columns == ("comment",)
    totals = db.execute("select external_id, total_cost, prompt_tokens from chatter.conversations")
    assert totals.fetchall() == [("s", 2, 7)]


def test_a_mapping_comes_before_the_names_that_are_known(url: str, db: Db, tmp_path: Path) -> None:
    row = call(cost=9, usd=2, latency_ms=7, response=8, model_name="x", model=None)
    mapping = {"usd": "cost", "cost": "response_time_ms", "model_name": "finish_reason"}
    report = import_file(url, jsonl(tmp_path / "a.jsonl", [row]), mapping=mapping)
    assert set(report.ignored_columns) == {"latency_ms", "response"}
    assert db.execute(
        "select cost, response_time_ms, finish_reason, model_used from chatter.messages"
    ).fetchall() == [(2, 9, "x", None)]


def test_names_that_other_tools_use_are_known(url: str, db: Db, tmp_path: Path) -> None:
    row = {
        "thread_id": "t", "user_id": "ada", "timestamp": 1700000000, "provider": "openai",
        "model_name": "gpt-4o", "input_tokens": 7, "output_tokens": 3, "cost_usd": 0.5,
        "latency_ms": 20, "trace_id": "x",
    }  # fmt: skip
    assert import_file(url, jsonl(tmp_path / "a.jsonl", [row])).ignored_columns == ()
    assert db.execute(
        "select c.external_id, u.external_id, extract(epoch from m.created_at)::int, "
        "m.provider_used, m.model_used, m.prompt_tokens, m.completion_tokens, m.cost, "
        "m.response_time_ms, m.correlation_id from chatter.messages as m "
        "join chatter.conversations as c on c.id = m.conversation_id "
        "join chatter.users as u on u.id = c.user_id"
    ).fetchall() == [
        ("t", "ada", 1700000000, "openai", "gpt-4o", 7, 3, Decimal("0.5"), 20, "x"),
    ]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"model": "nonsense"}, "Can't map model to nonsense: there is no such column"),
        ({"nowhere": "cost"}, "nowhere"),
        ({"a": "cost", "b": "cost"}, "Two columns are mapped to cost"),
    ],
)
def test_a_wrong_mapping_is_wrong_use(
    url: str, db: Db, tmp_path: Path, mapping: dict[str, str], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        import_file(url, jsonl(tmp_path / "a.jsonl", [call()]), mapping=mapping)
    assert nothing_there(db)


BAD_ROWS: list[tuple[dict[str, Any] | str | bytes, str]] = [
    (call(prompt_tokens=-5), "line 2: prompt_tokens: -5 is below 0"),
    (call(completion_tokens=10**12), "line 2: completion_tokens: .*above 1,000,000,000"),
    (call(prompt_tokens=1.5), "line 2: prompt_tokens: "),
    (call(prompt_tokens="many"), "line 2: prompt_tokens: "),
    (call(prompt_tokens="1.000"), "line 2: prompt_tokens: '1.000' may be 1000 or a number with"),
    (call(prompt_tokens=" 1.234.567"), "line 2: prompt_tokens: .* may be 1234567 or"),
    (call(prompt_tokens=True), "line 2: prompt_tokens: "),
    (call(cost=-1), "line 2: cost: -1 is below 0"),
    (call(cost=10**6), "line 2: cost: .*not below 1,000,000"),
    (call(cost="NaN"), "line 2: cost: "),
    (call(cost="inf"), "line 2: cost: "),
    ('{"conversation": "c", "cost": NaN}', "line 2: "),
    (call(role="robot"), "line 2: role: .*robot.* is not one of"),
    (call(status="done"), "line 2: status: .*done.* is not one of"),
    (call(kind="word"), "line 2: kind: "),
    (call(conversation=None), "line 2: conversation"),
    (call(conversation=""), "line 2: conversation"),
    (call(id="12"), "line 2: id: .*not a UUID"),
    (call(time="yesterday"), "line 2: time: "),
    (call(time=-1), "line 2: time: "),
    (call(time="1969-12-31T23:59:59Z"), "line 2: time: .* is before 1970"),
    (call(time="9999-01-01T00:00:00Z"), "line 2: time: .* is after 9998"),
    (call(content="a\0b"), "line 2: content: .*NUL"),
    (call(content="x" * 10_000_000), "line 2: content: .*8 MiB"),
    (call(conversation="c" * 501), "line 2: conversation: "),
    (call(metadata=[1]), "line 2: metadata: "),
    ('{"conversation": "c", "prompt_tok', "line 2: "),
    ("[1, 2]", "line 2: "),
    (b'{"conversation": "\xff\xfe"}\n', "line 2: "),
    (b'{"conversation": "c", "model": "trunc', "line 2: "),
]


@pytest.mark.parametrize(("row", "message"), BAD_ROWS, ids=[m for _, m in BAD_ROWS])
def test_a_bad_line_rejects_the_file(
    url: str, db: Db, tmp_path: Path, row: dict[str, Any] | str | bytes, message: str
) -> None:
    file = jsonl(tmp_path / "a.jsonl", [call(), row])
    with pytest.raises(LinesRejected, match=message) as rejected:
        import_file(url, file)
    assert rejected.value.report.rejected == 1
    assert nothing_there(db)
    report = import_file(url, file, on_bad_line="skip")
    assert (report.booked, report.already_there, report.rejected) == (1, 0, 1)
    assert [bad.line for bad in report.bad_lines] == [2]


def test_what_is_at_a_limit_is_booked(url: str, db: Db, tmp_path: Path) -> None:
    most = call(
        conversation="c" * 500,
        content="x" * 8 * 1024 * 1024,
        prompt_tokens=10**9,
        completion_tokens=10**9,
        total_tokens=2 * 10**9,
        cost="999999.99",
        time="9998-12-31T23:59:59Z",
    )
    least = call(prompt_tokens=0, completion_tokens=0, cost=0, response_time_ms=0, time=0)
    assert import_file(url, jsonl(tmp_path / "a.jsonl", [most, least])).booked == 2
    assert db.execute(
        "select total_tokens, cost, response_time_ms from chatter.messages order by created_at"
    ).fetchall() == [(0, 0, 0), (2 * 10**9, Decimal("999999.99"), None)]


@pytest.mark.parametrize(
    ("written", "tokens"), [("100.0", 100), ("0.000", 0), ("1000.000", 1000), ("12", 12)]
)
def test_counts_with_decimals_of_zero(
    url: str, db: Db, tmp_path: Path, written: str, tokens: int
) -> None:
    """As pandas writes them; and 1.000 is no thousand in JSON."""
    line = f'{{"conversation": "c", "prompt_tokens": "{written}", "completion_tokens": 1.000}}'
    import_file(url, jsonl(tmp_path / "a.jsonl", [line]))
    counts = db.execute("select prompt_tokens, completion_tokens from chatter.messages")
    assert counts.fetchall() == [(tokens, 1)]


def test_an_id_twice_is_named_with_both_lines(url: str, db: Db, tmp_path: Path) -> None:
    same = "0190c0de-0000-7000-8000-000000000001"
    file = jsonl(tmp_path / "a.jsonl", [call(id=same), call(), call(id=same, cost=9)])
    with pytest.raises(LinesRejected, match=r"line 3: id: .*line 1"):
        import_file(url, file)
    assert nothing_there(db)


def test_bad_lines_are_told_in_their_order(url: str, tmp_path: Path) -> None:
    same = "0190c0de-0000-7000-8000-000000000001"
    file = jsonl(tmp_path / "a.jsonl", [call(cost=-1), call(id=same), call(id=same)])
    with pytest.raises(LinesRejected, match=r"line 1: cost: .*\n.*line 3: id: "):
        import_file(url, file)
    report = import_file(url, file, on_bad_line="skip")
    assert [(bad.line, bad.field) for bad in report.bad_lines] == [(1, "cost"), (3, "id")]
    assert (report.booked, report.already_there, report.rejected) == (1, 0, 2)


def test_many_bad_lines_are_counted_and_the_first_shown(url: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [call(prompt_tokens=-1)] * 50)
    with pytest.raises(LinesRejected) as rejected:
        import_file(url, file)
    assert rejected.value.report.rejected == 50
    assert len(rejected.value.report.bad_lines) == 20
    assert "and 30 more" in str(rejected.value)


def test_csv_and_json_lines_book_the_same(url: str, db: Db, tmp_path: Path) -> None:
    rows = [call(content='two\nlines, "quoted"'), call(cost=None), call(user=None)]
    import_file(url, jsonl(tmp_path / "a.jsonl", [{**r, "conversation": "j"} for r in rows]))
    with (tmp_path / "a.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*call(content="")])
        writer.writeheader()
        writer.writerows({**r, "conversation": "t"} for r in rows)
    import_file(url, tmp_path / "a.csv")
    kinds = db.execute(
        "select c.external_id, array_agg((u.external_id, m.content, m.cost, m.total_tokens, "
        "m.created_at)::text order by m.cost nulls last, m.content) "
        "from chatter.messages m join chatter.conversations c on c.id = m.conversation_id "
        "left join chatter.users u on u.id = c.user_id group by 1"
    ).fetchall()
    merged: dict[str, list[str]] = {}
    for name, texts in kinds:
        merged.setdefault(name, []).extend(texts)
    assert sorted(merged["j"]) == sorted(merged["t"])
    assert len(merged["j"]) == 3


def test_a_database_without_the_books(url: str, tmp_path: Path) -> None:
    elsewhere = f"{url.rpartition('/')[0]}/postgres"
    with pytest.raises(SchemaError, match="Run: chatter migrate"):
        import_file(elsewhere, jsonl(tmp_path / "a.jsonl", [call()]))


def test_a_csv_without_a_conversation_is_wrong_use(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("model,cost\nx,1\n")
    with pytest.raises(UsageError, match="No column means conversation"):
        import_file(url, tmp_path / "a.csv")


def test_a_file_that_is_not_there_is_wrong_use(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Can't read .*No such file"):
        import_file(url, tmp_path / "none.jsonl")
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UsageError, match="Can't tell the format"):
        import_file(url, tmp_path / "a.txt")


def test_two_imports_of_one_file_at_once(
    url: str, db: Db, tmp_path: Path, books_hold: Callable[[], None]
) -> None:
    rows = [call(conversation=f"c-{n % 50}", user=f"u-{n % 7}", n=n) for n in range(2000)]
    file = jsonl(tmp_path / "a.jsonl", rows)
    reports = []
    barrier = threading.Barrier(2)

    def run() -> None:
        barrier.wait()
        reports.append(import_file(url, file))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(report.booked for report in reports) == 2000
    assert booked(db) == 2000
    books_hold()


@ONE_SERVER
def test_one_that_waits_ends_by_ctrl_c(url: str, db: Db, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [call()])
    environment = {**os.environ, "CHATTER_DATABASE_URL": url}
    with psycopg.connect(url) as holder:
        holder.execute("lock table chatter.messages in share mode")
        running = forked.start(["chatter", "import", str(file)], environment, tmp_path)
        wait_until_blocked(holder)
        pid = running.process.pid
        assert pid is not None
        os.kill(pid, signal.SIGINT)
        try:
            running.process.join(10)
            code = running.process.exitcode
        finally:
            running.process.kill()
    assert code == 130
    assert nothing_there(db)


def test_new_rows_of_a_conversation_that_is_there(
    url: str, db: Db, tmp_path: Path, books_hold: Callable[[], None]
) -> None:
    import_file(url, jsonl(tmp_path / "a.jsonl", [call()]))
    report = import_file(url, jsonl(tmp_path / "b.jsonl", [call(), call(conversation="new")] * 3))
    # Line 1 is the line 1 of before; the other five are new.
    assert (report.booked, report.new_conversations, report.already_there) == (5, 1, 1)
    assert booked(db) == 6
    books_hold()


def test_postgres_away_is_said(tmp_path: Path) -> None:
    from chatter_db import DatabaseUnavailable

    with pytest.raises(DatabaseUnavailable):
        import_file("postgresql://u:secret@127.0.0.1:1/d", jsonl(tmp_path / "a.jsonl", [call()]))


def test_a_database_without_the_schema_is_said(url: str, db: Db, tmp_path: Path) -> None:
    db.execute("drop schema chatter cascade")
    with pytest.raises(Exception, match="chatter migrate"):
        import_file(url, jsonl(tmp_path / "a.jsonl", [call()]))


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
rows_of_any_kind = st.lists(
    st.fixed_dictionaries(
        {"conversation": names.filter(lambda text: len(text) <= 100)},
        optional={
            "user": names.filter(lambda text: len(text) <= 100),
            "content": names,
            "prompt_tokens": st.integers(0, 10**9),
            "completion_tokens": st.integers(0, 10**9),
            "cost": st.decimals(0, 999_999, places=12).map(str),
            "time": st.integers(0, 4_000_000_000),
        },
    ),
    min_size=1,
    max_size=30,
)


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=rows_of_any_kind)
def test_any_rows_arrive(url: str, db: Db, tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    report = import_file(url, jsonl(tmp_path / "any.jsonl", rows), dry_run=True)
    assert report.booked == len(rows)
    cost = sum((Decimal(row.get("cost", 0)) for row in rows), Decimal(0))
    assert report.cost == (cost if cost or not report.unpriced_calls else None)
    assert report.prompt_tokens == sum(row.get("prompt_tokens", 0) for row in rows)
    assert report.completion_tokens == sum(row.get("completion_tokens", 0) for row in rows)
    assert nothing_there(db)


def test_the_command(chatter_command: Run, url: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [call(), call(prompt_tokens=-1)])
    rejected = chatter_command("import", str(file), url=url)
    assert rejected.returncode == 1
    assert "line 2: prompt_tokens: -1 is below 0" in rejected.stderr
    assert "Traceback" not in rejected.stderr
    skipped = chatter_command("import", str(file), "--skip-bad-lines", "--json", url=url)
    assert skipped.returncode == 1
    facts = json.loads(skipped.stdout)
    assert (facts["booked"], facts["rejected"], facts["cost"]) == (1, 1, "0.25")
    good = chatter_command("import", str(file), "--skip-bad-lines", "--dry-run", url=url)
    assert "already there" in good.stdout
    for arguments in (["--map", "x"], ["--map", "x=cost"], ["--format", "xml"]):
        wrong = chatter_command("import", str(file), *arguments, url=url)
        assert wrong.returncode == 2, wrong.stderr
        assert "Traceback" not in wrong.stderr
    assert chatter_command("import", str(tmp_path / "none.csv"), url=url).returncode == 2


def test_the_error_is_an_import_rejection() -> None:
    assert issubclass(LinesRejected, ImportRejected)
