"""Who has proved who they are, and where a request came from."""

from collections.abc import Hashable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from chatter_db.models import UserRole


@dataclass(frozen=True)
class Identity:
    """Somebody who has proved who they are."""

    user_id: UUID
    user: str
    """The host app's own id of the user."""
    role: UserRole
    session_id: UUID | None = None
    """The browser session they came by, if any."""
    api_key_id: UUID | None = None
    """The API key they came by, if any."""

    @property
    def acts_for(self) -> UUID | None:
        """Whose rows their requests are confined to; None for an admin, who sees everybody's."""
        return None if self.role == "admin" else self.user_id

    @property
    def credential(self) -> UUID:
        """The key or the browser session they came by."""
        found = self.api_key_id or self.session_id
        assert found is not None, "nobody has come by anything"
        return found


@dataclass(frozen=True)
class Origin:
    """Where a request came from, as far as it is known."""

    ip_address: IPv4Address | IPv6Address | None = None
    user_agent: str | None = None
    correlation_id: str | None = None

    @property
    def user_agent_kept(self) -> str | None:
        """As much of it as is written down."""
        return self.user_agent[:1000] if self.user_agent else None

    @property
    def counted_as(self) -> Hashable:
        """What its attempts are counted by: see chatter.counted_address."""
        address = self.ip_address
        if isinstance(address, IPv6Address) and address.ipv4_mapped is None:
            return int(address) >> 64
        return address


UNKNOWN = Origin()
"""Of what came by no request."""
