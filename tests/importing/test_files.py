"""What a file may look like, and what may go on in the books while it is read."""

import io
import json
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from chatter_db import ImportRejected, UsageError
from chatter_db.importing import LinesRejected, import_file, importer, reading
from chatter_db.importing.booking import IMPORT_LOCK
from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.polling import wait_until_blocked

from .test_importing import Db, booked, call, jsonl, nothing_there

ID = "0190c0de-0000-7000-8000-00000000000"


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows to a chunk, so that a short file has many."""
    monkeypatch.setattr("chatter_db.importing.rows.BLOCK_CHARACTERS", 300)
    monkeypatch.setattr(importer, "CHUNK_BYTES", 600)


def test_the_copy_names_the_columns_in_their_order() -> None:
    from chatter_db.importing.columns import TARGETS
    from chatter_db.queries import query

    listed = str(query("import_copy")).partition("(")[2].partition(")")[0]
    names = [name.strip().strip('"') for name in listed.split(",")]
    assert [*names, "key"] == ["line", "keyed", *TARGETS]


def test_a_byte_order_mark_and_empty_lines_say_nothing(url: str, tmp_path: Path) -> None:
    line = json.dumps(call()).encode()
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\n  \n" + line)
    assert import_file(url, tmp_path / "a.jsonl").booked == 2
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfconversation,cost\r\nc,1\r\n\r\nc,2")
    assert import_file(url, tmp_path / "a.csv").rows_read == 2


@pytest.mark.parametrize("name", ["empty.jsonl", "empty.csv"])
def test_an_empty_file_books_nothing(url: str, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    report = import_file(url, tmp_path / name, mapping={"usd": "cost"})
    assert (report.rows_read, report.empty) == (0, True)
    (tmp_path / name).write_text("conversation\n" if name == "empty.csv" else "\n")
    assert not import_file(url, tmp_path / name).empty


BAD_CSV = [
    (b'c,1,"open\nc,2,x\n', "line 3: is not CSV: "),
    (b'c,1,"a"b\n', "line 3: is not CSV: "),
    (b"c,1\n", "line 3: has 2 of 3 fields$"),
    (b"c,1", "line 3: has 2 of 3 fields: the file ends in the middle of it"),
    (b"c,1,x,y\n", "line 3: has 4 of 3 fields"),
    (b"c,1,caf\xe9\n", "line 3: is not UTF-8: byte 0xe9 at position 8"),
    (b"c,1,a\0b\n", "line 3: content: holds a NUL"),
    (b"c,nan,x\n", "line 3: cost: 'nan' is not a finite number"),
    (b"c,1_000,x\n", "line 3: cost: '1_000' is not a number"),
    ("c,٣,x\n".encode(), "line 3: cost: .* is not a number"),
    (b",1,x\n", "line 3: conversation: is missing"),
    (b"c;1;x\n", "line 3: has 1 of 3 fields$"),
    (b'c,1,"two\nlines"\nc,-1,x\n', "line 5: cost: '-1' is below 0"),
]


@pytest.mark.parametrize(("rest", "message"), BAD_CSV, ids=[m for _, m in BAD_CSV])
def test_a_bad_csv_row_is_named_by_its_first_line(
    url: str, db: Db, tmp_path: Path, rest: bytes, message: str
) -> None:
    (tmp_path / "a.csv").write_bytes(b"conversation,cost,content\nc,1,x\n" + rest)
    with pytest.raises(LinesRejected) as rejected:
        import_file(url, tmp_path / "a.csv")
    assert rejected.match(r"(?m)^  " + message)
    assert nothing_there(db)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("conversation,cost\n".encode("utf-16"), "is not UTF-8: byte 0xff at position 1"),
        (b'conversation,"cost"s\n', "is not CSV: "),
        (b"conversation|cost\n", "No column means conversation"),
        (b"conversation,cost,cost\n", "Two columns are named cost; rename or remove one"),
        (b"conversation,cost,cost_usd\n", "cost and cost_usd both mean cost; choose one, as in"),
    ],
)
def test_a_bad_header_says_why(
    url: str, db: Db, tmp_path: Path, header: bytes, message: str
) -> None:
    (tmp_path / "a.csv").write_bytes(header + b"c,1\n")
    with pytest.raises((ImportRejected, UsageError), match=message):
        import_file(url, tmp_path / "a.csv")
    assert nothing_there(db)


@pytest.mark.parametrize(
    ("header", "separator"),
    [
        ("conversation,cost", ","),
        ("conversation;cost", ";"),
        ("conversation\tcost", "\t"),
        ("conversation", ","),
        ("", ","),
        ("a;b,c", ","),
        ('conversation,"a;b;c;d"', ","),
        ('conversation;"a, b, and c";"d,e"', ";"),
        ('"a ""b"", c, d"\tconversation', "\t"),
        ('conversation; "a,b,c"', ";"),
        ('conversation;"the name, over\n', ";"),
        ('5" disk,6" disk;,cost', ","),
    ],
)
def test_the_first_line_tells_the_separator(header: str, separator: str) -> None:
    assert reading.separator_of(header) == separator


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "conversation;model;prompt_tokens\nc;gpt-4o, mini;100.0\n"),
        ("a.csv", "\n\nconversation\tmodel\tprompt_tokens\r\nc\tgpt-4o, mini\t100\r\n"),
        ("a.tsv", 'conversation\tmodel\tprompt_tokens\nc\t"gpt-4o, mini"\t100\n'),
        ("A.TSV", "conversation \t model\tprompt_tokens\nc\tgpt-4o, mini\t100\n"),
        ("a.csv", '"prompt_tokens";conversation;"model, or\n so";model\n100;c;x;"gpt-4o, mini"\n'),
    ],
)
def test_csv_with_other_separators(url: str, db: Db, tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_bytes(text.encode())
    import_file(url, tmp_path / name)
    assert db.execute("select model_used, prompt_tokens from chatter.messages").fetchall() == [
        ("gpt-4o, mini", 100)
    ]


def test_a_long_text_in_csv(url: str, db: Db, tmp_path: Path) -> None:
    """Python's own limit for a field is 128 KiB."""
    (tmp_path / "a.csv").write_text(f"conversation,content\nc,{'x' * 200_000}\n")
    import_file(url, tmp_path / "a.csv")
    assert db.execute("select length(content) from chatter.messages").fetchone() == (200_000,)


