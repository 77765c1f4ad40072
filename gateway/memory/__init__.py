"""What a worker knows of the past, by position: pure, no I/O (docs/architecture.md, "Positions")."""
