"""Model providers on loopback: real HTTP, real bills."""
