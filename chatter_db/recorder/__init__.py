"""The recorder: from LangChain's callbacks to rows in the books.

callbacks -> usage -> pricing -> records -> writer, read in that order.
"""

from chatter_db.recorder.callbacks import Recorder, RunOutcome
from chatter_db.recorder.writer import Writer

__all__ = ["Recorder", "RunOutcome", "Writer"]
