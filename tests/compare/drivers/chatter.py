"""Writes into chatter-db in batches, by SQL, as the role that apps have."""

import argparse
from typing import Any

from tests.compare.drivers.batches import BatchDriver
from tests.compare.drivers.driving import Driver, drive

USERS = """
  insert into chatter.users (external_id)
  select distinct u from unnest(%(users)s::text[]) as u order by u
  on conflict (external_id) do nothing
"""

CONVERSATIONS = """
  insert into chatter.conversations (external_id, user_id)
  select distinct r.conversation, u.id
  from unnest(%(conversations)s::text[], %(users)s::text[]) as r (conversation, user_name)
    join chatter.users as u on u.external_id = r.user_name
  order by r.conversation, u.id
  on conflict (user_id, external_id) where external_id is not null do nothing
"""

CALLS = """
  insert into chatter.messages (
    id, conversation_id, role, content, provider_used, model_used, prompt_tokens,
    completion_tokens, cost, cost_source, response_time_ms
  )
  select r.id, c.id, 'assistant', r.answer, r.provider, r.model, r.prompt_tokens,
    r.completion_tokens, r.cost, 'computed', 800
  from unnest(
      %(ids)s::uuid[], %(conversations)s::text[], %(users)s::text[], %(providers)s::text[],
      %(models)s::text[], %(prompt_tokens)s::bigint[], %(completion_tokens)s::bigint[],
      %(costs)s::numeric[], %(answers)s::text[]
    ) as r (
      id, conversation, user_name, provider, model, prompt_tokens, completion_tokens, cost, answer
    )
    join chatter.users as u on u.external_id = r.user_name
    join chatter.conversations as c on c.user_id = u.id and c.external_id = r.conversation
  on conflict (id) do nothing
"""


class ChatterDriver(BatchDriver):
    def __init__(self, address: str, batch: int) -> None:
        super().__init__(address, batch)
        self.connection.execute("set role chatter_app")
        self.connection.commit()

    def write(self, columns: dict[str, list[Any]]) -> None:
        for statement in (USERS, CONVERSATIONS, CALLS):
            self.connection.execute(statement, columns)


def make(options: argparse.Namespace) -> Driver:
    return ChatterDriver(options.address, options.batch)


if __name__ == "__main__":
    drive(make)
