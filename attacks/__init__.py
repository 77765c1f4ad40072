"""Attacks on a running gateway, and what its other clients notice of them. `python -m attacks`."""
