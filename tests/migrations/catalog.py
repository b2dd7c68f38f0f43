"""What a database's schema `chatter` consists of, in rows that two databases can be compared by."""

from typing import Any

import psycopg

# Alembic makes its version table; the files of sql/schema know nothing of it.
_OURS = "n.nspname in ('chatter', 'analytics') and c.relname not like 'alembic_version%'"

QUERIES: dict[str, str] = {
    "schemas": """
        select n.nspname, pg_get_userbyid(n.nspowner)
        from pg_namespace as n where n.nspname in ('chatter', 'analytics')
    """,
    "relations": """
        select n.nspname, c.relname, c.relkind, c.relpersistence, c.reloptions, c.relrowsecurity,
          c.relforcerowsecurity, c.relreplident, pg_get_userbyid(c.relowner)
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where {ours}
    """,
    "columns": """
        select n.nspname, c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
          a.attnotnull, a.attidentity, a.attgenerated, a.attstorage, a.attcompression,
          a.attcollation::regcollation::text, pg_get_expr(d.adbin, d.adrelid)
        from pg_attribute as a
          join pg_class as c on c.oid = a.attrelid
          join pg_namespace as n on n.oid = c.relnamespace
          left join pg_attrdef as d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where {ours} and a.attnum > 0 and not a.attisdropped
    """,
    "constraints": """
        select n.nspname, c.relname, k.conname, k.contype, k.convalidated, k.condeferrable,
          k.condeferred, pg_get_constraintdef(k.oid)
        from pg_constraint as k
          join pg_class as c on c.oid = k.conrelid
          join pg_namespace as n on n.oid = c.relnamespace
        where {ours}
    """,
    "indexes": """
        select n.nspname, c.relname, i.indisvalid, i.indisready, i.indisclustered,
          pg_get_indexdef(i.indexrelid)
        from pg_index as i
          join pg_class as c on c.oid = i.indexrelid
          join pg_namespace as n on n.oid = c.relnamespace
        where {ours}
    """,
    "views": """
        select n.nspname, c.relname, c.relkind, pg_get_viewdef(c.oid)
        from pg_class as c join pg_namespace as n on n.oid = c.relnamespace
        where {ours} and c.relkind in ('v', 'm')
    """,
    "functions": """
        select n.nspname, p.oid::regprocedure::text, pg_get_userbyid(p.proowner),
          pg_get_functiondef(p.oid)
        from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
        where n.nspname in ('chatter', 'analytics') and p.prokind <> 'a'
    """,
    "triggers": """
        select n.nspname, c.relname, t.tgname, t.tgenabled, pg_get_triggerdef(t.oid)
        from pg_trigger as t
          join pg_class as c on c.oid = t.tgrelid
          join pg_namespace as n on n.oid = c.relnamespace
        where {ours} and not t.tgisinternal
    """,
    # The triggers of foreign keys have numbers for names.
    "foreign_key_triggers": """
        select n.nspname, c.relname, t.tgfoid::regproc::text, t.tgenabled, count(*)
        from pg_trigger as t
          join pg_class as c on c.oid = t.tgrelid
          join pg_namespace as n on n.oid = c.relnamespace
        where {ours} and t.tgisinternal
        group by 1, 2, 3, 4
    """,
    "types": """
        select n.nspname, t.typname, t.typtype, t.typcategory, format_type(t.typbasetype, null)
        from pg_type as t
          join pg_namespace as n on n.oid = t.typnamespace
        where n.nspname in ('chatter', 'analytics') and t.typname not like '%alembic_version'
    """,
    "policies": "select * from pg_policies where schemaname in ('chatter', 'analytics')",
    "grants": """
        select o.kind, o.name, o.part, g.grantee, g.privilege_type, g.is_grantable
        from (
          select 'schema' as kind, n.nspname::text as name, '' as part, n.nspacl as acl
          from pg_namespace as n where n.nspname in ('chatter', 'analytics')
          union all
          select 'relation', c.relname, '', c.relacl
          from pg_class as c join pg_namespace as n on n.oid = c.relnamespace where {ours}
          union all
          select 'column', c.relname, a.attname, a.attacl
          from pg_attribute as a
            join pg_class as c on c.oid = a.attrelid
            join pg_namespace as n on n.oid = c.relnamespace
          where {ours}
          union all
          select 'function', p.oid::regprocedure::text, '', p.proacl
          from pg_proc as p join pg_namespace as n on n.oid = p.pronamespace
          where n.nspname in ('chatter', 'analytics')
          union all
          select 'type', t.typname, '', t.typacl
          from pg_type as t join pg_namespace as n on n.oid = t.typnamespace
          where n.nspname in ('chatter', 'analytics')
        ) as o
        cross join lateral (
          select
            case when e.grantee = 0 then 'public' else pg_get_userbyid(e.grantee)::text end
              as grantee,
            e.privilege_type,
            e.is_grantable
          from aclexplode(o.acl) as e
        ) as g
    """,
    "comments": """
        select i.type, i.identity, d.description
        from pg_description as d
          cross join lateral pg_identify_object(d.classoid, d.objoid, d.objsubid) as i
        where (i.schema in ('chatter', 'analytics') or i.identity in ('chatter', 'analytics')
          or i.identity like '% on chatter.%' or i.identity like '% on analytics.%'
          or i.identity like 'chatter.%')
          and i.identity not like '%alembic_version%'
    """,
}

# What the first version of the schema has; fewer means that the query is wrong.
FLOORS: dict[str, int] = {
    "schemas": 1,
    "relations": 20,
    "columns": 85,
    "constraints": 40,
    "indexes": 14,
    "views": 0,
    "functions": 16,
    "triggers": 22,
    "foreign_key_triggers": 8,
    "types": 12,
    "policies": 0,
    "grants": 240,
    "comments": 130,
}


def catalog(url: str) -> dict[str, list[str]]:
    """The rows of every kind, as sorted text."""
    with psycopg.connect(url) as connection:
        # Definitions name what is not on the search path.
        connection.execute("set search_path = ''")
        return {kind: _rows(connection, statement) for kind, statement in QUERIES.items()}


def _rows(connection: psycopg.Connection[tuple[Any, ...]], statement: str) -> list[str]:
    return sorted(map(repr, connection.execute(statement.replace("{ours}", _OURS)).fetchall()))
