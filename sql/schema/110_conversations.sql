-- Conversations: what belongs together, with the totals of its messages.
-- The totals are kept by the triggers of 150; nobody else may write them (160).

create table chatter.conversations (
  id uuid not null default chatter.uuid7(),
  external_id text,
  user_id uuid,
  title text,
  status text not null default 'active',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default chatter.clock(),
  message_count bigint not null default 0,
  prompt_tokens bigint not null default 0,
  completion_tokens bigint not null default 0,
  total_tokens bigint not null default 0,
  total_cost numeric not null default 0,
  unpriced_calls bigint not null default 0,
  last_message_at timestamptz,
  constraint conversations_pkey primary key (id),
  constraint conversations_user_id_fkey
    foreign key (user_id) references chatter.users (id) on delete restrict,
  constraint conversations_external_id_check check (length(external_id) between 1 and 500),
  constraint conversations_title_check check (length(title) <= 2000),
  constraint conversations_status_check check (status in ('active', 'archived', 'deleted')),
  constraint conversations_metadata_check
    check (jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $.**{100}')),
  constraint conversations_created_at_check
    check (created_at >= '1970-01-01 00:00:00+00' and created_at < '9999-01-01 00:00:00+00')
)
-- Room for the next version of a row beside it: every message updates its totals.
with (fillfactor = 70);

-- The recorder finds a conversation by its user and the host app's own id. Two
-- users may use the same id; a conversation without a user has its id alone
-- (nulls not distinct).
create unique index conversations_user_id_external_id_key
  on chatter.conversations (user_id, external_id) nulls not distinct
  where external_id is not null;

-- The conversations of a user, and the foreign key. No total and no
-- last_message_at in any index: then their updates stay within the page (HOT) and
-- touch no index at all.
create index conversations_user_id_idx on chatter.conversations (user_id);

-- Everybody's, as they began: ids tell no time where an import or the app made them.
create index conversations_created_at_id_idx on chatter.conversations (created_at, id);

comment on table chatter.conversations is
  'Conversations with the totals of their messages. Totals are kept by triggers and can''t be written.';
comment on column chatter.conversations.id is 'UUIDv7.';
comment on column chatter.conversations.external_id is
  'The host app''s own id, such as LangGraph''s thread_id; unique per user.';
comment on column chatter.conversations.user_id is 'Whose conversation; NULL when the app did not say.';
comment on column chatter.conversations.title is 'For people to read; erased with the conversation.';
comment on column chatter.conversations.status is
  'active, archived or deleted. A deleted conversation keeps its figures and has lost its texts.';
comment on column chatter.conversations.metadata is 'Free JSON object of the host app.';
comment on column chatter.conversations.created_at is 'When the conversation began.';
comment on column chatter.conversations.message_count is
  'Kept by trigger: rows of kind turn, what people wrote or were shown.';
comment on column chatter.conversations.prompt_tokens is 'Kept by trigger: sum over all message rows, in tokens.';
comment on column chatter.conversations.completion_tokens is 'Kept by trigger: sum over all message rows, in tokens.';
comment on column chatter.conversations.total_tokens is 'Kept by trigger: sum over all message rows, in tokens.';
comment on column chatter.conversations.total_cost is
  'Kept by trigger: sum of the known costs of all message rows, in US dollars, exact.';
comment on column chatter.conversations.unpriced_calls is
  'Kept by trigger: model calls whose cost is not known and so not in total_cost.';
comment on column chatter.conversations.last_message_at is 'Kept by trigger: created_at of the newest message row.';
comment on index chatter.conversations_user_id_external_id_key is
  'One conversation per user and id of the host app.';
comment on index chatter.conversations_user_id_idx is 'The conversations of a user.';
comment on index chatter.conversations_created_at_id_idx is 'The newest conversations.';
