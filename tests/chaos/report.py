"""What a campaign says at its end."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.chaos.judging import Findings
from tests.chaos.known import Known
from tests.events.whole_path import Verdict

SHOWN = 20
"""Findings of a kind, and tracebacks, that are printed at most."""


@dataclass
class Report:
    """What a campaign did and found."""

    seed: int
    postgres: str
    seconds: float = 0.0
    known: Known = field(default_factory=Known)
    skipped: dict[str, str] = field(default_factory=dict)
    """Kinds of faults that can't be had here, and why."""
    messages: int = 0
    swept: int = 0
    findings: Findings = field(default_factory=Findings)
    readers: list[Verdict] = field(default_factory=list)
    tracebacks: list[str] = field(default_factory=list)
    turned_away: int = 0
    memory: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Resident MB of processes that lived through it all, after warm-up and at the end."""

    @property
    def good(self) -> bool:
        return (
            not self.findings.all()
            and not self.tracebacks
            and all(reader.good for reader in self.readers)
        )

    def figures(self) -> dict[str, Any]:
        """Everything that was counted."""
        known = self.known
        return {
            "seed": self.seed,
            "postgres": self.postgres,
            "seconds": round(self.seconds, 1),
            "faults": dict(known.faults.most_common()),
            "skipped": self.skipped,
            "acknowledged": known.acknowledged,
            "answers": len(known.answered),
            "transactions": known.transactions,
            "unknown_outcomes": len(known.unknown),
            "messages_rolled_back": len(known.rolled_back),
            "messages": self.messages,
            **{kind: len(found) for kind, found in vars(self.findings).items()},
            "events": [
                {
                    "reader": reader.reader,
                    "events": reader.events,
                    "reconnects": reader.reconnects,
                    "lost": reader.lost,
                    "duplicate": reader.duplicate,
                    "phantom": reader.phantom,
                }
                for reader in self.readers
            ],
            "errors_of_writers": dict(known.refused.most_common()),
            "answers_by_status": {str(k): n for k, n in known.statuses.most_common()},
            "questions_given_up": dict(known.given_up.most_common()),
            "executions_swept": self.swept,
            "starts_turned_away": self.turned_away,
            "tracebacks": len(self.tracebacks),
            "memory_mb": self.memory,
        }

    def print(self, console: Console) -> None:
        """A table for people, and what is wrong."""
        figures = self.figures()
        readers = figures.pop("events")
        table = Table("figure", "value", title="chaos")
        for name, value in figures.items():
            shown = value
            if isinstance(value, dict):
                shown = "\n".join(f"{key}: {each}" for key, each in value.items())
            table.add_row(name.replace("_", " "), str(shown))
        console.print(table)
        events = Table(*readers[0].keys(), title="events")
        for reader in readers:
            events.add_row(*map(str, reader.values()))
        console.print(events)
        for found in vars(self.findings).values():
            for line in found[:SHOWN]:
                console.print(line, markup=False)
        for end, count in self._ends().most_common(SHOWN):
            console.print(f"\n{count} times in a log:\n{end}", markup=False, soft_wrap=True)

    def _ends(self) -> Counter[str]:
        """How tracebacks end: what several have in common."""
        ends: Counter[str] = Counter()
        for traceback in self.tracebacks:
            lines = [line for line in traceback.splitlines() if line.strip()]
            own = [f"{line} {code}" for line, code in pairwise(lines) if "/chatter_db/" in line]
            ends["\n".join([lines[0].partition(": ")[2], *own[-4:], *lines[-6:]])] += 1
        return ends
