"""How much of the recorded answers is right, unknown or wrong, and how the trace is priced.

    python -m tests.benchmarks.corpus_table

Three readings of every answer: its bytes, what the real package before a loopback
provider leaves of it, and the usage_metadata alone that its package is known to leave.
"""

import argparse
import logging
import warnings
from collections import Counter

from rich.console import Console
from rich.table import Table

from tests.recorder import corpus

VERDICTS = ("right", "unknown", "wrong")
Verdicts = Counter[tuple[str, str]]


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    warnings.simplefilter("ignore")
    logging.disable()
    console = Console(width=140)
    rows = corpus.rows("provider_responses.jsonl")
    if not rows:
        raise SystemExit(f"There is no corpus at {corpus.DATA}.")
    wire: Verdicts = Counter()
    package: Verdicts = Counter()
    metadata: Verdicts = Counter()
    with corpus.stage() as stage:
        for row in rows:
            name = row["provider"]
            wire[name, corpus.judge(row, corpus.wire_usage(row)).verdict] += 1
            if corpus.maker_of(row):
                package[name, corpus.judge(row, stage.play(row)[0]).verdict] += 1
            if row.get("expected_langchain"):
                metadata[name, corpus.judge(row, corpus.left_by_langchain(row)).verdict] += 1
    table = Table("provider", "rows", title="right / unknown / wrong")
    for reading in ("bytes", "package", "usage_metadata"):
        table.add_column(reading, justify="right")
    counts = Counter(row["provider"] for row in rows)
    for name in [*sorted(counts), None]:
        cells = (_cell(verdicts, name) for verdicts in (wire, package, metadata))
        table.add_row(name or "all", str(counts[name] if name else len(rows)), *cells)
    console.print(table)
    console.print(_trace())


def _cell(verdicts: Verdicts, name: str | None) -> str:
    sums = [
        sum(count for (who, what), count in verdicts.items() if what == v and name in (who, None))
        for v in VERDICTS
    ]
    return " / ".join(map(str, sums)) if any(sums) else "-"


def _trace() -> Table:
    table = Table("model", "equal", "other", "unknown", "why", title="The Aider trace, priced")
    models: dict[str, Counter[str]] = {}
    for call in corpus.priced_trace():
        kind = "unknown" if call.computed is None else "equal" if call.equal else "other"
        models.setdefault(call.model, Counter())[kind] += 1
    for model, kinds in sorted(models.items()):
        why = corpus.TRACE_EXCEPTIONS.get(model, (0, ""))[1]
        table.add_row(model, *(str(kinds[k] or "") for k in ("equal", "other", "unknown")), why)
    return table


if __name__ == "__main__":
    main()
