"""Passwords: how long they must be, their hashes, and whether one is right."""

import asyncio
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from chatter_db.errors import UsageError

MIN_PASSWORD = 12
"""Characters of a password, at least (NIST SP 800-63B-4 asks for 15, or 8 with a second factor)."""

MAX_PASSWORD = 1000

# An Argon2 hash takes 64 MiB and all of a core for a moment.
_HASHING_AT_ONCE = 4


class Passwords:
    """Hashes passwords and verifies them, a few at once."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher()
        self._hashing = asyncio.Semaphore(_HASHING_AT_ONCE)
        # Verified where there is none, so that the answer takes as long.
        self._nobody = self._hasher.hash(secrets.token_urlsafe())

    async def hashed(self, password: str) -> str:
        """Its hash; raises UsageError if it is too short or too long."""
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise UsageError(
                f"A password must have {MIN_PASSWORD} to {MAX_PASSWORD} characters; "
                f"this one has {len(password)}."
            )
        async with self._hashing:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verified(self, hashed: str | None, password: str) -> bool:
        """Whether `password` is what was `hashed`; None takes as long, and is nobody's."""
        if len(password) > MAX_PASSWORD:
            return False
        known = self._nobody if hashed is None else hashed
        async with self._hashing:
            try:
                return await asyncio.to_thread(self._hasher.verify, known, password)
            except (VerificationError, InvalidHashError):
                return False
