"""What the server's logs must not tell."""

import subprocess
import sys

import pytest

from tests.providers.openai import Provider

ASK = """
import logging.config, sys
from importlib import import_module
from chatter_db.server.logs import LOGGING

logging.config.dictConfig(LOGGING)
client = import_module(sys.argv[1])
assert client.get(sys.argv[2], params={"key": "sk-secret"}).status_code
logging.getLogger("app").info("asked")
"""


@pytest.mark.parametrize("client", ["httpx", "httpx2"])
def test_addresses_that_are_asked_stay_out(client: str, provider: Provider) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", ASK, client, provider.base_url],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert '"message": "asked"' in ran.stderr
    assert "sk-secret" not in ran.stderr