BAD_JSON = [
    ('{"conversation": "c", "cost": NaN}', "line 1: cost: NaN is not a finite number"),
    ('{"conversation": "c", "cost": -Infinity}', "line 1: cost: -Infinity is not a finite"),
    ('{"conversation": "c", "usage": {"a": [NaN]}}', "line 1: usage: NaN is not a finite"),
    ('{"conversation": "c", "model": "\\ud800"}', "line 1: model: holds half of a surrogate"),
    ('{"conversation": "c", "model": "\\u0000"}', "line 1: model: holds a NUL"),
    ('{"conversation": "c", "usage": {"\\u0000": 1}}', "line 1: usage: holds a NUL"),
    ('{"conversation": "c", "cost": 1e99999999999999999999}', "line 1: is not JSON"),
    ('{"conversation": "c", "cost": 1e-2000}', "line 1: cost: .* more than 1,000 decimals"),
    ('{"conversation": "c", "cost": 0e999999}', "line 1: cost: "),
    ('{"conversation": "c", "prompt_tokens": ' + "9" * 5000 + "}", "line 1: prompt_tokens: 9999"),
    ('{"conversation": "c", "usage": ' + "[" * 101 + "]" * 101 + "}", "usage: is nested more than"),
    ('{"conversation": "c", "usage": ' + "[" * 10**5 + "]" * 10**5 + "}", "nested too deeply"),
    ('{"conversation": "c", "usage": {"a": -1e308}}', "line 1: usage: -1E.308 is larger than any"),
    ('{"conversation": "c", "time": 1700000000000}', "line 1: time: .* in Unix seconds"),
    ('{"conversation": "c", "time": "9999-01-01T00:00:00Z"}', "line 1: time: .* is after 9998"),
    ('{"conversation": "c", "response_time_ms": 1e999}', "line 1: response_time_ms: "),
    ('{"conversation": "c", "thread_id": "d"}', "line 1: thread_id: means the same as another"),
    ('{"conversation": ""}', "line 1: conversation: is missing"),
    ("nonsense", "line 1: is not JSON: "),
    ('{"conversation": "c"', "line 1: is not JSON: "),
]


@pytest.mark.parametrize(("line", "message"), BAD_JSON, ids=[m for _, m in BAD_JSON])
def test_a_bad_json_line_says_why(
    url: str, db: Db, tmp_path: Path, line: str, message: str
) -> None:
    with pytest.raises(LinesRejected, match=message):
        import_file(url, jsonl(tmp_path / "a.jsonl", [line]))
    assert nothing_there(db)


def test_what_looks_like_a_nul_and_is_none(url: str, db: Db, tmp_path: Path) -> None:
    row = call(content="\\u0000", usage={"a": "\\u0000"})
    import_file(url, jsonl(tmp_path / "a.jsonl", [row]))
    assert db.execute("select content, usage from chatter.messages").fetchall() == [
        ("\\u0000", {"a": "\\u0000"})
    ]


