"""A database whose encoding can't hold what people write."""

from collections.abc import Callable

import psycopg

from chatter_db import migrating
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer
from tests.recorder.test_writer import message, start


def test_figures_are_booked_and_what_fits_of_the_texts(new_database: Callable[..., str]) -> None:
    url = new_database("LATIN1")
    warnings: list[str] = []
    migrating.migrate(url, warnings.append)
    assert "encoded in LATIN1" in warnings[0]
    writer = Writer(url, open_spool("latin"))
    run = start()
    for content in ("Grüße", "Grüße \N{SLIGHTLY SMILING FACE}"):
        writer.submit([run, message(run, content=content)]).result(timeout=20)
    writer.close()
    assert (writer.lost, writer.reduced) == (0, 2)
    with psycopg.connect(url, client_encoding="utf8") as books:
        rows = books.execute(
            "select content, prompt_tokens from chatter.messages order by created_at"
        ).fetchall()
        assert rows == [("Grüße", 10), (None, 10)]
        totals = books.execute("select prompt_tokens from chatter.conversations").fetchall()
        assert totals == [(20,)]
