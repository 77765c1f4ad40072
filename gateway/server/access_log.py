"""Tokens don't belong in logs."""

import logging
import re

_TOKEN = re.compile(r"([?&]token=)[^&\s]*")


class RedactTokens(logging.Filter):
    """Blanks the query parameter `token` in uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _TOKEN.sub(r"\1…", value) if isinstance(value, str) else value for value in record.args
            )
        return True
