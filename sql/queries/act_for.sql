-- Confines the transaction to what is a user's.
select chatter.act_for(cast(:user_id as uuid))
