"""The same model calls into chatter-db and into what else keeps them, in one run.

    python -m tests.compare [--calls N] [--filled N] [--only NAME ...] [--cache DIR] [--json]

Each contender has a database of its own on one embedded Postgres with its durable defaults, in
a temporary directory, and, if it isn't ours, a virtualenv of its own with the versions of
`versions.py`, which --cache keeps. One that can't be installed or started has a row that says
why. --write-readme puts the table into README.md.
"""

import argparse
import json
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from chatter_db.embedded import lease, wait_until_stopped
from tests.compare.contender import ROOT, Contender
from tests.compare.litellm import LiteLlm
from tests.compare.measuring import Row, Scale, measure
from tests.compare.mlflow import Mlflow
from tests.compare.ours import Chatter, Imported, Plain, Recorded, SmallBatches
from tests.compare.phoenix import Phoenix
from tests.compare.reporting import show, write_readme
from tests.compare.tokenledger import TokenLedger

CONTENDERS: dict[str, type[Contender]] = {
    "plain": Plain,
    "chatter": Chatter,
    "chatter-100": SmallBatches,
    "chatter-import": Imported,
    "chatter-recorder": Recorded,
    "tokenledger": TokenLedger,
    "phoenix": Phoenix,
    "mlflow": Mlflow,
    "litellm": LiteLlm,
}


def compare(names: list[str], scale: Scale, cache: Path | None) -> list[Row]:
    """A row for each of these contenders, one after the other."""
    directory = Path(tempfile.mkdtemp(prefix="chatter-compare-"))
    # Postgres may run as another user, who has to get in.
    directory.chmod(0o755)
    rows = []
    environments = cache or directory / "environments"
    environments.mkdir(exist_ok=True)
    try:
        with lease(directory / "data") as server:
            for name in names:
                print(f"{name} ...", file=sys.stderr, flush=True)
                row = measure(CONTENDERS[name](), server.url, directory, environments, scale)
                print(row.as_json(), file=sys.stderr, flush=True)
                rows.append(row)
    finally:
        wait_until_stopped(directory / "data")
        shutil.rmtree(directory)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=Scale.calls, help="calls that are written")
    parser.add_argument("--filled", type=int, default=Scale.filled, help="calls in the questions")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--cache", type=Path, help="where to keep the contenders' virtualenvs")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--write-readme", action="store_true", help="put the table into README.md")
    options = parser.parse_args()
    # Ended by a signal or not: servers are stopped and directories removed.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("Stopped."))
    scale = Scale(options.calls, options.filled, kill_after=options.calls // 2)
    rows = compare(options.only, scale, options.cache and options.cache.absolute())
    if options.write_readme:
        write_readme(ROOT / "README.md", rows, scale)
    if options.json:
        print(json.dumps([json.loads(row.as_json()) for row in rows], indent=2))
    else:
        show(Console(width=190), rows, scale)


if __name__ == "__main__":
    main()
