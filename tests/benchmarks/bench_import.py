"""How fast an import is next to a raw COPY, and how much memory it takes.

    python tests/benchmarks/bench_import.py [--rows N] [--rounds N] [--memory-rows N]

Starts a server of its own with the settings of a real one (durable), makes
usage rows, and takes in turns: the import of them as JSON Lines, and raw COPY
of the same rows, as text that Postgres wrote itself, into copies of the table
chatter.messages without its triggers. The share is the import's speed over the
COPY's of the same round; the table shows medians.
"""

import argparse
import json
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
from rich.console import Console
from rich.table import Table

from chatter_db.importing import import_file
from tests.benchmarks.own_server import own_server

MODELS = ["gpt-4o-mini", "claude-3-5-sonnet-20241022", "deepseek/deepseek-chat", "gemini-1.5-pro"]
COLUMNS = """
  id, conversation_id, role, kind, model_used, prompt_tokens, completion_tokens, total_tokens,
  cost, cost_source, usage_status, status, metadata, created_at
"""
BARE = {
    "COPY, table with its keys, indexes and checks": "bare_checked",
    "COPY, table without any of them": "bare",
}


def write_rows(path: Path, count: int) -> None:
    """Usage of a thousand users, in conversations of ten calls that are neighbours in time."""
    draw = random.Random(count)
    moment = 1_700_000_000
    with path.open("w") as file:
        for number in range(count):
            moment += draw.randrange(20)
            conversation = number // 10 if draw.random() < 0.9 else draw.randrange(number // 10 + 1)
            prompt, completion = draw.randrange(20, 60_000), draw.randrange(1, 3_000)
            row = {
                "conversation": f"conversation-{conversation:07d}",
                "user": f"user-{conversation % 1000:04d}",
                "time": moment,
                "model": MODELS[conversation % 4],
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "cost": prompt * 1.5e-7 + completion * 6e-7,
            }
            file.write(json.dumps(row) + "\n")


def copied_out(connection: psycopg.Connection) -> list[bytes]:
    """The messages as COPY text, in blocks of a megabyte."""
    with connection.cursor().copy(f"copy chatter.messages ({COLUMNS}) to stdout") as copy:
        text = b"".join(bytes(block) for block in copy)
    return [text[start : start + (1 << 20)] for start in range(0, len(text), 1 << 20)]


def copy_seconds(connection: psycopg.Connection, table: str, blocks: list[bytes]) -> float:
    connection.execute(f"truncate {table}")
    connection.execute("checkpoint")
    started = time.perf_counter()
    with connection.cursor().copy(f"copy {table} ({COLUMNS}) from stdin") as copy:
        for block in blocks:
            copy.write(block)
    return time.perf_counter() - started


def import_seconds(connection: psycopg.Connection, url: str, path: Path) -> float:
    for table in ("messages", "conversations", "users"):
        connection.execute(f"delete from chatter.{table}")
        connection.execute(f"vacuum full chatter.{table}")
    connection.execute("checkpoint")
    return import_file(url, path).seconds


def measure_speed(rows: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of every round, by what was measured."""
    seconds: dict[str, list[float]] = {"import": [], **{name: [] for name in BARE}}
    with (
        tempfile.TemporaryDirectory() as directory,
        own_server() as (url, _),
        psycopg.connect(url, autocommit=True) as connection,
    ):
        path = Path(directory) / "usage.jsonl"
        write_rows(path, rows)
        connection.execute("create table bare_checked (like chatter.messages including all)")
        connection.execute(f"create table bare as select {COLUMNS} from chatter.messages")
        import_seconds(connection, url, path)
        blocks = copied_out(connection)
        for _ in range(rounds):
            for name, table in BARE.items():
                seconds[name].append(copy_seconds(connection, table, blocks))
            seconds["import"].append(import_seconds(connection, url, path))
    return seconds


def measure_memory(rows: int) -> tuple[float, float]:
    """Peak resident MB of a process that imports, and its rows per second."""
    with tempfile.TemporaryDirectory() as directory, own_server() as (url, _):
        path = Path(directory) / "usage.jsonl"
        write_rows(path, rows)
        child = subprocess.run(
            [sys.executable, __file__, "--import", url, str(path)],
            check=True,
            capture_output=True,
            text=True,
        )
    peak, seconds = map(float, child.stdout.split())
    return peak, rows / seconds


def import_here(url: str, path: str) -> None:
    """What the measured process does."""
    report = import_file(url, path)
    print(peak_memory(), report.seconds)


def peak_memory() -> float:
    """The most this process had resident, in MB.

    Linux counts the parent's memory into a child's ru_maxrss, across fork and exec;
    VmHWM is the program's own.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text())
        assert found is not None
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024


def show(rows: int, seconds: dict[str, list[float]]) -> None:
    table = Table("", "rows/s", "import's share of it", title=f"{rows:,} rows, median of rounds")
    for name, taken in seconds.items():
        shares = [copy / own for copy, own in zip(taken, seconds["import"], strict=True)]
        table.add_row(
            name,
            f"{rows / statistics.median(taken):,.0f}",
            f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})",
        )
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-rows", type=int, default=1_000_000)
    parser.add_argument("--import", nargs=2, dest="child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        import_here(*options.child)
        return
    show(options.rows, measure_speed(options.rows, options.rounds))
    if options.memory_rows:
        peak, speed = measure_memory(options.memory_rows)
        print(f"{options.memory_rows:,} rows: {peak:.0f} MB resident at most, {speed:,.0f} rows/s")


if __name__ == "__main__":
    main()
