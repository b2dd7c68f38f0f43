"""An app that keeps a recorder, and neither the Chatter it is of nor the end of its calls.

    python -m tests.recorder.left_open PROVIDER_URL

A model is called here, in a child of fork, and in a thread that is left alone when standard input
ends.
"""

import os
import signal
import sys
import threading

from langchain_core.runnables import RunnableConfig
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from chatter_db import Chatter


def recording() -> RunnableConfig:
    return {"callbacks": [Chatter.connect().__enter__().recorder()]}


def main() -> None:
    model = ChatOpenAI(
        model="gpt-4o", base_url=sys.argv[1], api_key=SecretStr("test"), max_retries=0
    )
    config = recording()
    model.invoke("parent", config)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # nobody else would end it, should it hang
        model.invoke("child", config)
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    threading.Thread(target=model.invoke, args=("thread", config), daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
