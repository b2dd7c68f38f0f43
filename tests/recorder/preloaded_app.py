"""An app that loads before it forks, as gunicorn's --preload and Celery do.

    python -m tests.recorder.preloaded_app PROVIDER_URL

A model is called in the parent, then in two children, then in the parent again. Children end
as servers' workers do, with what was registered for an exit.
"""

import asyncio
import os
import sys

from langchain_openai import ChatOpenAI
from pydantic import SecretStr

import chatter_db


async def talk(url: str, question: str) -> None:
    await ChatOpenAI(model="gpt-4o", base_url=url, api_key=SecretStr("test")).ainvoke(question)
    # Connections to read by are of each process too.
    chatter = await chatter_db.default_chatter()
    with chatter.sync_session() as session:
        assert session.get(chatter_db.Message, chatter.recorder_id) is None
    async with chatter.session() as session:
        assert await session.get(chatter_db.Message, chatter.recorder_id) is None
    assert chatter.lost_records == 0


def main() -> None:
    url = sys.argv[1]
    chatter_db.install()
    asyncio.run(talk(url, "parent, before"))
    children = []
    for number in range(2):
        child = os.fork()
        if child == 0:
            asyncio.run(talk(url, f"child {number}"))
            sys.exit()
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    asyncio.run(talk(url, "parent, after"))


if __name__ == "__main__":
    main()
