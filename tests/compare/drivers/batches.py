"""Writes batches of rows in a transaction each: what ours and the plain table have in common."""

from abc import abstractmethod
from typing import Any

import psycopg

from tests.compare.drivers.driving import Driver
from tests.compare.workload import Call


class BatchDriver(Driver):
    """Keeps calls until a batch is full; its commit acknowledges them."""

    def __init__(self, address: str, batch: int) -> None:
        self.connection = psycopg.connect(address)
        self._batch = batch
        self._waiting: list[Call] = []

    @abstractmethod
    def write(self, columns: dict[str, list[Any]]) -> None:
        """Writes rows, an array a column, in the transaction that is open."""

    def book(self, call: Call) -> int:
        self._waiting.append(call)
        return self.finish() if len(self._waiting) >= self._batch else 0

    def finish(self) -> int:
        calls, self._waiting = self._waiting, []
        if not calls:
            return 0
        with self.connection.transaction():
            self.write(
                {
                    "ids": [call.id for call in calls],
                    "conversations": [call.conversation for call in calls],
                    "users": [call.user for call in calls],
                    "providers": [call.provider for call in calls],
                    "models": [call.model for call in calls],
                    "prompt_tokens": [call.prompt_tokens for call in calls],
                    "completion_tokens": [call.completion_tokens for call in calls],
                    "costs": [call.cost for call in calls],
                    "answers": [call.answer for call in calls],
                }
            )
        return len(calls)

    def deliver_twice(self, call: Call) -> None:
        for _ in range(2):
            self.book(call)
            self.finish()

    def repeat(self, agent: Call, children: list[Call]) -> None:
        """Rows are all there is: an agent's span is one if its writer makes it one."""
        for call in (*children, agent):
            self.book(call)

    def close(self) -> None:
        self.connection.close()
