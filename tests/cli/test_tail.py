"""`chatter tail`: what it lets pass, where it begins and when it ends."""

import json
from typing import Any

import psycopg

from tests.conftest import ONE_SERVER
from tests.forked import Run
from tests.sql.books import Books

pytestmark = ONE_SERVER


def test_tail_goes_on_from_a_position_and_filters(
    chatter_command: Run, url: str, db: psycopg.Connection[Any]
) -> None:
    books = Books(db)
    talk, other = books.conversation(), books.conversation()
    run = books.execution(talk)
    books.message(other, cost="0.5")
    books.message(talk, execution_id=run, model_used="gpt-4o")

    def tail(after: str, count: int, *filters: str) -> list[dict[str, Any]]:
        options = ["--after", after, "--count", str(count), "--json", *filters]
        done = chatter_command("tail", *options, url=url)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def plain(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Without their positions: of the last of a batch it is another."""
        return [{**event, "position": None} for event in events]

    whole = tail("oldest", 9)
    created, answered, updated = "message_created", "model_response", "conversation_updated"
    assert [event["event_type"] for event in whole] == [
        *("conversation_created", "conversation_created", "workflow_started"),
        *(created, answered, updated) * 2,
    ]
    positions = [event["position"] for event in whole]
    whole = plain(whole)
    assert plain(tail(positions[3], 5)) == whole[4:]
    of_talk = [event for event in whole if event["conversation_id"] == str(talk)]
    assert plain(tail("oldest", 5, "--conversation", str(talk))) == of_talk
    assert plain(tail("oldest", 3, "--execution", str(run))) == [whole[2], whole[6], whole[7]]
    kinds = ["--type", answered, "--type", "workflow_started"]
    assert plain(tail("oldest", 3, *kinds)) == [whole[2], whole[4], whole[7]]
    assert plain(tail("oldest", 1, "--category", "workflow")) == [whole[2]]

    done = chatter_command("tail", "--after", positions[3], "--count", "1", url=url)
    (line,) = done.stdout.splitlines()
    assert answered in line and str(other)[-12:] in line and "cost=0.5" in line
    refused = chatter_command("tail", "--after", "nonsense", "--count", "1", url=url)
    assert (refused.returncode, "no position" in refused.stderr) == (2, True)
