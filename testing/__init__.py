"""Real servers and clients that `tests/` and `chaos/` drive: nothing here pretends."""
