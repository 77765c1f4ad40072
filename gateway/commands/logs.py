"""Logging for a server process."""

import logging


def configure_logging(level: str) -> None:
    """One line for each record, on standard error."""
    logging.basicConfig(
        level=level.upper(),
        format="%(asctime)s %(levelname)-7s %(name)s: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S%z",
    )
    # They tell of each request, with the URL and its password, and at `debug` with its headers.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if level != "debug":
        # uvicorn tells of its own start and stop, which the gateway tells in its own words.
        logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
