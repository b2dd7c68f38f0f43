"""Bad input on every way into the books, so many inputs of each kind, from one seed.

    python -m tests.fuzz.campaign --inputs 20000 --seed 7 [--only http] [--json]

Prints how many inputs were tried, accepted and refused, and how many broke a promise: 0.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Table

from chatter_db import migrating
from tests.conftest import throwaway_server
from tests.fuzz import commands, functions, imports, normaliser, pages, positions, requests
from tests.fuzz.tally import SHOWN, Tally, Tell

Run = Callable[[str, int, int, Tell], Tally]

CAMPAIGNS: Mapping[str, Run] = {
    "normaliser": normaliser.run,
    "importer": imports.run,
    "positions": positions.run,
    "pages": pages.run,
    "http": requests.run,
    "cli": commands.run,
    "sql": functions.run,
}

SHARE = {"importer": 0.25, "pages": 0.25, "http": 0.25, "cli": 0.1}
"""Of `--inputs`: what starts a process or asks over HTTP takes longer for each."""


@contextmanager
def books() -> Iterator[Callable[[], str]]:
    """A server, and a way to get migrated databases on it, one for each campaign."""
    with throwaway_server() as server:
        place = f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}"
        made = 0

        def database() -> str:
            nonlocal made
            made += 1
            with psycopg.connect(f"{place}/postgres", autocommit=True) as connection:
                name = sql.Identifier(f"fuzz_{made}")
                connection.execute(sql.SQL("create database {}").format(name))
            url = f"{place}/fuzz_{made}"
            migrating.migrate(url)
            return url

        yield database


def show(tallies: list[Tally], seed: int, console: Console) -> None:
    """A table for people, and what failed."""
    table = Table(title=f"fuzz, seed {seed}")
    table.add_column("campaign")
    for name in ("inputs", "accepted", "refused", "failures", "seconds"):
        table.add_column(name, justify="right")
    for tally in tallies:
        numbers = (tally.tried, tally.accepted, tally.refused, tally.failed)
        table.add_row(tally.campaign, *(f"{n:,}" for n in numbers), f"{tally.seconds:.0f}")
    console.print(table)
    for tally in tallies:
        for note in tally.notes:
            console.print(f"{tally.campaign}: {note}", markup=False)
        for kind, failure in tally.failures.items():
            console.print(
                f"\n{tally.campaign}: {failure.count} times: {kind}\n  {failure.example[:SHOWN]}",
                markup=False,
                soft_wrap=True,
                highlight=False,
            )


def main() -> None:
    import argparse
    import json

    from rich.progress import Progress, TaskID

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", choices=list(CAMPAIGNS), action="append")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args()
    chosen = options.only or list(CAMPAIGNS)
    tallies = []
    with books() as database, Progress(console=Console(stderr=True)) as progress:
        for name in chosen:
            count = max(1, int(options.inputs * SHARE.get(name, 1)))
            bar = progress.add_task(name, total=count)
            begin = time.monotonic()

            def tell(done: int, bar: TaskID = bar) -> None:
                progress.update(bar, completed=done)

            tally = CAMPAIGNS[name](database(), count, options.seed, tell)
            tally.seconds = time.monotonic() - begin
            tallies.append(tally)
            if not progress.console.is_terminal:
                progress.console.print(f"{time.strftime('%H:%M:%S')} {name} {tally.tried:,}")
    if options.json:
        print(json.dumps([tally.figures() for tally in tallies], indent=2))
    else:
        show(tallies, options.seed, Console())
    raise SystemExit(1 if any(tally.failures for tally in tallies) else 0)


if __name__ == "__main__":
    main()
