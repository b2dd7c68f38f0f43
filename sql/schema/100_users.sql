-- Users: the people a conversation is billed to, under the host app's own names.

create table chatter.users (
  id uuid not null default chatter.uuid7(),
  external_id text not null,
  role text not null default 'user',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default chatter.clock(),
  constraint users_pkey primary key (id),
  constraint users_external_id_key unique (external_id),
  constraint users_external_id_check check (length(external_id) between 1 and 500),
  constraint users_role_check check (role in ('user', 'admin')),
  -- No more than 100 levels: what reads JSON gives up somewhere beyond, and with it whoever
  -- asked for a page with such a row.
  constraint users_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}')),
  constraint users_created_at_check
    check (created_at >= '1970-01-01 00:00:00+00' and created_at < '9999-01-01 00:00:00+00')
);

comment on table chatter.users is 'People whose conversations are in the books.';
comment on column chatter.users.id is 'UUIDv7.';
comment on column chatter.users.external_id is 'The host app''s own name for the user: any string, unique.';
comment on column chatter.users.role is 'user or admin.';
comment on column chatter.users.metadata is 'Free JSON object of the host app.';
comment on column chatter.users.created_at is 'When the user first appeared here.';
