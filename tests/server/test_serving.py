"""The sockets that the server takes its clients from."""

import socket

from chatter_db.server.serving import listen


def test_an_answer_is_not_held_back() -> None:
    """By Nagle's algorithm, for the 40 ms that a client takes to acknowledge its beginning."""
    with listen("127.0.0.1", 0) as listener:
        client = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
        with client, accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
