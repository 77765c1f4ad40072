"""Everything that talks to Redis; nothing else does."""
