"""A grant from the application's own backend, which knows its sessions (setting `auth_url`)."""

import asyncio
import json
import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b
from typing import NamedTuple

import httpx

from gateway.auth.answer import body_of
from gateway.auth.credentials import Credentials
from gateway.auth.errors import CannotTell, Forbidden, Unauthorized
from gateway.auth.grant import Grant, grant_of, seconds
from gateway.auth.urls import without_secrets
from gateway.metrics import Metrics
from gateway.pace import Pace
from gateway.settings import Settings
from gateway.throttle import Throttle

logger = logging.getLogger(__name__)

_FAILURES = 5
"""So many in a row, and the backend is left alone for a while."""
_REST = 5.0
"""Seconds for which it is."""
_MAX_BYTES = 262_144
_MAX_WAITING = 1000
"""Questions that wait for their turn. Who comes then is told to come back."""
_MAX_REMEMBERED = 10_000
_LOG_PAUSE = 5.0
_SAID = (401, 403, 408, 429)
"""Client errors that say something: who may what, or that it has too much to do."""


class _Question(NamedTuple):
    """What the backend is asked; see `Backend.grant`."""

    action: str
    channels: tuple[str, ...]
    patterns: tuple[str, ...]
    address: str
    credentials: Credentials


class _Answer(NamedTuple):
    """What the backend has said, and when (seconds, monotonic)."""

    said: Grant | Unauthorized | Forbidden
    at: float


