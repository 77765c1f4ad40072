"""The function library in Redis, for `redis-cli FCALL`, and the secret that it holds."""

import asyncio
import logging
import re
import secrets
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from gateway.broker.library import Library
from gateway.broker.signature import Signer

logger = logging.getLogger(__name__)

VERSION = 3
_NAME = re.compile(r"gateway_([0-9]+)")
_SECRET = re.compile(r"^local SECRET = '([\x21-\x26\x28-\x5b\x5d-\x7e]*)'$", re.MULTILINE)
_PREVIOUS = "gateway"
"""The library's name before names had versions. Both have gateway_publish, so Redis refuses the second of them."""
_KEY = "gateway.secret"
"""Holds the secret where there are no Functions. Whoever may read keys can read it there."""
_BYTES = 24


class _Loaded(NamedTuple):
    version: int
    code: str

    @property
    def secret(self) -> bytes:
        match = _SECRET.search(self.code)
        return match[1].encode() if match else b""


class Functions:
    """Keeps `FCALL gateway_publish` working, and finds the secret.

    A function runs with the rights of whoever calls it, so a key could not hide the secret from publishers. The code
    of a library can be read with FUNCTION LIST and FUNCTION DUMP only, which publishers need not be allowed.

    Args:
        redis: a client of the gateway's database that doesn't decode responses.
        library: what the functions do.
        signer: gets the secret.
        secret: of the settings; empty: what the first worker has generated.
    """

    def __init__(self, redis: Redis, library: Library, signer: Signer, secret: str) -> None:
        self._redis = redis
        self._library = library
        self._signer = signer
        self._given = secret.encode()
        self._lock = asyncio.Lock()

    async def install(self) -> bool:
        """Load the functions, unless a newer version's are there, in place of an older version's; find the secret.

        Returns:
            False where Redis has none, or doesn't let us.

        Raises:
            redis.exceptions.RedisError: Redis can't be reached.
        """
        async with self._lock:
            can_sign = await self._can_sign()
            try:
                answer: object = await self._install(can_sign)
            except ResponseError as error:
                answer = error
            if isinstance(answer, ResponseError):
                logger.info("no FCALL gateway_publish: Redis answered %r", str(answer))
                await self._without_functions(can_sign)
                return False
            return True

    async def _can_sign(self) -> bool:
        """Whether this Redis can sign; fakeredis can't."""
        try:
            return bool(await cast("Any", self._redis.eval("return redis.sha1hex and 1 or 0", 0)))
        except ResponseError:  # this user may not
            return True

    async def _install(self, can_sign: bool) -> object:
        loaded = await self._loaded()
        newest = max(loaded, default=_Loaded(0, ""))
        if newest.version > VERSION:
            self._adopt(newest.secret)
            return None
        present = newest.code if newest.version == VERSION else ""
        secret = b""
        if can_sign:
            secret = self._given or newest.secret or self._signer.secret or secrets.token_urlsafe(_BYTES).encode()
        code = f"#!lua name=gateway_{VERSION}\n{self._library.code(secret)}\n"
        code += "redis.register_function('gateway_publish', publish)\n"
        if present != code:
            async with self._redis.pipeline(transaction=True) as transaction:
                # Together, so that nobody finds FCALL missing in between.
                for name in (_PREVIOUS, *(f"gateway_{each.version}" for each in loaded if each.version < VERSION)):
                    transaction.function_delete(name)
                # Without REPLACE where there was none: of workers that start together, one generates the secret.
                transaction.function_load(code, replace=bool(present))
                *_, answer = await transaction.execute(raise_on_error=False)
            if isinstance(answer, ResponseError):
                theirs = next((each for each in await self._loaded() if each.version == VERSION), None)
                if theirs is None or self._given:
                    return answer
                secret = theirs.secret
        self._adopt(secret)
        return None

    async def _without_functions(self, can_sign: bool) -> None:
        if not can_sign:
            self._adopt(b"")
            return
        secret = self._given
        try:
            if not secret:
                await self._redis.set(_KEY, secrets.token_urlsafe(_BYTES), nx=True)
                secret = cast("bytes", await self._redis.get(_KEY) or b"")
        except ResponseError as error:
            # As long as Redis refuses that, it refuses to count as well, and there is nothing to be signed.
            logger.debug("no secret could be found: %s", error)
            secret = secret or self._signer.secret or secrets.token_urlsafe(_BYTES).encode()
        self._adopt(secret)

    def _adopt(self, secret: bytes) -> None:
        if secret != self._signer.secret:
            self._library.use(secret)
            self._signer.adopt(secret)

    async def _loaded(self) -> list[_Loaded]:
        libraries = await cast("Any", self._redis.function_list("gateway_*", withcode=True))
        # A dictionary with RESP3, its items in a row with RESP2.
        described = [it if isinstance(it, dict) else dict(zip(it[::2], it[1::2], strict=True)) for it in libraries]
        return [
            _Loaded(int(match[1]), it[b"library_code"].decode())
            for it in described
            if (match := _NAME.fullmatch(it[b"library_name"].decode()))
        ]
