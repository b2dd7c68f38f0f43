"""`chatter top`."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg

from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.polling import WAITS_FOR_A_LOCK

pytestmark = ONE_SERVER


def test_the_tables_of_a_picture_are_of_one_snapshot(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    """A call that is booked while the last table is asked for is in none of them."""
    with psycopg.connect(url) as busy, ThreadPoolExecutor(1) as pool:
        busy.execute("lock chatter.users")
        shown = pool.submit(chatter_command, "top", "--once", url=url)
        while not db.execute(WAITS_FOR_A_LOCK).fetchall():
            assert not shown.done(), shown.result().stderr
        busy.execute(
            "with c as (insert into chatter.conversations default values returning id) "
            "insert into chatter.messages (conversation_id, role, model_used) "
            "select id, 'assistant', 'gpt-4o' from c"
        )
        busy.commit()
        done = shown.result()
    assert done.returncode == 0, done.stderr
    for heading in ("Models", "Users"):
        assert f"{heading} today: nothing" in done.stdout