class Backend:
    """Asks the backend, once for all who ask the same.

    Args:
        settings: where it is, and how much is asked of it.
        metrics: where questions are counted.
        clock: seconds, monotonic.
        now: seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._url = settings.auth_url
        self._shown = without_secrets(settings.auth_url)
        self._log = Throttle(_LOG_PAUSE, clock)
        self._timeout = settings.auth_timeout
        self._fresh = settings.auth_cache
        self._grace = settings.auth_grace
        self._metrics = metrics
        self._clock = clock
        self._now = now
        self._places = asyncio.Semaphore(settings.auth_concurrency)
        self._waiting = 0
        most = settings.auth_concurrency
        self._limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        self._client: httpx.AsyncClient | None = None
        self._tls = httpx.create_ssl_context()  # takes as long as a thousand events, so not while there are any
        self._pace = Pace()
        # By digest: cookies are long.
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[Grant]] = {}
        self._epoch = 0
        self._failures = 0
        self._rests_until = -math.inf

    async def grant(
        self,
        action: str,
        credentials: Credentials,
        channels: tuple[str, ...],
        patterns: tuple[str, ...],
        address: str,
    ) -> Grant:
        """What the backend grants.

        Args:
            action: `subscribe`, `publish`, or `admin`.
            credentials: as the request has them.
            channels: on which.
            patterns: likewise.
            address: of the client; empty if it isn't known.

        Raises:
            Unauthorized, Forbidden: it grants nothing.
            CannotTell: it can't be reached, or its answer is none.
        """
        question = _Question(action, channels, patterns, address, credentials)
        key = blake2b(repr(question).encode(errors="surrogatepass"), digest_size=16).digest()
        answer = self._answers.get(key)
        if answer is not None and self._clock() < answer.at + self._fresh and self._is_valid(answer):
            return _given(answer)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._ask(key, question))
            task.add_done_callback(lambda done: self._done(key, done))
        try:
            return await asyncio.shield(task)
        except CannotTell:
            is_late = answer is None or self._clock() >= answer.at + self._grace or not self._is_valid(answer)
            if answer is not None and not is_late and isinstance(answer.said, Grant):
                self._metrics.backend_questions["grace"] += 1
                return _given(answer)
            raise

    def forget(self) -> None:
        """What it has said so far doesn't count any more, nor does what it is being asked now."""
        self._epoch += 1
        self._answers.clear()
        self._asking.clear()

    async def close(self) -> None:
        """Close the connections to the backend."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _done(self, key: bytes, task: asyncio.Task[Grant]) -> None:
        if self._asking.get(key) is task:
            del self._asking[key]
        if not task.cancelled():
            task.exception()  # whoever asked may have left; the loop would complain that nobody looked

    def _is_valid(self, answer: _Answer) -> bool:
        said = answer.said
        return not isinstance(said, Grant) or said.expires_at is None or self._now() < said.expires_at

    async def _ask(self, key: bytes, question: _Question) -> Grant:
        if self._clock() < self._rests_until:
            self._metrics.backend_questions["resting"] += 1
            raise CannotTell("the backend has failed too often just now")
        if self._waiting >= _MAX_WAITING:
            self._metrics.backend_questions["too_many"] += 1
            raise CannotTell("too many ask the backend")
        self._waiting += 1
        epoch = self._epoch
        try:
            async with self._places:
                if self._clock() < self._rests_until:  # others have found out meanwhile
                    await self._pace.turn()  # a thousand may wait here
                    self._metrics.backend_questions["resting"] += 1
                    raise CannotTell("the backend has failed too often just now")
                answer = await self._answer(question)
        finally:
            self._waiting -= 1
        if epoch != self._epoch:
            raise CannotTell("a grant was revoked while the backend was asked")
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > _MAX_REMEMBERED:
            self._answers.popitem(last=False)
        return _given(answer)

    async def _answer(self, question: _Question) -> _Answer:
        asked_at = self._now()
        try:
            status, body = await self._post(question)
            if 400 <= status < 500 and status not in _SAID:
                # It doesn't like this request: nobody else has to suffer for what one client sends.
                self._metrics.backend_questions["rejected"] += 1
                self._note(f"status {status}")
                raise CannotTell("the backend rejects the question")
            said = self._read(status, body, asked_at)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            self._failed(str(error) or type(error).__name__)
            raise CannotTell("the backend can't be asked just now") from None
        if self._failures >= _FAILURES:
            logger.info("%s answers again", self._shown)
        self._failures = 0
        self._metrics.backend_questions[_kind(said)] += 1
        return _Answer(said, self._clock())

    def _failed(self, why: str) -> None:
        self._metrics.backend_questions["failed"] += 1
        self._failures += 1
        self._note(why)
        if self._failures >= _FAILURES:
            self._rests_until = self._clock() + _REST

    def _note(self, why: str) -> None:
        if (suppressed := self._log.allow(why)) is not None:
            more = f" ({suppressed} more like this)" if suppressed else ""
            logger.warning("%s gave no grant, and no refusal: %s%s", self._shown, why, more)

    async def _post(self, question: _Question) -> tuple[int, bytes]:
        if self._client is None:
            self._client = httpx.AsyncClient(verify=self._tls, timeout=self._timeout, limits=self._limits)
        credentials = question.credentials
        headers = {
            name: value
            for name, value in (
                ("Cookie", credentials.cookie),
                ("Authorization", credentials.authorization),
                ("Origin", credentials.origin),
            )
            if value
        }
        content = {
            "action": question.action,
            "channels": question.channels,
            "patterns": question.patterns,
            "address": question.address,
        }
        async with (
            asyncio.timeout(self._timeout),
            self._client.stream(
                "POST",
                self._url,
                json=content,
                # As bytes: a browser sends what it likes in a cookie.
                headers=[(name.encode(), value.encode("latin-1")) for name, value in headers.items()],
            ) as response,
        ):
            return response.status_code, await body_of(response, _MAX_BYTES)

    def _read(self, status: int, body: bytes, asked_at: float) -> Grant | Unauthorized | Forbidden:
        """What the answer says.

        Raises:
            ValueError: it is no grant, and no refusal.
        """
        if status == 401:
            return Unauthorized("The application doesn't know who you are.")
        if status == 403:
            return Forbidden("The application doesn't allow this.")
        if status != 200:
            raise ValueError(f"status {status}")
        try:
            described = json.loads(body)
        except (ValueError, RecursionError):
            raise ValueError("its answer is no JSON") from None
        if not isinstance(described, dict):
            raise ValueError("its answer is no object")
        sub, expires_at = described.get("sub"), described.get("expires_at")
        if sub is not None and not isinstance(sub, str):
            raise ValueError("sub must be text or null")
        if expires_at is not None and (expires_at := seconds(expires_at)) is None:
            raise ValueError("expires_at must be seconds since 1970, or null")
        try:
            grant = grant_of(described, sub, expires_at, None, where="The grant", substitute=False)
        except Unauthorized as error:
            raise ValueError(str(error)) from None
        if grant.expires_at is not None and grant.expires_at <= self._now():
            return Unauthorized("The application's grant has expired.")
        return replace(grant, asked_at=asked_at)


def _kind(said: Grant | Unauthorized | Forbidden) -> str:
    if isinstance(said, Grant):
        return "granted"
    return "unauthorized" if isinstance(said, Unauthorized) else "forbidden"


def _given(answer: _Answer) -> Grant:
    if isinstance(answer.said, Grant):
        return answer.said
    # A new one each time: an exception that is raised again keeps the frames of those it was raised for.
    raise type(answer.said)(str(answer.said))
