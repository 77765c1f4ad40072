"""Real servers and clients the tests drive: nothing here pretends."""
