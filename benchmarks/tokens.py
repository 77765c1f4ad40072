"""Tokens that the clients of a benchmark send."""

import time

import jwt

SECRET = "of the benchmarks, and of nobody else, but long enough"
_SECONDS = 86_400


def headers_with_tokens(count: int) -> tuple[str, ...]:
    """So many headers with tokens (HS256), each of another subject, that allow what is needed here."""
    expires_at = time.time() + _SECONDS
    return tuple(
        "Authorization: Bearer "
        + jwt.encode(
            {
                "sub": f"user-{number}",
                "exp": expires_at,
                "gateway": {"subscribe": ["bench-*", "user.{sub}"], "publish": []},
            },
            SECRET,
            "HS256",
        )
        for number in range(count)
    )
