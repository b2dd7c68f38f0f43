"""Writes into a plain table, in batches."""

import argparse
from typing import Any

from tests.compare.drivers.batches import BatchDriver
from tests.compare.drivers.driving import Driver, drive

CALLS = """
  insert into calls (
    id, conversation, user_name, provider, model, prompt_tokens, completion_tokens, cost, answer
  )
  select * from unnest(
    %(ids)s::uuid[], %(conversations)s::text[], %(users)s::text[], %(providers)s::text[],
    %(models)s::text[], %(prompt_tokens)s::bigint[], %(completion_tokens)s::bigint[],
    %(costs)s::numeric[], %(answers)s::text[]
  )
  on conflict (id) do nothing
"""


class PlainDriver(BatchDriver):
    def write(self, columns: dict[str, list[Any]]) -> None:
        self.connection.execute(CALLS, columns)


def make(options: argparse.Namespace) -> Driver:
    return PlainDriver(options.address, options.batch)


if __name__ == "__main__":
    drive(make)
