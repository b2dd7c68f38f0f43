"""Imports the calls into chatter-db as a file, by its Python function for that."""

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from chatter_db.importing import import_file
from tests.compare.drivers.driving import Driver, drive
from tests.compare.workload import Call


class ImportDriver(Driver):
    """A file's lines are booked together: nothing is acknowledged before `finish`."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._waiting: list[Call] = []

    def book(self, call: Call) -> int:
        self._waiting.append(call)
        return 0

    def finish(self) -> int:
        calls, self._waiting = self._waiting, []
        if calls:
            self._import(calls)
        return len(calls)

    def deliver_twice(self, call: Call) -> None:
        for _ in range(2):
            self._import([call])

    def repeat(self, agent: Call, children: list[Call]) -> None:
        self._import([*children, agent])

    def _import(self, calls: Iterable[Call]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "calls.jsonl"
            path.write_text("".join(f"{json.dumps(_line(call))}\n" for call in calls))
            import_file(self._address, path)


def _line(call: Call) -> dict[str, object]:
    return {
        "id": call.id,
        "conversation": call.conversation,
        "user": call.user,
        "role": "assistant",
        "provider": call.provider,
        "model": call.model,
        "prompt_tokens": call.prompt_tokens,
        "completion_tokens": call.completion_tokens,
        "cost": call.cost,
        "content": call.answer,
        "response_time_ms": 800,
    }


def make(options: argparse.Namespace) -> Driver:
    return ImportDriver(options.address)


if __name__ == "__main__":
    drive(make)
