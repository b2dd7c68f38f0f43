-- Everybody's conversations as they began: ids tell no time where an import or the app made them.
create index conversations_created_at_id_idx on chatter.conversations (created_at, id);

comment on index chatter.conversations_created_at_id_idx is 'The newest conversations.';
