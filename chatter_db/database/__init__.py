"""Connections to Postgres: asyncpg for applications, psycopg for the command line and writers.

From the URL (urls) and what an error means (refusals) to each driver's connections (on_psycopg,
on_asyncpg) and SQLAlchemy's engines on them (engines).
"""

from chatter_db.database.engines import async_engine, sync_engine
from chatter_db.database.keepalives import KEEPALIVES
from chatter_db.database.on_asyncpg import asyncpg_connection, asyncpg_options, pin_path
from chatter_db.database.on_psycopg import (
    connect,
    connect_as,
    driver_of,
    interruptible,
    require_no_unknown_pooler,
)
from chatter_db.database.refusals import (
    denial,
    hindrance,
    losses_told,
    passes,
    refusals_told,
    said,
    sqlstate,
)
from chatter_db.database.turns import take_turn
from chatter_db.database.urls import database_url, for_any_driver, has_password, place

__all__ = [
    "KEEPALIVES",
    "async_engine",
    "asyncpg_connection",
    "asyncpg_options",
    "connect",
    "connect_as",
    "database_url",
    "denial",
    "driver_of",
    "for_any_driver",
    "has_password",
    "hindrance",
    "interruptible",
    "losses_told",
    "passes",
    "pin_path",
    "place",
    "refusals_told",
    "require_no_unknown_pooler",
    "said",
    "sqlstate",
    "sync_engine",
    "take_turn",
]
