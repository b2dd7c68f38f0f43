"""How soon a server that vanished is noticed, by either driver."""

KEEPALIVES = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
"""By libpq's names: a server that vanished without a word is noticed within ten seconds."""