@pytest.mark.parametrize("column", ["usage", "metadata"])
def test_json_keeps_its_digits(url: str, db: Db, tmp_path: Path, column: str) -> None:
    line = f'{{"conversation": "c", "{column}": {{"a": 0.10000000000000000001, "b": "x\\\\\\n"}}}}'
    import_file(url, jsonl(tmp_path / "a.jsonl", [line]))
    rows = db.execute(f"select {column} ->> 'a', {column} ->> 'b' from chatter.messages")
    assert rows.fetchall() == [("0.10000000000000000001", "x\\\n")]


def test_values_that_no_column_takes(url: str, tmp_path: Path) -> None:
    values = [
        ("model", 5, "5 is not text"),
        ("prompt_tokens", "1e30", "'1e30' is beyond any count"),
        ("response_time_ms", -1, "-1 is below 0"),
        ("time", "nan", "'nan' is not a finite number"),
        ("metadata", "{", "'{' is not JSON"),
        ("metadata", "[]", "[] is not a JSON object"),
    ]
    lines = [call(**{field: value}) for field, value, _ in values]
    with pytest.raises(LinesRejected) as rejected:
        import_file(url, jsonl(tmp_path / "a.jsonl", lines))
    found = [(bad.field, bad.reason) for bad in rejected.value.report.bad_lines]
    assert found == [(field, reason) for field, _, reason in values]


def test_what_only_postgres_refuses_is_named_too(url: str, db: Db, tmp_path: Path) -> None:
    line = '{"conversation": "c", "usage": {"a": 1e-20000}}'
    with pytest.raises(ImportRejected, match=r"refused line 3, so nothing was booked: usage: "):
        import_file(url, jsonl(tmp_path / "a.jsonl", [call(), "", line]))
    assert nothing_there(db)


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_too_long_for_memory_is_read_past(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(reading, "MAX_LINE_BYTES", 300)
    if name == "a.csv":
        text = f"conversation,content\nc,a\nc,{'x' * 1000}\nc,b\n"
    else:
        text = "\n".join(json.dumps(call(content=c)) for c in ("a", "x" * 1000, "b"))
    (tmp_path / name).write_text(text)
    report = import_file(url, tmp_path / name, on_bad_line="skip")
    assert (report.booked, report.rejected) == (2, 1)
    assert "is longer than" in report.bad_lines[0].reason


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        (1700000000, "2023-11-14 22:13:20+00"),
        ("1700000000.5", "2023-11-14 22:13:20.5+00"),
        ("2023-11-14T22:13:20Z", "2023-11-14 22:13:20+00"),
        ("2023-11-14 23:13:20.1234567+01:00", "2023-11-14 22:13:20.123456+00"),
        ("2023-11-14 22:13:20", "2023-11-14 22:13:20+00"),
        ("20231114T221320", "2023-11-14 22:13:20+00"),
        ("20231114T231320+0100", "2023-11-14 22:13:20+00"),
        ("20231114T221320Z", "2023-11-14 22:13:20+00"),
        ("20231114", "2023-11-14 00:00:00+00"),
        (20231114, "2023-11-14 00:00:00+00"),
        ("20231114.0", "2023-11-14 00:00:00+00"),
        (20231131, "1970-08-23 03:45:31+00"),  # no date: seconds
        ("20231114.5", "1970-08-23 03:45:14.5+00"),  # nor this
        (0, "1970-01-01 00:00:00+00"),
        (99999999, "1973-03-03 09:46:39+00"),
        (100000000, "1973-03-03 09:46:40+00"),
    ],
)
def test_a_time_in_any_form_is_booked_in_utc(
    url: str, db: Db, tmp_path: Path, written: Any, moment: str
) -> None:
    import_file(url, jsonl(tmp_path / "a.jsonl", [call(time=written)]))
    db.execute("set timezone = 'UTC'")
    times = db.execute(
        "select m.created_at::text, c.created_at::text, "
        "trunc(extract(epoch from m.created_at) * 1000) "
        "= ('x0000' || left(replace(m.id::text, '-', ''), 12))::bit(64)::bigint "
        "from chatter.messages as m join chatter.conversations as c on c.id = m.conversation_id"
    )
    assert times.fetchall() == [(moment, moment, True)]


