"""Variables that look like settings and are none, and directories that they name."""

import logging
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from chatter_db.recorder.records import RunEnded
from chatter_db.recorder.spool import open_spool
from chatter_db.settings import Settings, settings, unknown_variables
from tests.embedded.conftest import open_directory
from tests.forked import Run


def test_a_typo_is_warned_of_once_without_its_value(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CHATTER_DURABILTY", "spool")
    monkeypatch.setenv("CHATTER_DATABASE_ULR", "postgresql://u:secret@h/d")
    settings.cache_clear()
    with caplog.at_level(logging.WARNING):
        settings()
        settings()
    assert [record.getMessage() for record in caplog.records] == [
        "The variable CHATTER_DATABASE_ULR is no setting of chatter-db and is ignored; "
        "is CHATTER_DATABASE_URL meant?",
        "The variable CHATTER_DURABILTY is no setting of chatter-db and is ignored; "
        "is CHATTER_DURABILITY meant?",
    ]


def test_what_is_no_setting_of_ours_to_warn_of() -> None:
    named = [f"CHATTER_{name.upper()}" for name in Settings.model_fields]
    others = [
        "chatter_model",
        "CHATTER_TEST_POSTGRES",
        "CHATTER_RACES_EXAMPLES",
        "CHATTER_CORPUS",
        "CHATTER_SERVICE_HOST",
        "CHATTER_SERVER_SERVICE_PORT_HTTP",
        "CHATTER_PORT",
        "CHATTER_PORT_8000_TCP_ADDR",
        "CHATTERBOX",
        "PATH",
    ]
    assert list(unknown_variables([*named, *others])) == []


def test_one_that_is_near_to_nothing() -> None:
    (said,) = unknown_variables(["CHATTER_XYZZY_PLUGH_QUUX"])
    assert said == (
        "The variable CHATTER_XYZZY_PLUGH_QUUX is no setting of chatter-db and is ignored."
    )


def test_the_command_says_it_on_stderr(chatter_command: Run) -> None:
    done = chatter_command(
        "status", url="postgresql://u:secret@127.0.0.1:1/db", CHATTER_DURABILTY="spool"
    )
    assert done.stderr.count("CHATTER_DURABILTY is no setting") == 1
    assert done.stdout == ""


NOBODY = """
import os
from chatter_db.recorder.spool import spool_directories
if os.geteuid() == 0:
    os.setuid(54321)
print(all(each.is_absolute() for each in spool_directories("db")), len(spool_directories("db")))
"""


@pytest.mark.parametrize("state", [None, "here"])
def test_who_has_no_home_has_no_spool_in_whatever_directory_this_is(state: str | None) -> None:
    """As in a container whose user no passwd knows: the next start may be in another one."""
    kept = {k: v for k, v in os.environ.items() if k not in {"HOME", "CHATTER_SPOOL_DIR"}}
    given = {"XDG_STATE_HOME": state} if state else {}
    said = subprocess.check_output([sys.executable, "-c", NOBODY], env=kept | given, text=True)
    assert said in ({"True 1\n"} if state or os.geteuid() == 0 else {"True 1\n", "True 2\n"})


PLANTED = """
import os, tempfile
from pathlib import Path
from chatter_db import UsageError
from chatter_db.recorder.spool import open_spool, spool_directories
if os.geteuid() == 0:
    os.setuid(54321)
[directory] = spool_directories("db")
{before}
try:
    open_spool("db")
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("before", "refused"),
    [
        ("", False),
        ("directory.parent.mkdir(0o755)", False),
        ("directory.parent.mkdir(); directory.parent.chmod(0o777)", True),
        ("directory.parent.with_name('own').mkdir(); directory.parent.symlink_to('own')", True),
    ],
)
def test_a_spool_among_the_temporary_files_is_nobody_elses(before: str, refused: bool) -> None:
    """Who could put another in its place would have us book, and remove, what is in that."""
    kept = {k: v for k, v in os.environ.items() if k not in {"HOME", "CHATTER_SPOOL_DIR"}}
    shared = open_directory()
    shared.chmod(0o1777)
    given = {"XDG_STATE_HOME": "here", "TMPDIR": str(shared)}
    code = PLANTED.format(before=before)
    said = subprocess.check_output([sys.executable, "-c", code], env=kept | given, text=True)
    assert ("may be changed by others" in said) == refused, said
    shutil.rmtree(shared)


def test_a_directory_stays_where_it_is_when_the_process_goes_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, later = tmp_path / "begun", tmp_path / "later"
    begun.mkdir()
    later.mkdir()
    monkeypatch.chdir(begun)
    monkeypatch.setenv("CHATTER_SPOOL_DIR", "spool")
    monkeypatch.setenv("CHATTER_DATA_DIR", "data")
    settings.cache_clear()
    spool = open_spool("db")
    monkeypatch.chdir(later)
    spool.append(
        [RunEnded(execution_id=uuid4(), status="completed", finished_at=datetime.now(UTC))]
    )
    spool.close()
    assert len(list(begun.glob("spool/*/*.jsonl"))) == 1
    assert list(later.iterdir()) == []
    assert settings().data_dir == begun / "data"


def test_a_directory_in_the_home_is_there_without_a_shell_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CHATTER_SPOOL_DIR", "~/spool")
    settings.cache_clear()
    assert settings().spool_dir == tmp_path / "spool"
