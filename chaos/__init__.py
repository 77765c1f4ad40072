"""Breaks one thing at a time under a running gateway, and counts what each client lost.

`python -m chaos` prints the table, `python -m chaos soak` runs for long. Real clients, nginx, workers and Redis:

    publisher ──► Redis ──► 3 workers ──► nginx ──► fleets of EventSource clients
        └────────── what was published, and what each client wrote down ──────────┘
                                     account.py compares
"""
