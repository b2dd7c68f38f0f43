"""Databases without the schema."""

from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from tests.conftest import SERVERS


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest) -> str:
    """The maintenance database of a server whose roles of chatter exist."""
    server = request.getfixturevalue(f"template_{request.param}")
    return f"postgresql://{server.user}:{server.password}@{server.host}:{server.port}/postgres"


@pytest.fixture
def server(server_url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """An autocommit connection of a superuser to the maintenance database."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def new_database(server_url: str) -> Iterator[Callable[..., str]]:
    """Makes empty databases; they are dropped after the test."""
    names: list[str] = []

    def create(encoding: str = "UTF8") -> str:
        names.append(f"empty_{uuid4().hex}")
        with psycopg.connect(server_url, autocommit=True) as connection:
            connection.execute(
                sql.SQL("create database {} encoding {} locale 'C' template template0").format(
                    sql.Identifier(names[-1]), encoding
                )
            )
        return server_url.removesuffix("postgres") + names[-1]

    yield create
    with psycopg.connect(server_url, autocommit=True) as connection:
        for name in names:
            connection.execute(
                sql.SQL("drop database {} with (force)").format(sql.Identifier(name))
            )


@pytest.fixture
def empty_url(new_database: Callable[[], str]) -> str:
    """An empty database."""
    return new_database()
