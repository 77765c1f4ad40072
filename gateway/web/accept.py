"""Content negotiation."""

from collections.abc import Iterable


def accepts_gzip(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a client takes gzip (RFC 9110, 12.5.3): it says so, and not with a weight of zero."""
    for name, value in headers:
        if name == b"accept-encoding":
            for entry in value.lower().split(b","):
                coding, _, weight = entry.partition(b";")
                if coding.strip() in (b"gzip", b"x-gzip"):
                    return not _is_zero(weight)
    return False


def _is_zero(weight: bytes) -> bool:
    try:
        return float(weight.strip().removeprefix(b"q=") or 1) == 0
    except ValueError:
        return True
