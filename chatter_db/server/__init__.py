"""The HTTP side: an ASGI app over the books.

app -> (correlation, limits, problems) -> identity -> one file per family of routes.
"""

from chatter_db.server.app import create_app

__all__ = ["create_app"]
