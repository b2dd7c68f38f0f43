"""A process that forks after it has opened the books: every process books its own calls, once."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.providers.openai import Provider


@pytest.mark.parametrize("durability", ["database", "spool"])
def test_an_app_that_loads_before_it_forks(
    url: str,
    db: psycopg.Connection[Any],
    provider: Provider,
    books_hold: Callable[[], None],
    spool_dir: Path,
    durability: str,
) -> None:
    ran = subprocess.run(
        # Newer Pythons warn of every fork beside a thread.
        [
            *(sys.executable, "-W", "ignore::DeprecationWarning"),
            *("-m", "tests.recorder.preloaded_app", provider.base_url),
        ],
        env={
            "CHATTER_DATABASE_URL": url,
            "CHATTER_SPOOL_DIR": str(spool_dir),
            "CHATTER_DURABILITY": durability,
            "PATH": "",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    asked = db.execute(
        "select content from chatter.messages where role = 'user' order by content"
    ).fetchall()
    assert [content for (content,) in asked] == [
        "child 0",
        "child 1",
        "parent, after",
        "parent, before",
    ]
    assert len(provider.billed) == 4
    calls = db.execute(
        "select count(*), sum(prompt_tokens)::integer from chatter.messages where model_call"
    ).fetchone()
    assert calls == (4, sum(reply.prompt_tokens for reply in provider.billed))
    # Each process is known by an id of its own.
    runs = db.execute(
        "select count(*), count(distinct recorder_id), count(*) filter (where status = 'completed')"
        " from chatter.workflow_executions"
    ).fetchone()
    assert runs == (4, 3, 4)
    assert db.execute("select count(*) from chatter.recorders").fetchone() == (3,)
    assert not list(spool_dir.glob("*/*.jsonl"))
    books_hold()
