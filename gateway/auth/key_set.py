"""Keys that an identity provider publishes at a URL (JWKS, RFC 7517)."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence

import httpx

from gateway.auth.answer import body_of
from gateway.auth.errors import CannotTell
from gateway.auth.keys import MAX_KEYS, PUBLIC_ALGORITHMS, Key, key_set, matching
from gateway.auth.urls import without_secrets
from gateway.metrics import Metrics

logger = logging.getLogger(__name__)

_REFRESH = 300.0
"""Seconds between two looks at the keys."""
_AGAIN = 10.0
"""Seconds after which a failed attempt is repeated. Unknown keys are looked for no more often: tokens that name
made-up ones must not become requests to the provider."""
_PATIENCE = 5.0
_MAX_BYTES = 1_048_576


class RemoteKeys:
    """Keeps the keys that were read last, also while their server can't be reached.

    Args:
        url: where they are.
        changed: called when they are others than before.
        metrics: where attempts are counted.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        url: str,
        changed: Callable[[], None],
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._shown = without_secrets(url)
        self._tls = httpx.create_ssl_context()  # takes 40 ms, so not while there are streams
        self._changed = changed
        self._metrics = metrics
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._body = b""
        self._failure: str | None = None
        self._asked_at = -_AGAIN
        self._reading: asyncio.Task[None] | None = None

    async def find(self, algorithm: str, kid: str | None) -> Sequence[Key]:
        """Those for a token with such a header; see `gateway.auth.tokens.KeySet`."""
        found = matching(self._keys, algorithm, kid)
        if found or algorithm not in PUBLIC_ALGORITHMS:
            return found
        if self._reading is None:
            if self._clock() < self._asked_at + _AGAIN:
                # It may be a new key: with a 401 the EventSources that were given it first would stop permanently.
                raise CannotTell("the keys that verify tokens were read just now, without this one")
            self._asked_at = self._clock()
        await self._read()
        if self._failure is not None or not self._body:
            raise CannotTell("the keys that verify tokens can't be read just now")
        return matching(self._keys, algorithm, kid)

    async def run(self) -> None:
        """Read the keys now and then, until cancelled."""
        while True:
            await self._read()
            await asyncio.sleep((_REFRESH if self._failure is None else _AGAIN) * random.uniform(0.9, 1.1))

    async def _read(self) -> None:
        """Once for all who wait for it."""
        if self._reading is None:
            self._reading = asyncio.create_task(self._try())
            self._reading.add_done_callback(self._done)
        await asyncio.shield(self._reading)

    def _done(self, _: asyncio.Task[None]) -> None:
        self._reading = None

    async def _try(self) -> None:
        try:
            body = await self._get()
            keys, left_out = key_set(body)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, OSError) as error:
            self._metrics.key_reads["failed"] += 1
            failure = str(error) or type(error).__name__
            if isinstance(error, httpx.HTTPStatusError):  # its text has the URL in it, with the password
                failure = f"status {error.response.status_code}"
            if failure != self._failure:
                logger.warning(
                    "%s: the keys that verify tokens could not be read (%s); %s",
                    self._shown,
                    failure,
                    "those read before still count" if self._body else "no token can be verified with them yet",
                )
            self._failure = failure
            return
        self._metrics.key_reads["read"] += 1
        if self._failure is not None or not self._body:
            logger.info("%s: %d keys that verify tokens", self._shown, len(keys))
        self._failure = None
        if body != self._body:
            if left_out:
                logger.warning("%s: %d keys are left out; at most %d are used", self._shown, left_out, MAX_KEYS)
            self._body, self._keys = body, tuple(keys)
            self._changed()

    async def _get(self) -> bytes:
        """Read the answer, of which no more is held than a key set can be.

        Raises:
            httpx.HTTPError: it can't be had.
            ValueError: it is too large.
        """
        async with (
            asyncio.timeout(_PATIENCE),
            httpx.AsyncClient(verify=self._tls, timeout=_PATIENCE) as client,
            client.stream("GET", self._url, headers={"Accept": "application/json"}) as response,
        ):
            response.raise_for_status()
            return await body_of(response, _MAX_BYTES)
