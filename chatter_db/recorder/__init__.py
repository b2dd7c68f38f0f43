"""The recorder: from LangChain's callbacks to rows in the books.

callbacks -> open_runs -> turns, rows -> usage, pricing -> records -> writer -> spool, read in
that order.
"""

from chatter_db.recorder.callbacks import Recorder
from chatter_db.recorder.installing import hook, install, uninstall
from chatter_db.recorder.open_runs import cut_off_runs
from chatter_db.recorder.runs import RunOutcome
from chatter_db.recorder.spool import open_spool
from chatter_db.recorder.writer import Writer

__all__ = [
    "Recorder",
    "RunOutcome",
    "Writer",
    "cut_off_runs",
    "hook",
    "install",
    "open_spool",
    "uninstall",
]
