"""Tokens don't belong in logs, nor do ids that stand for one."""

import logging
import re

# A name may be written in percent codes (%74oken), so every parameter with one in its name loses its value too.
_TOKEN = re.compile(r"([?&;][^=&;\s]*(?:token|authorization|ticket|event[_-]?id|%)[^=&;\s]*=)[^&\s]*", re.IGNORECASE)


class RedactTokens(logging.Filter):
    """Blanks the query parameters that hold secrets, in uvicorn's access log."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _TOKEN.sub(r"\1…", value) if isinstance(value, str) else value for value in record.args
            )
        return True
