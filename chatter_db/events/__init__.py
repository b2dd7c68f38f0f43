"""Events, from the outbox to whoever follows them in this process.

`bell` is the hand-shake with the writers, `hub` listens and hands out, `reading`
reads the table with the cursor of sql/schema/220.
"""

from chatter_db.events.event import Batch, Category, Event, EventType, Selection
from chatter_db.events.hub import Hub

__all__ = ["Batch", "Category", "Event", "EventType", "Hub", "Selection"]
