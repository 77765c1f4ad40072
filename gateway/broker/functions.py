"""The function library in Redis, for `redis-cli FCALL`, and the secret that it holds."""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from gateway.broker.library import Library
from gateway.broker.secret import NOTICES, Secret, dump_notice, load_notice
from gateway.broker.secret_key import KEY, SecretKey
from gateway.broker.signature import Signer
from gateway.memory.listening import ServerChanged

logger = logging.getLogger(__name__)

VERSION = 3
_NAME = re.compile(r"gateway_([0-9]+)")
_SECRET = re.compile(r"^local SECRET = '([\x21-\x26\x28-\x5b\x5d-\x7e]*)'$", re.MULTILINE)
_SERIAL = re.compile(r"^-- serial of the secret: ([0-9]+)$", re.MULTILINE)
_PREVIOUS = "gateway"
"""The library's name before names had versions. Both have gateway_publish, so Redis refuses the second of them."""
_BYTES = 24
_ATTEMPTS = 3


class _Loaded(NamedTuple):
    version: int
    code: str

    @property
    def secret(self) -> Secret:
        text, serial = _SECRET.search(self.code), _SERIAL.search(self.code)
        return Secret(text[1].encode() if text else b"", int(serial[1]) if serial else 0)


class Functions:
    """Keeps `FCALL gateway_publish` working, and all workers at one secret.

    A function runs with the rights of whoever calls it, so a key could not hide the secret from publishers. The code
    of a library can be read with FUNCTION LIST and FUNCTION DUMP only, which publishers need not be allowed.

    What is in Redis counts. A worker that starts puts the secret of its settings there, once; all others follow, also
    those whose settings have another.

    Args:
        redis: a client of the gateway's database that doesn't decode responses.
        library: what the functions do.
        signer: gets the secret.
        secret: of the settings; empty: what is in Redis, or what the first worker has generated.
        replaces: whether this is a worker, which puts its own in the place of what it finds when it starts.

    Attributes:
        on_change: called when there is another secret in Redis than the one in use.
    """

    def __init__(self, redis: Redis, library: Library, signer: Signer, secret: str, replaces: bool = True) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self._redis = redis
        self._library = library
        self._signer = signer
        self._given = secret.encode()
        self._key = SecretKey(redis)
        self._lock = asyncio.Lock()
        # Once ours are in force, what others put there stays.
        self._replaces = replaces
        self._are_loaded = False
        self._found = Secret()
        self._used: Secret | None = None

    @property
    def has_changed(self) -> bool:
        """Whether another secret was found in Redis than the one in use."""
        return self._used is not None and self._found != self._used

    async def install(self) -> bool:
        """Load the functions, unless a newer version's are there, in place of an older version's; find the secret.

        The first secret found is used at once. Another is used from `follow` or `adopt` on, because it depends on the
        place in what is heard what was signed with which.

        Returns:
            False where Redis has none, or doesn't let us.

        Raises:
            redis.exceptions.RedisError: Redis can't be reached.
        """
        async with self._lock:
            can_sign = await self._can_sign()
            try:
                self._found = await self._install(can_sign)
                self._are_loaded = True
            except ResponseError as error:
                logger.info("no FCALL gateway_publish: Redis answered %r", str(error))
                self._are_loaded = False
                self._found = Secret()
                if can_sign:
                    self._found, installed = await self._key.install(self._decide)
                    self._replaces &= not installed
            self._library.has_functions = self._are_loaded and can_sign
            lost = self._used is not None and self._found.text == self._used.text and self._found < self._used
            if self._used is None or lost:  # Redis has lost only how many there were before
                self.adopt()
        if self.has_changed:
            self.on_change()
        return self._are_loaded

    def adopt(self) -> None:
        """Use the secret that was found last: nothing is listened to, so nothing of another can come."""
        if self._found == self._used:
            return
        self._used = self._found
        self._library.use(self._used.text, "" if self._are_loaded else KEY)
        self._signer.adopt(self._used.text)
        if self._given and self._used.text not in (b"", self._given):
            logger.warning(
                "the secret in Redis is not that of the setting secret (--secret, GATEWAY_SECRET): another worker "
                "has replaced it, and this one uses what is in Redis"
            )

    async def follow(self, payload: bytes) -> bool:
        """A notice has been heard: what is heard from here on is signed with a new secret. Nothing must be read until
        this returns.

        Returns:
            False if the notice isn't signed.

        Raises:
            ServerChanged: it can't be told where the secret that is in Redis now began.
            redis.exceptions.RedisError: Redis can't be reached, or refuses.
        """
        notice = load_notice(self._signer, payload)
        if notice is None:
            return False
        async with self._lock:
            if self._used is None or notice.serial <= self._used.serial:
                return True  # it was published again
            self._found = await self._find()
            if notice.is_of(self._found):
                self.adopt()
            elif self._found.serial >= notice.serial:
                raise ServerChanged("the secret has changed again")
        return True

    async def _can_sign(self) -> bool:
        """Whether this Redis can sign; fakeredis can't."""
        try:
            return bool(await cast("Any", self._redis.eval("return redis.sha1hex and 1 or 0", 0)))
        except ResponseError:  # this user may not
            return True

    async def _find(self) -> Secret:
        if not self._are_loaded:
            return await self._key.find()
        return max(await self._loaded(), default=_Loaded(0, "")).secret

    def _decide(self, found: Secret) -> Secret:
        """Which secret is to be in force, given the one that is."""
        used = self._used or Secret()
        text = found.text or used.text or self._given or secrets.token_urlsafe(_BYTES).encode()
        if self._given and self._replaces:
            text = self._given
        if text == found.text:
            return found
        if text == used.text:  # Redis has lost it
            return Secret(text, max(found.serial, used.serial))
        return Secret(text, max(found.serial, used.serial) + 1)

    async def _install(self, can_sign: bool) -> Secret:
        """The secret in force; raises ResponseError if there are no functions."""
        for attempt in range(_ATTEMPTS):
            loaded = await self._loaded()
            newest = max(loaded, default=_Loaded(0, ""))
            found = newest.secret
            if newest.version > VERSION:
                return found
            secret = self._decide(found) if can_sign else Secret()
            present = newest.code if newest.version == VERSION else ""
            code = self._code(secret)
            # What was loaded by a worker that began later stays, although its settings may be others.
            if code != present and (self._replaces or not present or secret != found):
                answer = await self._load(loaded, code, bool(present), found, secret)
                if isinstance(answer, ResponseError):
                    if present:
                        return found  # refused for now; the next time may be better
                    if attempt + 1 < _ATTEMPTS:
                        continue  # another worker may have been faster
                    raise answer
            self._replaces = False
            return secret
        raise AssertionError("unreachable")

    def _code(self, secret: Secret) -> str:
        return (
            f"#!lua name=gateway_{VERSION}\n"
            f"-- serial of the secret: {secret.serial}\n"
            f"{self._library.code(secret.text)}\n"
            "redis.register_function('gateway_publish', publish)\n"
            "redis.register_function('gateway_end', finish)\n"
            "redis.register_function('gateway_tick', tick)\n"
        )

    async def _load(self, loaded: list[_Loaded], code: str, replace: bool, found: Secret, secret: Secret) -> object:
        """Load the library in place of those of previous versions, and give notice of a new secret, in one step."""
        older = [_PREVIOUS, *(f"gateway_{each.version}" for each in loaded if each.version < VERSION)]
        notice = dump_notice(found.text, secret) if found.text not in (b"", secret.text) else b""
        async with self._redis.pipeline(transaction=True) as transaction:
            # Together, so that nobody finds FCALL missing in between.
            for name in older:
                transaction.function_delete(name)
            # Without REPLACE where there was none: of workers that start together, one generates the secret.
            transaction.function_load(code, replace=replace)
            if notice:
                transaction.publish(NOTICES, notice)
            try:
                answers = await transaction.execute(raise_on_error=False)
            except NoPermissionError as error:
                if not notice:
                    return error
                logger.warning(
                    "Redis does not let this user publish on %s (ACL): workers can't be told of the new secret, and "
                    "have to reconnect: %s",
                    NOTICES.decode(),
                    error,
                )
                return await self._load(loaded, code, replace, Secret(), secret)
        return answers[len(older)]

    async def _loaded(self) -> list[_Loaded]:
        libraries = await cast("Any", self._redis.function_list("gateway_*", withcode=True))
        # A dictionary with RESP3, its items in a row with RESP2.
        described = [it if isinstance(it, dict) else dict(zip(it[::2], it[1::2], strict=True)) for it in libraries]
        return [
            _Loaded(int(match[1]), it[b"library_code"].decode())
            for it in described
            if (match := _NAME.fullmatch(it[b"library_name"].decode()))
        ]
