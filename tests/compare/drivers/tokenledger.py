"""Writes into tokenledger: events to its tracker, which writes them from a background thread."""

import argparse

import tokenledger
from tokenledger import LLMEvent

from tests.compare.drivers.driving import Driver, drive
from tests.compare.workload import Call


class TokenLedgerDriver(Driver):
    def __init__(self, address: str) -> None:
        tokenledger.configure(database_url=address, app_name="compare")
        self._tracker = tokenledger.get_tracker()
        self._tracker.initialize(create_tables=False)

    def book(self, call: Call) -> int:
        self._tracker.track(self._event(call))
        return 1

    def finish(self) -> int:
        self._tracker.flush()
        return 0

    def deliver_twice(self, call: Call) -> None:
        for _ in range(2):
            self._tracker.track(self._event(call))
            self.finish()

    def repeat(self, agent: Call, children: list[Call]) -> None:
        for child in children:
            self._tracker.track(self._event(child, parent=agent.id))
        self._tracker.track(self._event(agent))

    def _event(self, call: Call, parent: str | None = None) -> LLMEvent:
        return LLMEvent(
            event_id=call.id,
            span_id=call.id,
            parent_span_id=parent,
            duration_ms=800.0,
            provider=call.provider,
            model=call.model,
            input_tokens=call.prompt_tokens,
            output_tokens=call.completion_tokens,
            cost_usd=float(call.cost),
            user_id=call.user,
            session_id=call.conversation,
            response_preview=call.answer,
        )


def make(options: argparse.Namespace) -> Driver:
    return TokenLedgerDriver(options.address)


if __name__ == "__main__":
    drive(make)
