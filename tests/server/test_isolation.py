"""The server's sessions act for who is signed in: a forgotten condition leaks nothing."""

from sqlalchemy import func, select

from chatter_db import Chatter
from chatter_db.models import ApiKey, Conversation, User

from .conftest import Person


async def test_a_session_without_a_condition_meets_one_s_own_rows(
    chatter: Chatter, ada: Person, bob: Person, admin: Person
) -> None:
    for person in (ada, bob):
        (await person.http.post("/api/conversations", json={})).raise_for_status()
    async with chatter.session(acting_for=ada.identity.acts_for) as session:
        # Two transactions of one session: both act for her.
        for _ in range(2):
            found = await session.scalars(select(Conversation.user_id))
            assert found.all() == [ada.identity.user_id]
            assert (await session.scalars(select(User.id))).all() == [ada.identity.user_id]
            assert (await session.scalars(select(ApiKey.user_id))).all() == [ada.identity.user_id]
            await session.commit()
    async with chatter.session(acting_for=admin.identity.acts_for) as session:
        owners = set(await session.scalars(select(Conversation.user_id)))
    assert owners >= {ada.identity.user_id, bob.identity.user_id}


async def test_the_pool_s_connections_are_nobody_s_afterwards(
    chatter: Chatter, ada: Person, bob: Person
) -> None:
    async with chatter.session(acting_for=ada.identity.user_id) as session:
        assert await session.scalar(select(func.count()).select_from(User)) == 1
    async with chatter.session() as session:
        assert await session.scalar(select(func.chatter.acting_user())) is None
        users = set(await session.scalars(select(User.id)))
    assert users >= {ada.identity.user_id, bob.identity.user_id}
