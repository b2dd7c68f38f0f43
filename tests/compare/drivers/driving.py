"""What a writer of the comparison is asked to do, and how it tells the process that asks.

    python -m tests.compare.drivers.NAME TASK CALLS ADDRESS [--pace N] [--batch N]

It prints `begin` before the first call, `ack N` when the library has taken N calls in all, and
`done` when it has been told to write out whatever it still holds.
"""

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from tests.compare.workload import Call, agent_over, read_calls


class Driver(ABC):
    """Writes calls the way the documentation of a contender advises."""

    @abstractmethod
    def book(self, call: Call) -> int:
        """Hands over a call; returns how many calls were acknowledged by that."""

    @abstractmethod
    def finish(self) -> int:
        """Has everything written that was handed over; how many that acknowledged."""

    @abstractmethod
    def deliver_twice(self, call: Call) -> None:
        """Delivers the same call a second time, as after an answer that got lost."""

    @abstractmethod
    def repeat(self, agent: Call, children: list[Call]) -> None:
        """Writes the calls of an agent, and its own span, which states their usage again."""

    def book_all(self, calls: list[Call]) -> None:
        """Hands over all calls, as fast as that goes."""
        for call in calls:
            self.book(call)

    def close(self) -> None:  # noqa: B027 - most have nothing to close
        """Lets go of connections."""


def say(*words: object) -> None:
    print(*words, flush=True)


def paced(driver: Driver, calls: list[Call], pace: float) -> None:
    """Hands over so many calls a second at most, and tells of each acknowledgement."""
    begin = time.perf_counter()
    acknowledged = 0
    for place, call in enumerate(calls):
        time.sleep(max(0.0, begin + place / pace - time.perf_counter()))
        if new := driver.book(call):
            acknowledged += new
            say("ack", acknowledged)


def drive(make: Callable[[argparse.Namespace], Driver]) -> None:
    """The main program of a writer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=("write", "paced", "twice", "agent"))
    parser.add_argument("calls", type=Path)
    parser.add_argument("address")
    parser.add_argument("--pace", type=float, default=200.0, help="calls a second, for `paced`")
    parser.add_argument("--batch", type=int, default=100, help="calls in a transaction of ours")
    options = parser.parse_args()
    calls = list(read_calls(options.calls))
    driver = make(options)
    say("begin")
    match options.task:
        case "write":
            driver.book_all(calls)
        case "paced":
            paced(driver, calls, options.pace)
        case "twice":
            driver.deliver_twice(calls[0])
        case "agent":
            agent, *children = calls
            driver.repeat(agent_over(children, agent.id), children)
    driver.finish()
    say("done")
    driver.close()
