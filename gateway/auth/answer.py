"""Answers of other servers."""

import httpx


async def body_of(response: httpx.Response, most: int) -> bytes:
    """The body, of which no more is held than `most` bytes.

    Raises:
        ValueError: it is larger.
    """
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > most:
            raise ValueError(f"the answer is larger than {most} bytes")
    return bytes(body)
