-- Tables without a primary key: an UPDATE of them failed, and with it every fold, as soon as somebody
-- published all tables.
alter table analytics.usage_user_day replica identity full;
alter table analytics.usage_user_month replica identity full;
