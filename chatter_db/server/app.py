"""The app: every request's way in, and the rooms behind it."""

from importlib.metadata import version

from fastapi import FastAPI

from chatter_db.accounts import Accounts
from chatter_db.ledger import Chatter
from chatter_db.server import problems
from chatter_db.server.correlation import Correlation
from chatter_db.server.headers import Guarded
from chatter_db.server.limits import BodyLimit, ChatLimit, RateLimit
from chatter_db.server.metrics import Measured, Metrics
from chatter_db.server.routes import (
    analytics,
    auth,
    conversations,
    dashboard,
    events,
    executions,
    health,
    overview,
    security,
)
from chatter_db.server.sse import Streaming, Streams
from chatter_db.settings import settings


def create_app(chatter: Chatter) -> FastAPI:
    """The ASGI app on an open `chatter`."""
    app = FastAPI(
        title="chatter-db",
        version=version("chatter-db"),
        description="True numbers for LLM chat products: Postgres keeps the books.",
    )
    app.state.chatter = chatter
    app.state.accounts = Accounts(chatter)
    app.state.streams = Streams(
        app.state.accounts, settings().max_streams, settings().streams_per_user
    )
    app.state.rate_limit = RateLimit(settings().requests_per_minute)
    app.state.chat_limit = ChatLimit(settings().chats_per_user)
    app.state.metrics = Metrics()
    app.state.worker = None
    problems.install(app)
    for family in (analytics, auth, conversations, events, executions, security, health, overview):
        app.include_router(family.router)
    dashboard.install(app)
    # The last one added is the first to see a request.
    app.add_middleware(BodyLimit, limit=settings().max_body_kb * 1024)
    app.add_middleware(Measured, metrics=app.state.metrics)
    app.add_middleware(Correlation)
    app.add_middleware(Guarded)
    app.add_middleware(Streaming)
    return app
