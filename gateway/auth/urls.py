"""URLs as they may stand in a log."""

from urllib.parse import urlsplit


def without_secrets(url: str) -> str:
    """Without user, password, query and fragment."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"
