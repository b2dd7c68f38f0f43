"""LiteLLM's spend log: kept by its proxy, which reaches Postgres through Prisma alone."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import ClassVar

from tests.compare.contender import Connection, Foreign, NotRun, run_or_not


class LiteLlm(Foreign):
    """Only as far as its install goes where Prisma's engine can't be had."""

    name = "LiteLLM spend log"
    how = (
        "Its proxy writes the log through Prisma, whose query engine is a binary from a host "
        "of Prisma's own; the writer of the comparison for it is not written."
    )
    key = "litellm"
    driver = ""
    counted = ""
    questions: ClassVar = {}

    def install(self, cache: Path) -> Path:
        python = super().install(cache)
        packages = next(python.parents[1].glob("lib/python*/site-packages"))
        schema = packages / "litellm_proxy_extras" / "schema.prisma"
        environment = {
            "PATH": f"{python.parent}:/usr/bin:/bin",
            "XDG_CACHE_HOME": str(cache / "prisma"),
            "PRISMA_HOME_DIR": str(cache / "prisma"),
        }
        run_or_not(
            [str(python.with_name("prisma")), "generate", "--schema", str(schema)],
            "prisma generate",
            environment,
        )
        raise NotRun("installed with its Prisma engine, but the comparison has no writer for it")

    def serve(self, url: str, directory: Path, python: Path) -> AbstractContextManager[str]:
        raise NotRun(self.how)

    def fill(self, connection: Connection, copies: int) -> None:
        raise NotRun(self.how)

    def agreement(self, connection: Connection) -> str:
        raise NotRun(self.how)
