"""Generated input for every door of a worker, and what must never come of it. `python -m fuzz`."""