def test_standard_input(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = SimpleNamespace(buffer=io.BytesIO(json.dumps(call()).encode()))
    monkeypatch.setattr(sys, "stdin", given)
    assert import_file(url, "-", format="jsonl").booked == 1
    with pytest.raises(UsageError, match="--format"):
        import_file(url, "-")


def test_a_callers_transaction_decides(url: str, db: Db, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [call()])
    with psycopg.connect(url) as connection:
        connection.execute("select 'the transaction has begun'")
        assert import_file(connection, file).booked == 1
        assert import_file(connection, file).already_there == 1
        connection.rollback()
    assert nothing_there(db)


@pytest.mark.usefixtures("small_chunks")
def test_a_file_of_many_chunks(
    url: str, db: Db, tmp_path: Path, books_hold: Callable[[], None]
) -> None:
    """Conversations of before, new ones, and ones that go on in a later chunk."""
    rows = [
        call(conversation=f"c-{n % 7}", user=f"u-{n % 3}" if n % 4 else None) for n in range(99)
    ]
    assert import_file(url, jsonl(tmp_path / "a.jsonl", rows[:40])).booked == 40
    rows += [call(conversation=f"d-{n % 5}") for n in range(60)]
    seen: list[tuple[int, int]] = []
    report = import_file(
        url,
        jsonl(tmp_path / "a.jsonl", rows),
        progress=lambda done, total: seen.append((done, total)),
    )
    assert (report.booked, report.already_there) == (119, 40)
    assert seen == sorted(seen)
    assert seen[-1] == ((tmp_path / "a.jsonl").stat().st_size,) * 2
    assert booked(db) == 159
    books_hold()


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("known", [False, True], ids=["new conversation", "known conversation"])
def test_of_two_rows_with_an_id_the_first_stays(
    url: str, db: Db, tmp_path: Path, known: bool, books_hold: Callable[[], None]
) -> None:
    if known:
        import_file(url, jsonl(tmp_path / "before.jsonl", [call(cost=None)]))
    rows = [call(cost=1, id=ID + "1"), call(cost=2, id=ID + "1"), *[call(cost=None)] * 20]
    rows += [call(cost=4, id=ID + "1"), call(cost=8, id=ID + "2")]
    file = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(LinesRejected, match=r"line 2: id: is the same as on line 1\n.*line 23: id"):
        import_file(url, file)
    report = import_file(url, file, on_bad_line="skip")
    assert report.rejected == 2
    assert report.cost == 9
    assert db.execute("select total_cost from chatter.conversations").fetchall() == [(9,)]
    books_hold()


def test_a_key_twice_is_named(url: str, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "a.jsonl", [call(n=1), call(n=2), call(n=1)])
    with pytest.raises(LinesRejected, match="line 3: key: is the same as on line 1"):
        import_file(url, file, key="n")


@pytest.mark.long
@ONE_SERVER
def test_an_import_that_waits_for_another_says_for_whom(
    chatter_command: Run, url: str, tmp_path: Path
) -> None:
    file = jsonl(tmp_path / "a.jsonl", [call()])
    with (
        psycopg.connect(url, autocommit=True, application_name="intruder") as holder,
        ThreadPoolExecutor(1) as pool,
    ):
        holder.execute("select pg_advisory_lock(%s)", [IMPORT_LOCK])
        waiting = pool.submit(chatter_command, "import", str(file), "--json", url=url)
        try:
            wait_until_blocked(holder)
        finally:
            holder.execute("select pg_advisory_unlock_all()")
        done = waiting.result()
        pid = holder.info.backend_pid
    assert (done.returncode, json.loads(done.stdout)["booked"]) == (0, 1)
    said = " ".join(done.stderr.split())
    assert f"Waits for another import to end: of session {pid}, login " in said
    assert "application 'intruder'" in said and f"pg_terminate_backend({pid})" in said
    assert chatter_command("import", str(file), url=url).stderr == ""


def test_imports_of_overlapping_files_beside_live_writers(
    url: str, db: Db, tmp_path: Path, books_hold: Callable[[], None]
) -> None:
    """Conversations in opposite order, and a writer that locks several at a time."""
    rows = [call(conversation=f"c-{n:03}", user=None, n=n) for n in range(300)]
    first = jsonl(tmp_path / "a.jsonl", rows)
    second = jsonl(tmp_path / "b.jsonl", rows[::-1])
    import_file(url, jsonl(tmp_path / "before.jsonl", rows[::3]))
    done = threading.Event()
    failures: list[Exception] = []

    def write() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while not done.is_set():
                connection.execute(
                    "insert into chatter.messages (conversation_id, role) "
                    "select id, 'user' from chatter.conversations order by random() limit 20"
                )

    def run(path: Path) -> None:
        try:
            import_file(url, path)
        except ImportRejected as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    importers = [threading.Thread(target=run, args=[path]) for path in (first, second)]
    for thread in (writer, *importers):
        thread.start()
    for thread in importers:
        thread.join()
    done.set()
    writer.join()
    assert failures == []
    # Line 1 of before is line 1 of the first file.
    assert db.execute(
        "select count(*) from chatter.messages where role = 'assistant'"
    ).fetchone() == (100 + 299 + 300,)
    books_hold()
