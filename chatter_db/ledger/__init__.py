"""The public surface of the books: a `Chatter`, and the one that a process has by itself."""

from chatter_db.ledger.chatter import Chatter, spool_name
from chatter_db.ledger.default import (
    chosen_chatter,
    close_default_chatter,
    create_conversation,
    default_chatter,
    install,
    uninstall,
)

__all__ = [
    "Chatter",
    "chosen_chatter",
    "close_default_chatter",
    "create_conversation",
    "default_chatter",
    "install",
    "spool_name",
    "uninstall",
]
