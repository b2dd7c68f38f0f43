"""Who is asking: users, their passwords, API keys and browser sessions.

Every decision at the door is a row of chatter.security_events, in the transaction
of what was decided; thresholds and blocks follow by trigger. Secrets are made here,
handed out once, and stored as hashes only.
"""

from chatter_db.accounts.accounts import SESSION_LENGTH, Accounts
from chatter_db.accounts.identity import Identity, Origin
from chatter_db.accounts.keyring import MAX_KEY_NAME
from chatter_db.accounts.passwords import MAX_PASSWORD, MIN_PASSWORD

__all__ = [
    "MAX_KEY_NAME",
    "MAX_PASSWORD",
    "MIN_PASSWORD",
    "SESSION_LENGTH",
    "Accounts",
    "Identity",
    "Origin",
]
