"""Runs the installed command."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def chatter_command(tmp_path: Path) -> Run:
    """`chatter ARGUMENTS` with CHATTER_DATABASE_URL=url, in an empty directory and home."""

    def run(
        *arguments: str, url: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("CHATTER_", "PG"))}
        given = {"CHATTER_DATABASE_URL": url} if url else {}
        return subprocess.run(
            [Path(sys.executable).with_name("chatter"), *arguments],
            env={
                **kept,
                "HOME": str(tmp_path),
                "COLUMNS": "200",
                "CHATTER_SPOOL_DIR": str(tmp_path / "spool"),
                **given,
                **environment,
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
