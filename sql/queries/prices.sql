-- Prices of one's own, in US dollars per million tokens; of each model the newest first.
select
  p.provider, p.model, p.valid_from, p.prompt_price, p.completion_price, p.cache_read_price,
  p.cache_write_price, p.note, p.created_by
from chatter.prices as p
order by p.provider, p.model, p.valid_from desc, p.created_at desc
