"""Variables that look like settings and are none."""

import logging

import pytest

from chatter_db.settings import Settings, settings, unknown_variables
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
