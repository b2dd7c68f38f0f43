"""`Chatter`: a connection to the books, with the few verbs of the public surface."""

import asyncio
import atexit
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from typing import Any, Self
from uuid import UUID

from sqlalchemy import Connection, Engine, event, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from chatter_db import database, migrating
from chatter_db.errors import DatabaseUnavailable, UsageError
from chatter_db.events import Event, Hub, Selection
from chatter_db.loops import Loops
from chatter_db.models import MAX_TITLE, Conversation, User
from chatter_db.queries import query
from chatter_db.recorder import Recorder, Writer, cut_off_runs, open_spool
from chatter_db.recorder import hook as hook_recorders
from chatter_db.recorder import install as install_recorder
from chatter_db.recorder import uninstall as uninstall_recorder
from chatter_db.recorder.arguments import json_object, require_text, row_id
from chatter_db.recorder.records import RunEnded
from chatter_db.recorder.runs import now
from chatter_db.settings import default_data_dir, settings

log = logging.getLogger(__name__)


class Chatter:
    """The books of one database. Use it as a context manager, async or not.

        async with Chatter.connect(dsn) as chatter:
            run = chatter.recorder(conversation="support-42", user="ada")
            await graph.ainvoke(inputs, config={"callbacks": [run]})

    One per process is enough; it is safe to share between threads and event loops, and goes on
    in processes forked from this one. One that nobody closes is closed when the process ends.
    """

    def __init__(self, dsn: str | None = None, *, records: bool = True) -> None:
        self._dsn = dsn
        self._records = records
        self._open = ExitStack()
        self._url: str | None = None
        self._sync_engine: Engine | None = None
        self._loops = Loops()
        self._writer: Writer | None = None
        self._installed: Recorder | None = None

    @classmethod
    def connect(cls, dsn: str | None = None, *, records: bool = True) -> Self:
        """The books at `dsn`, else at CHATTER_DATABASE_URL, else in the embedded server.

        With `records=False` for reading alone, by a login that may do no more: nothing is
        recorded, and what waits in the spool is left to who may book it.

        Entering the context raises UsageError for a URL that isn't Postgres's,
        DatabaseUnavailable if there is no connection (with CHATTER_REQUIRE_DATABASE=false that
        is logged, and what is recorded waits in the spool), SchemaError if the schema is
        missing, older or newer than this code. The embedded server is started
        and migrated as needed.
        """
        return cls(dsn, records=records)

    def __enter__(self) -> Self:
        if self._url is not None:
            raise UsageError("This Chatter is already open.")
        with ExitStack() as opening:
            url = opening.enter_context(database.database_url(self._dsn))
            if self._dsn is None and settings().database_url is None:
                migrating.migrate(url, log.warning)
            engine = database.sync_engine(url)
            opening.callback(engine.dispose)
            self._require_books(engine, url)
            if self._records:
                spool = open_spool(spool_name(url, self._dsn))
                self._writer = Writer(url, spool, durability=settings().durability)
                opening.callback(self._writer.close)
                opening.callback(cut_off_runs, self._writer)
            self._url, self._sync_engine = url, engine
            self._open = opening.pop_all()
        _open_ones.add(self)
        return self

    def _require_books(self, engine: Engine, url: str) -> None:
        try:
            with database.losses_told(url), engine.connect() as connection:
                migrating.require_current(connection)
        except DatabaseUnavailable as error:
            if settings().require_database or not self._records:
                raise
            log.error("%s Until it is there, what is recorded waits in the spool.", error)

    def __exit__(self, *exception: object) -> None:
        self.uninstall()
        _open_ones.discard(self)
        self._loops.end()
        self._url = self._sync_engine = self._writer = None
        self._open.close()

    async def __aenter__(self) -> Self:
        opening = asyncio.ensure_future(asyncio.to_thread(self.__enter__))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # The thread can't be stopped; what it opens must not stay open.
            await opening
            await asyncio.to_thread(self.__exit__)
            raise

    async def __aexit__(self, *exception: object) -> None:
        await self._loops.close()
        await asyncio.to_thread(self.__exit__, *exception)

    @property
    def url(self) -> str:
        """Where the books are, password included, for any driver. Raises UsageError unless open."""
        if self._url is None:
            raise UsageError(
                "This Chatter is not open. Use: async with Chatter.connect() as chatter"
            )
        return database.for_any_driver(self._url)

    @property
    def recorder_id(self) -> UUID:
        """The id in `chatter.recorders` by which runs of this process are known."""
        return self._opened_writer().id

    def release(self, execution_id: UUID) -> None:
        """Ends an execution whose row was made ahead for a run of this process, which never began.

        As any record it is booked later where Postgres is away.
        """
        ended = RunEnded(execution_id=execution_id, status="cancelled", finished_at=now())
        self._opened_writer().submit([ended])

    @property
    def lost_records(self) -> int:
        """Records refused by Postgres, not readable in the spool, or lost to a full one, since this
        was opened.

        Each was logged as an error; all but the last kind are in refused.json-lines. The start of
        a run among them is booked with what the run brings later. Records that wait in the spool
        are not lost.
        """
        return self._opened_writer().lost

    @property
    def reduced_records(self) -> int:
        """Records that Postgres refused and took in reduced form since this was opened.

        Their figures are booked, their texts are in the spool's refused.json-lines; each was
        logged as an error.
        """
        return self._opened_writer().reduced

    @property
    def spooled_bytes(self) -> int:
        """Bytes of records that wait in the spool of this process; 0 while Postgres takes them."""
        return self._opened_writer().spooled_bytes

    def recorder(
        self,
        *,
        conversation: str | UUID | None = None,
        user: str | None = None,
        workflow: str | None = None,
        correlation_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        content: bool = True,
        estimate_usage: bool = False,
    ) -> Recorder:
        """A LangChain callback handler that books the runs it is attached to.

        `conversation` is your own id of it (a string), or ours (a UUID); without
        one, LangGraph's `thread_id`, else a new conversation per run. A UUID that is not in the
        books loses the question, which is logged, and becomes a conversation with the first reply.
        `user` is
        your own id of the person; without one, the `user_id` of the run's metadata.
        `workflow` defaults to the graph's name, `correlation_id` to the run's id. With
        `content=False` the books get the figures and no text. With `estimate_usage=True` a
        call whose provider reports no usage gets tokens by a rule of thumb (LangChain's: four
        characters a token), marked `estimated`; it is never priced.

        Raises UsageError for an argument that can't be used.
        """
        hook_recorders()
        return Recorder(
            self._opened_writer(),
            conversation=conversation,
            user=user,
            workflow=workflow,
            correlation_id=correlation_id,
            metadata=metadata,
            content=content,
            estimate_usage=estimate_usage,
        )

    def install(
        self,
        *,
        user: str | None = None,
        workflow: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        content: bool = True,
        estimate_usage: bool = False,
    ) -> Recorder:
        """Books every model call of this process, in whatever thread, without any `config`.

        The conversation is LangGraph's `thread_id`, else a new one per run. Without `user` each
        run belongs to who signed in at LangGraph's server, else to the `user_id` of its
        metadata, its context or its configurable. Runs that
        call no model are not booked, and a run that is given a recorder of its own is
        left to that one. Lasts until `uninstall()` or until this Chatter is closed; to ask
        for the same once more changes nothing.

        Raises UsageError for an argument that can't be used, and if a recorder with other
        arguments, or of another Chatter, is installed in this process already.
        """
        recorder = Recorder(
            self._opened_writer(),
            user=user,
            workflow=workflow,
            metadata=metadata,
            content=content,
            estimate_usage=estimate_usage,
            installed=True,
        )
        self._installed = install_recorder(recorder)
        return self._installed

    def uninstall(self) -> None:
        """Takes `install()` back, for runs that begin from now on; no-op if there was none."""
        recorder, self._installed = self._installed, None
        if recorder is not None:
            uninstall_recorder(recorder)

    async def flush(self) -> None:
        """Returns when all that this process has recorded before is in the books.

        For who reads them with CHATTER_DURABILITY=spool, or after an outage. While Postgres
        takes nothing it returns as soon as that is known: then the records wait in the spool.
        """
        await asyncio.wrap_future(self._opened_writer().flush())

    def event_hub(self) -> Hub:
        """The hub of this event loop: one LISTEN connection for all who follow the events."""
        return self._loops.hub(self.url)

    async def close_events(self) -> None:
        """Ends all that follow the events in this event loop; no-op if nobody does."""
        await self._loops.close_hub()

    async def events(
        self,
        *,
        after: str | None = None,
        user: UUID | None = None,
        conversation: UUID | None = None,
        execution: UUID | None = None,
        event_types: Iterable[str] | None = None,
        categories: Iterable[str] | None = None,
    ) -> AsyncIterator[Event]:
        """What happens in the books, as it is committed, for ever: `async for event in ...`.

        Begins after the position `after` (the `position` of the last event you had),
        else now. Ids (of rows, not your own) narrow it to a user, a conversation, an
        execution; types and categories to those named. Nothing is lost to a slow loop or a
        broken connection: it goes on from the table. Ends when the Chatter is closed.

        Raises UsageError for a position of another database, for a type or category that
        doesn't exist and for an id that is no UUID, EventsPruned for a position that retention
        has passed by.
        """
        wanted = Selection.of(
            user_id=user,
            conversation_id=conversation,
            execution_id=execution,
            event_types=event_types,
            categories=categories,
        )
        async with aclosing(self.event_hub().subscribe(wanted, after).events()) as events:
            async for event in events:
                yield event

    @asynccontextmanager
    async def session(self, *, acting_for: UUID | None = None) -> AsyncIterator[AsyncSession]:
        """A SQLAlchemy session on asyncpg: `await session.get(Message, id)`.

        With `acting_for` (an id of chatter.users) each of its transactions sees and writes
        what is that user's and nothing else, by row-level security; without, all there is.
        Raises UsageError for an `acting_for` that is no id.
        """
        async with AsyncSession(self._loops.engine(self.url), expire_on_commit=False) as session:
            if acting_for is not None:
                _confine(session, row_id("acting_for", acting_for))
            yield session

    @contextmanager
    def sync_session(self) -> Iterator[Session]:
        """A SQLAlchemy session on psycopg, for code without an event loop."""
        url = self.url
        assert self._sync_engine is not None, url
        with Session(self._sync_engine, expire_on_commit=False) as session:
            yield session

    async def create_conversation(
        self,
        *,
        user: str | None = None,
        external_id: str | None = None,
        title: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Conversation:
        """A new conversation of `user` (made if new), under your own id if you give one.

        Raises UsageError if the user has a conversation of that `external_id`, and for an argument
        that the books can't hold.
        """
        require_text("user", user)
        require_text("external_id", external_id)
        require_text("title", title, at_least=0, at_most=MAX_TITLE)
        extra = json_object("metadata", metadata)
        with database.refusals_told("The conversation"):
            return await self._make_conversation(user, external_id, title, extra)

    async def _make_conversation(
        self, user: str | None, external_id: str | None, title: str | None, extra: dict[str, Any]
    ) -> Conversation:
        async with self.session() as session, session.begin():
            owner = await _user(session, user) if user is not None else None
            made: Conversation | None = await session.scalar(
                insert(Conversation)
                .values(user_id=owner, external_id=external_id, title=title, extra=extra)
                .on_conflict_do_nothing(
                    index_elements=[Conversation.user_id, Conversation.external_id],
                    index_where=Conversation.external_id.is_not(None),
                )
                .returning(Conversation)
            )
            if made is None:
                raise UsageError(f"There is already a conversation {external_id!r} of this user.")
            return made

    async def delete_conversation(self, conversation_id: UUID) -> bool:
        """Erases the texts of a conversation; its tokens and cost stay in the books.

        False if there is no such conversation. Raises UsageError for what is no id of one.
        """
        wanted = row_id("conversation_id", conversation_id)
        async with self.session() as session, session.begin():
            erased: bool | None = await session.scalar(
                select(func.chatter.erase_conversation(wanted))
            )
            return bool(erased)

    def _opened_writer(self) -> Writer:
        url = self.url
        if not self._records:
            raise UsageError("This Chatter was opened for reading alone, with records=False.")
        assert self._writer is not None, url
        return self._writer

    def _leave(self) -> None:
        """In a child of fork: leaves connections, threads and files to the parent."""
        assert self._sync_engine is not None, self._url
        self._sync_engine.dispose(close=False)
        self._loops.leave()
        if self._writer is not None:
            self._writer.leave()


def spool_name(url: str, dsn: str | None = None) -> str:
    """What the spool knows a database by: the embedded server has another port each time."""
    if dsn is None and settings().database_url is None:
        return f"embedded {settings().data_dir or default_data_dir()}"
    return database.place(url)


# Kept open for their recorders, even where an app keeps nothing else of one.
_open_ones: set[Chatter] = set()


@atexit.register
def _close_at_exit() -> None:
    """Threads that end with the process may be in the middle of a run."""
    with ExitStack() as closing:
        for chatter in _open_ones:
            closing.push(chatter)


def _forked() -> None:
    for chatter in list(_open_ones):
        chatter._leave()


if sys.platform != "win32":
    # Servers that load the app before they fork (gunicorn --preload), Celery, multiprocessing.
    os.register_at_fork(after_in_child=_forked)


def _confine(session: AsyncSession, user_id: UUID) -> None:
    def act_for(_: Session, __: SessionTransaction, connection: Connection) -> None:
        # Not as an expression, which would be made and compiled for every transaction.
        connection.execute(query("act_for"), {"user_id": user_id})

    event.listen(session.sync_session, "after_begin", act_for)


async def _user(session: AsyncSession, external_id: str) -> UUID:
    await session.execute(
        insert(User)
        .values(external_id=external_id)
        .on_conflict_do_nothing(index_elements=[User.external_id])
    )
    found = await session.scalar(select(User.id).where(User.external_id == external_id))
    assert found is not None
    return found
