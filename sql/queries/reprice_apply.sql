select chatter.apply_prices(:repricing, cast(:costs as jsonb))
