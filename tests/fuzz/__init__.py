"""Bad input, made at random from a seed: what is refused says why, and what is taken is true."""
