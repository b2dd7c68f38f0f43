-- Accounts: how people and programs prove who they are.
--
-- No secret is stored: passwords as Argon2 hashes, which take long to try; keys
-- and sessions as SHA-256, which is enough for 256 random bits.

create table chatter.passwords (
  user_id uuid not null,
  hash text not null,
  changed_at timestamptz not null default chatter.clock(),
  constraint passwords_pkey primary key (user_id),
  constraint passwords_user_id_fkey
    foreign key (user_id) references chatter.users (id) on delete cascade,
  -- Nobody stores the password itself by mistake.
  constraint passwords_hash_check check (hash like '$argon2id$%' and length(hash) < 500)
);

create table chatter.api_keys (
  id uuid not null default chatter.uuid7(),
  user_id uuid not null,
  name text not null,
  prefix text not null,
  hash bytea not null,
  created_at timestamptz not null default chatter.clock(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  constraint api_keys_pkey primary key (id),
  constraint api_keys_user_id_fkey
    foreign key (user_id) references chatter.users (id) on delete cascade,
  constraint api_keys_hash_key unique (hash),
  constraint api_keys_hash_check check (octet_length(hash) = 32),
  constraint api_keys_name_check check (length(name) between 1 and 200),
  constraint api_keys_prefix_check check (length(prefix) between 1 and 16)
);

-- A user's keys, and the foreign key.
create index api_keys_user_id_idx on chatter.api_keys (user_id);

create table chatter.browser_sessions (
  id uuid not null default chatter.uuid7(),
  user_id uuid not null,
  hash bytea not null,
  ip_address inet,
  user_agent text,
  created_at timestamptz not null default chatter.clock(),
  expires_at timestamptz not null,
  revoked_at timestamptz,
  api_key_id uuid,
  constraint browser_sessions_pkey primary key (id),
  constraint browser_sessions_user_id_fkey
    foreign key (user_id) references chatter.users (id) on delete cascade,
  -- A session that was begun with a key is no better than the key.
  constraint browser_sessions_api_key_id_fkey
    foreign key (api_key_id) references chatter.api_keys (id) on delete cascade,
  constraint browser_sessions_hash_key unique (hash),
  constraint browser_sessions_hash_check check (octet_length(hash) = 32),
  constraint browser_sessions_user_agent_check check (length(user_agent) <= 1000)
);

-- A user's sessions, and the foreign key.
create index browser_sessions_user_id_idx on chatter.browser_sessions (user_id);
-- For the foreign key.
create index browser_sessions_api_key_id_idx on chatter.browser_sessions (api_key_id)
  where api_key_id is not null;
-- What is over and can go.
create index browser_sessions_expires_at_idx on chatter.browser_sessions (expires_at);

comment on table chatter.passwords is 'Passwords of users, as Argon2id hashes.';
comment on column chatter.passwords.user_id is 'Whose password.';
comment on column chatter.passwords.hash is 'Argon2id, in its own encoding with parameters and salt.';
comment on column chatter.passwords.changed_at is 'When it was set.';
comment on table chatter.api_keys is 'API keys of users; the key itself is shown once and never stored.';
comment on column chatter.api_keys.id is 'UUIDv7.';
comment on column chatter.api_keys.user_id is 'Whose key.';
comment on column chatter.api_keys.name is 'What the user calls it.';
comment on column chatter.api_keys.prefix is 'How the key begins, to tell keys apart.';
comment on column chatter.api_keys.hash is 'SHA-256 of the key.';
comment on column chatter.api_keys.created_at is 'When it was made.';
comment on column chatter.api_keys.expires_at is 'When it stops; NULL: never.';
comment on column chatter.api_keys.last_used_at is 'When it was last used, to the minute.';
comment on column chatter.api_keys.revoked_at is 'When it was revoked; NULL while it is good.';
comment on index chatter.api_keys_user_id_idx is 'A user''s keys.';
comment on table chatter.browser_sessions is 'Browsers that are signed in; the cookie''s token is never stored.';
comment on column chatter.browser_sessions.id is 'UUIDv7.';
comment on column chatter.browser_sessions.user_id is 'Who is signed in.';
comment on column chatter.browser_sessions.hash is 'SHA-256 of the cookie''s token.';
comment on column chatter.browser_sessions.ip_address is 'Where the session was begun.';
comment on column chatter.browser_sessions.user_agent is 'What the browser called itself.';
comment on column chatter.browser_sessions.created_at is 'When the session was begun.';
comment on column chatter.browser_sessions.expires_at is 'When it ends by itself.';
comment on column chatter.browser_sessions.revoked_at is 'When it was ended: signed out, or the password changed.';
comment on column chatter.browser_sessions.api_key_id is
  'The key it was begun with, if by one: it ends with it.';
comment on index chatter.browser_sessions_api_key_id_idx is 'The sessions of a key.';
comment on index chatter.browser_sessions_user_id_idx is 'A user''s sessions.';
comment on index chatter.browser_sessions_expires_at_idx is 'Sessions that are over.';
