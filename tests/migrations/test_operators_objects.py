"""What an operator has built on the books is kept by an upgrade, or named by what stops it."""

from typing import Any

import psycopg
import pytest

from chatter_db import migrating
from chatter_db.errors import SchemaError
from tests.migrations.test_migrating import ONE_SERVER, alembic
from tests.migrations.test_upgrading import WRITTEN, migrate_to

VIEWS = """
create schema reports;
create view reports.spent with (security_barrier = true) as
  select u.day, u.cost, u.as_of, 'US dollars' collate "C" as unit from analytics.usage_daily as u;
create view reports.dear as select s.day, s.cost from reports.spent as s where s.cost > 0.05;
create view reports.slow as select * from analytics.latency_by_model_live;
create view reports.active as select * from analytics.active_users;
create view reports.tools as select * from analytics.tool_usage;
comment on view reports.spent is 'Of the bookkeepers.';
grant select (day) on reports.spent to public;
alter view reports.spent alter column unit set default 'US dollars';
create function reports.tg_refuse() returns trigger language plpgsql
  as $$begin raise exception 'none of these is written'; end$$;
create trigger refuse instead of insert on reports.spent
  for each row execute function reports.tg_refuse();
"""
# All that is known of them, whatever their number is.
KNOWN = """
select c.relname, pg_get_viewdef(c.oid), c.reloptions, c.relacl, a.attname, a.attacl,
  format_type(a.atttypid, a.atttypmod), a.attcollation, obj_description(c.oid),
  pg_get_expr(d.adbin, d.adrelid), t.tgname
from pg_class as c join pg_attribute as a on a.attrelid = c.oid and a.attnum > 0
  left join pg_attrdef as d on d.adrelid = c.oid and d.adnum = a.attnum
  left join pg_trigger as t on t.tgrelid = c.oid
where c.relnamespace = 'reports'::regnamespace and c.relkind = 'v'
order by c.relname, a.attnum
"""

# The books of another owner, with rights and settings of an operator's.
OWNED = """
create role bookkeeper;
do $$
declare
  v_name text;
begin
  for v_name in
    select c.oid::regclass from pg_class as c
    where c.relnamespace in ('chatter'::regnamespace, 'analytics'::regnamespace)
      and c.relkind in ('r', 'm', 'v')
  loop
    execute format('alter table %s owner to bookkeeper', v_name);
  end loop;
end
$$;
grant usage, create on schema chatter, analytics to bookkeeper;
grant select (day, cost) on analytics.usage_daily to public;
alter materialized view analytics.usage_daily set (autovacuum_enabled = false);
create index own_cost on analytics.usage_daily (cost);
"""
MADE = """
select c.relname, c.relowner::regrole, c.reloptions, c.relispopulated, a.attname, a.attacl::text
from pg_class as c left join pg_attribute as a on a.attrelid = c.oid and a.attacl is not null
where c.relnamespace = 'analytics'::regnamespace
  and c.relname in ('usage_daily', 'own', 'active_users', 'active_users_live')
order by 1, a.attnum
"""


@pytest.fixture(params=["0011", "0037"])
def older(request: pytest.FixtureRequest, empty_url: str) -> str:
    """Books of an older version, with figures in them."""
    migrate_to(empty_url, request.param)
    with psycopg.connect(empty_url) as connection:
        connection.execute(WRITTEN)
    return empty_url


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def test_views_on_what_is_made_anew_are_kept(older: str) -> None:
    with psycopg.connect(older) as connection:
        connection.execute(VIEWS)
    before = rows(older, KNOWN)
    assert migrating.migrate(older).changed
    assert rows(older, KNOWN) == before
    with psycopg.connect(older) as connection:
        connection.execute("refresh materialized view analytics.usage_daily")
    dear = (
        "select sum(s.cost) > 0, min(s.unit) from reports.dear join reports.spent as s using (day)"
    )
    assert rows(older, dear) == [(True, "US dollars")]


@pytest.mark.parametrize(
    ("made", "named"),
    [
        (
            "materialized view own as select from analytics.usage_daily with no data",
            "materialized view own",
        ),
        (
            "function own() returns bigint language sql "
            "begin atomic select count(*) from analytics.usage_daily; end",
            "function own()",
        ),
        (
            "function own() returns setof analytics.usage_daily language sql "
            "as 'select * from analytics.usage_daily'",
            "function own()",
        ),
    ],
)
def test_what_cannot_be_kept_is_named(older: str, made: str, named: str) -> None:
    with psycopg.connect(older) as connection:
        connection.execute(f"create {made}")
    with pytest.raises(SchemaError, match="Nothing was changed") as refused:
        migrating.migrate(older)
    assert f"({named} depends on " in str(refused.value).replace("chatter.own", "own")
    assert "Drop these, migrate, and make them again." in str(refused.value)
    assert "CASCADE" not in str(refused.value)
    with psycopg.connect(older) as connection:
        kind = named.removesuffix("own()").removesuffix("own")
        connection.execute(f"drop {kind} own")
    assert migrating.migrate(older).changed


def test_what_is_made_anew_keeps_owner_and_rights(empty_url: str) -> None:
    migrate_to(empty_url, "0037")
    with psycopg.connect(empty_url) as connection:
        connection.execute(OWNED)
        connection.execute("create materialized view analytics.own as select 1 as one")
    try:
        before = rows(empty_url, MADE)
        assert migrating.migrate(empty_url).changed
        assert rows(empty_url, MADE) == before
        with psycopg.connect(empty_url) as connection:
            connection.execute("set role bookkeeper")
            connection.execute("refresh materialized view analytics.usage_daily")
    finally:
        with psycopg.connect(empty_url) as connection:
            connection.execute("reassign owned by bookkeeper to current_user")
            connection.execute("drop owned by bookkeeper")
            connection.execute("drop role bookkeeper")


def test_a_view_that_lost_a_column_is_named(empty_url: str) -> None:
    migrate_to(empty_url, "0004")
    with psycopg.connect(empty_url) as connection:
        # In the schema of the user's name, as the embedded server's is.
        connection.execute("create view chatter.own as select max_ms from analytics.tool_usage")
    view = "select pg_get_viewdef('chatter.own'::regclass)"
    before = rows(empty_url, view)
    with pytest.raises(SchemaError, match=r"chatter\.own can't .*max_ms.? does not exist. Drop it"):
        migrating.migrate(empty_url)
    assert rows(empty_url, view) == before
    with psycopg.connect(empty_url) as connection:
        connection.execute("drop view chatter.own")
    assert migrating.migrate(empty_url).changed


@pytest.mark.parametrize(
    "setting", ["standard_conforming_strings = off", "quote_all_identifiers = on"]
)
def test_settings_that_change_how_a_definition_reads(empty_url: str, setting: str) -> None:
    # An old program's, which the database has for all its sessions.
    name = empty_url.rpartition("/")[2]
    with psycopg.connect(empty_url) as connection:
        connection.execute(f'alter database "{name}" set {setting}')
    assert migrating.migrate(empty_url).changed


@ONE_SERVER
def test_the_alembic_command_names_it_too(empty_url: str) -> None:
    migrate_to(empty_url, "0037")
    with psycopg.connect(empty_url) as connection:
        connection.execute("create table own (spent analytics.usage_daily)")
    done = alembic(empty_url, "upgrade", "head")
    assert done.returncode != 0
    assert "column spent of table chatter.own depends on" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
