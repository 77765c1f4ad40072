"""Every knob, with its unit, its default and its reason.

One name in three places: the field `redis_url` is the flag `--redis-url` and the variable `GATEWAY_REDIS_URL`.
The variable `GATEWAY_REDIS_URL_FILE` names a file that holds the value.
"""

import difflib
import json
import os
import re
from collections.abc import Collection, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

ENV_PREFIX = "GATEWAY_"
FILE_SUFFIX = "_FILE"
"""Of a variable that names a file with the value, as the secrets of Docker and Kubernetes are."""

# Kubernetes puts variables like GATEWAY_SERVICE_HOST and GATEWAY_PORT_80_TCP into every container of a
# namespace that has a service called "gateway"; they are not settings, and stopping for them would be absurd.
_KUBERNETES_LINK = re.compile(r"(PORT|SERVICE)_(HOST|PORT|\d+_(TCP|UDP)).*")

JWT_ALGORITHMS = (*[f"{kind}{bits}" for kind in ("HS", "RS", "PS", "ES") for bits in (256, 384, 512)], "EdDSA")

StringList = Annotated[tuple[str, ...], NoDecode]


class SettingsError(Exception):
    """A setting that doesn't exist or can't be: one sentence that names it."""


def _field(default: Any, unit: str, description: str, **bounds: Any) -> Any:
    if isinstance(default, float):
        bounds["allow_inf_nan"] = False
    return Field(default=default, description=description, json_schema_extra={"unit": unit}, **bounds)


class Settings(BaseSettings):
    """The settings of one worker."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    # Where
    host: str = _field("127.0.0.1", "address", "Address to listen on.")
    port: int = _field(8080, "port", "Port to listen on; 0 takes any free one.", ge=0, le=65535)
    unix_socket: str = _field("", "path", "Unix socket to listen on instead of host and port; empty: none.")

    # Redis
    redis_url: str = _field(
        "redis://127.0.0.1:6379/0",
        "URL",
        "Redis to subscribe to: redis://, rediss:// (TLS) or unix://, with user, password, database and "
        "redis-py's query options (ssl_ca_certs=… and so on).",
    )
    channel_prefix: str = _field(
        "", "text", "Put before every channel name in Redis and never shown to clients.", max_length=256
    )
    secret: str = _field(
        "",
        "text",
        "Signs what only the gateway may say in Redis: the same for all its workers there, 16 characters at least. "
        "Empty: what is in Redis, in the code of the functions; the first worker makes one.",
        max_length=256,
        repr=False,
    )
    redis_connect_timeout: float = _field(
        5.0, "seconds", "How long one attempt to connect to Redis may take.", gt=0, le=60
    )
    redis_backoff_max: float = _field(
        1.0,
        "seconds",
        "Longest pause between attempts to reach Redis again; the pauses double up to it, with jitter.",
        gt=0,
        le=60,
    )

    # What clients may ask for
    allowed_patterns: StringList = _field(
        (),
        "list",
        "Patterns (Redis globs) clients may subscribe to: `*` allows any, `news.*` any that begins with "
        "`news.`, everything else exactly itself; empty allows none.",
    )
    cors_origins: StringList = _field(
        (),
        "list",
        "Origins whose pages may read this gateway from a browser: exact ones, ones with a wildcard such as "
        "https://*.example.com or http://localhost:*, or `*`; empty: the same origin only.",
    )
    cors_credentials: bool = _field(
        False, "flag", "Let those pages send cookies; needs exact origins in cors_origins."
    )
    cors_headers: StringList = _field(
        (),
        "list",
        "Request headers those pages may send, besides Authorization, Last-Event-ID, Idempotency-Key and those of "
        "htmx and Datastar; `*`: all.",
    )
    allowed_hosts: StringList = _field(
        (),
        "list",
        "Host names requests may be made to, such as events.example.com or *.example.com; others are refused, but "
        "for /healthz and /readyz. Empty: any.",
    )
    http_publish: bool = _field(
        False, "flag", "Accept POST /publish/{channel}. Where tokens are configured, it is on, and needs a grant."
    )
    console: bool = _field(False, "flag", "Serve the console page at /.")

    # Who may do what. Without a key and auth_url, everything is public.
    jwt_secret: str = _field(
        "",
        "text",
        "Verifies tokens signed with HS256, HS384 or HS512: the secret shared with whoever makes them, 32 characters "
        "at least.",
        max_length=1024,
        repr=False,
    )
    jwt_public_key: str = _field(
        "",
        "PEM",
        "Verifies tokens signed with RS, PS, ES or EdDSA: public keys or certificates, as text or the path of a "
        "file; several while keys are being changed.",
    )
    jwks_url: str = _field("", "URL", "Likewise: where the key set (JWKS) is. It is read every 5 minutes.")
    jwt_algorithms: StringList = _field(
        (), "list", "The only algorithms tokens may be signed with; empty: all that the keys are for."
    )
    jwt_audience: StringList = _field(
        (), "list", "A token's `aud` must name one of these; empty: tokens with an `aud` are rejected."
    )
    jwt_issuer: StringList = _field((), "list", "A token's `iss` must be one of these; empty: any, or none.")
    jwt_leeway: float = _field(
        10.0,
        "seconds",
        "By how much the clocks of this machine and of whoever makes tokens may differ.",
        ge=0,
        le=600,
    )
    token_cookie: str = _field("gateway_token", "name", "Cookie that may hold the token; empty: none.")
    query_tokens: bool = _field(
        False,
        "flag",
        "Accept tokens as ?token=… too. URLs end up in the logs of proxies and in histories; a cookie doesn't.",
    )
    auth_url: str = _field(
        "",
        "URL",
        "Your backend, which is asked about each new stream that has no token: POST of the action, the channels and "
        "the request's Cookie, Authorization and Origin; it answers with a grant, or 401 or 403.",
    )
    auth_timeout: float = _field(3.0, "seconds", "How long the backend may take to answer.", gt=0, le=60)
    auth_concurrency: int = _field(50, "questions", "The backend is asked so many at the same time.", ge=1)
    auth_cache: float = _field(
        5.0,
        "seconds",
        "How long an answer of the backend is reused for the same request with the same credentials.",
        ge=0,
    )
    auth_grace: float = _field(
        0.0,
        "seconds",
        "While the backend can't be reached, its last answer counts for so long; 0: clients are told to come back.",
        ge=0,
    )
    mercure_tokens: StringList = _field(
        (),
        "list",
        "Accept tokens made for Mercure hubs, verified with the keys above: `0.x`, `1.0` (which needs jwt_audience "
        "and jwt_issuer), or both.",
    )
    centrifugo_tokens: Literal["none", "subscription", "connection"] = _field(
        "none",
        "choice",
        "Accept tokens made for Centrifugo, verified with the keys above: `subscription` tokens, which are for one "
        "channel each; `connection` takes the `channels` and `subs` of connection tokens for permissions, too.",
    )
    anycable_secret: str = _field(
        "",
        "text",
        "Accept AnyCable's signed stream names as tokens: its streams_secret.",
        max_length=1024,
        repr=False,
    )
    turbo_secret_key_base: str = _field(
        "",
        "text",
        "Accept the signed stream names of Rails' Turbo as tokens: the application's secret_key_base.",
        max_length=1024,
        repr=False,
    )
    public_channels: StringList = _field(
        (),
        "list",
        "Channels (Redis globs) that anybody may subscribe to, without a token, where tokens are configured.",
    )
    expiry_notice: float = _field(
        30.0, "seconds", "So long before a stream's token expires it gets `gateway.expiring`; 0: it gets none.", ge=0
    )

    end_age: float = _field(
        86_400.0,
        "seconds",
        "How long it is known that a channel is over (`gateway end`); longer than clients take to come back.",
        ge=1,
    )
    revocation_age: float = _field(
        2_592_000.0,
        "seconds",
        "How long a revocation is kept: longer than any token lives.",
        ge=1,
    )
    ticket_seconds: float = _field(
        300.0,
        "seconds",
        "The longest a ticket can be valid; without `seconds` in the request it is 60 or this.",
        ge=1,
    )
    ticket_bytes: int = _field(
        4096,
        "bytes",
        "The names of all channels and patterns of one ticket; Redis keeps them until its stream can't come back.",
        ge=1,
    )
    ticket_stream_age: float = _field(
        86_400.0,
        "seconds",
        "A stream that was opened with a ticket ends so long after the ticket was made, reconnects included, or with "
        "the grant the ticket was made with, whichever is earlier.",
        ge=1,
    )
    subject_streams: int = _field(
        0,
        "streams",
        "Open streams per worker and subject (`sub` of the grant); more are told to come back. 0: no limit.",
        ge=0,
    )
    subject_publish_rate: float = _field(
        0.0, "messages/s", "Messages published over HTTP, per worker and subject; more get 429. 0: no limit.", ge=0
    )

    subject_ticket_rate: float = _field(
        50.0,
        "tickets/s",
        "Tickets made, per worker and subject; more get 429. A backend that has one token for all its users needs "
        "more. 0: no limit.",
        ge=0,
    )

    # Limits
    max_streams: int = _field(
        0,
        "streams",
        "Open streams per worker; 0: as many as the process may open files, less a reserve of 64.",
        ge=0,
    )
    max_connections: int = _field(
        0,
        "connections",
        "Open connections per worker that are no streams; 0: half as many as the process may open files. For one "
        "more, the one that has waited longest for its request is closed if it has waited for a second, or else the "
        "new one.",
        ge=0,
    )
    address_streams: int = _field(
        0,
        "streams",
        "Open streams per client address (an IPv6 network of 64 bits counts as one); more are told to come back. "
        "Many people can share an address. 0: no limit.",
        ge=0,
    )
    address_rate: float = _field(
        0.0, "streams/s", "New streams per second and client address; likewise. 0: no limit.", ge=0
    )
    address_channels: int = _field(
        0,
        "channels",
        "Different channels and patterns in all streams of a client address; likewise. Those of a stream that has "
        "ended count for as long as they stay subscribed (linger). 0: no limit.",
        ge=0,
    )
    trusted_proxies: StringList = _field(
        ("127.0.0.0/8", "::1", "unix"),
        "list",
        "Addresses or networks of proxies that say truly from where a request comes; `unix` is whoever uses the unix "
        "socket, `none` nobody. Of all others the address of the connection counts. Where a proxy says nothing, or "
        "what is no address (`unknown`), its own counts, and all such clients share its limits.",
    )
    forwarded_header: Literal["x-forwarded-for", "forwarded"] = _field(
        "x-forwarded-for",
        "choice",
        "The header in which these proxies say it. They must remove or continue what clients send in it.",
    )
    max_channels: int = _field(100_000, "channels", "Different channels and patterns per worker.", ge=1)
    max_stream_channels: int = _field(100, "channels", "Channels and patterns of one stream.", ge=1, le=10_000)
    max_patterns: int = _field(
        100,
        "patterns",
        "Different patterns per worker. Redis compares every PUBLISH, of anybody, with all patterns that anybody "
        "listens to: a hundred cost it some microseconds each time.",
        ge=0,
    )
    max_stream_patterns: int = _field(10, "patterns", "Patterns of one stream.", ge=0, le=10_000)
    max_channel_bytes: int = _field(256, "bytes", "Length of a channel name or pattern.", ge=1, le=4096)
    max_payload_bytes: int = _field(
        1_048_576, "bytes", "Size of a published message; larger ones are refused and counted.", ge=1
    )
    max_request_bytes: int = _field(65_536, "bytes", "Size of the JSON body of POST /events.", ge=64)
    max_bodies_bytes: int = _field(
        67_108_864,
        "bytes",
        "Size of all request bodies together that have not been answered yet; what comes beyond it is refused: with "
        "503 and Retry-After where it is a message, and POST /events is told to come back. At least "
        "max_payload_bytes.",
        ge=1024,
    )
    max_id_bytes: int = _field(256, "bytes", "Length of a publisher's id, and of an event's type.", ge=1, le=4096)
    queue_events: int = _field(
        1000,
        "events",
        "Events that may wait for a client that reads too slowly; one more ends its stream.",
        ge=1,
    )
    queue_bytes: int = _field(
        2_097_152,
        "bytes",
        "Bytes that may wait for a client that reads too slowly. One batch always fits an empty queue.",
        ge=1024,
    )

    # History
    history_events: int = _field(
        1000,
        "events",
        "Recent events a worker keeps of each channel for clients that come back; 0: none.",
        ge=0,
    )
    history_bytes: int = _field(
        2_097_152, "bytes", "Size of the recent events of one channel; one event always fits.", ge=1024
    )
    history_total_bytes: int = _field(134_217_728, "bytes", "Size of all recent events of a worker.", ge=1024)
    history_age: float = _field(300.0, "seconds", "How long a recent event is kept.", gt=0)
    replay_events: int = _field(
        10_000, "events", "Events sent again to one client; if it missed more, the newest, and a gap.", ge=1
    )
    replay_bytes: int = _field(
        8_388_608,
        "bytes",
        "Size of what is sent again to one client; likewise. Above what a client can miss while it is slow "
        "(queue_bytes), or it loses what it was disconnected for.",
        ge=1024,
    )
    replay_total_bytes: int = _field(
        67_108_864,
        "bytes",
        "Size of all long replays that clients have not read yet (identical ones count once); clients that want "
        "another one are told to come back.",
        ge=1024,
    )
    unsent_total_bytes: int = _field(
        268_435_456,
        "bytes",
        "Memory of all that waits for clients: queues, long replays, fan-outs under way; what many share counts "
        "once. If there is more, streams are ended, those furthest behind first; they come back and resume.",
        ge=65_536,
    )
    replays_at_once: int = _field(
        4,
        "replays",
        "Long replays, and reads of durable history, that are prepared at the same time; each takes some 30 MB "
        "meanwhile with the default replay_bytes.",
        ge=1,
    )
    replays_waiting: int = _field(
        1000, "replays", "Those that may wait for it; clients beyond are told to come back.", ge=0
    )
    durable_events: int = _field(
        10_000, "events", "Durable events Redis keeps of each channel (about; it is trimmed in steps).", ge=1
    )
    durable_age: float = _field(
        86_400.0, "seconds", "How long Redis keeps a durable event; 0: until there are too many.", ge=0
    )
    durable_channels: StringList = _field(
        (),
        "list",
        "Channels (Redis globs) on which only durable messages are delivered and plain ones are rejected, so that a "
        "client that comes back gets everything Redis kept, and no gap for what may have come beside it.",
    )
    overflow: StringList = _field(
        ("disconnect",),
        "list",
        "What happens when a slow client's queue is full: `disconnect` (it comes back and resumes), `drop-oldest` "
        "(with a gap event) or `latest` (only the newest event per channel waits); `pattern=policy` for some "
        "channels, the first match counts.",
    )

    # Times
    canary_interval: float = _field(
        1.0,
        "seconds",
        "After so long without a tick a worker requests one. If Redis is silent three times as long, it reconnects; "
        "0: only when something needs a tick.",
        ge=0,
    )
    head_timeout: float = _field(
        10.0,
        "seconds",
        "How long a request's line and headers may take, from their first byte; a connection on which nothing comes "
        "is closed after as long.",
        gt=0,
    )
    body_timeout: float = _field(
        20.0, "seconds", "How long a request's body may take, from the end of its head.", gt=0
    )
    keepalive_timeout: float = _field(
        5.0,
        "seconds",
        "How long a connection may wait for its next request. Longer than the proxy in front keeps it (4 s in "
        "nginx.conf), or the proxy sends requests into connections that are being closed.",
        gt=0,
    )
    stall_timeout: float = _field(
        60.0, "seconds", "A client that takes nothing for so long while events wait is ended; 0: never.", ge=0
    )
    max_age: float = _field(
        0.0,
        "seconds",
        "A stream is ended after so long, give or take a tenth, and comes back, perhaps on a new worker; 0: never.",
        ge=0,
    )
    accept_rate: float = _field(
        0.0,
        "streams/s",
        "New streams taken per second; those beyond it are told to come back. 0: no limit.",
        ge=0,
    )
    ping_interval: float = _field(
        15.0, "seconds", "A stream is never silent for longer: idle ones get a comment; 0: no pings.", ge=0
    )
    retry_min: float = _field(
        1.0, "seconds", "Shortest reconnection time told to clients (each gets a random one).", ge=0.01
    )
    retry_max: float = _field(3.0, "seconds", "Longest reconnection time told to clients.", ge=0.01)
    retry_busy: float = _field(
        10.0,
        "seconds",
        "Longest reconnection time told to clients that can't be served just now (half of it at least).",
        ge=0.01,
    )
    subscribe_timeout: float = _field(
        5.0, "seconds", "How long a new stream waits for Redis to confirm its channels.", gt=0
    )
    linger: float = _field(
        30.0,
        "seconds",
        "How long a channel stays subscribed after its last client left; reloading a page costs Redis nothing.",
        ge=0,
    )
    drain_window: float = _field(
        10.0, "seconds", "On SIGTERM the open streams are ended one by one, spread over this long.", ge=0
    )
    handover_timeout: float = _field(
        2.0,
        "seconds",
        "Before that, other workers take over what only this one has heard; it waits for them for so long at most.",
        ge=0,
        le=60,
    )
    shutdown_timeout: float = _field(20.0, "seconds", "After SIGTERM the process is gone within this long.", gt=0)

    # How
    delivery: Literal["auto", "direct", "portable"] = _field(
        "auto",
        "choice",
        "`direct` writes shared bytes to each transport, `portable` goes through ASGI; `auto`: direct where the "
        "server offers it.",
    )
    gzip: bool = _field(
        True,
        "flag",
        "Compress streams for clients that accept it; an event is compressed once for all of them, never held back.",
    )
    gzip_min_bytes: int = _field(
        256, "bytes", "Events smaller than this are sent as they are in compressed streams too.", ge=0, le=65_535
    )
    log_level: Literal["debug", "info", "warning", "error"] = _field("info", "choice", "What is logged.")
    access_log: bool = _field(False, "flag", "Log a line for every request.")

    @field_validator(
        "allowed_hosts",
        "allowed_patterns",
        "cors_headers",
        "cors_origins",
        "durable_channels",
        "jwt_algorithms",
        "jwt_audience",
        "jwt_issuer",
        "mercure_tokens",
        "overflow",
        "public_channels",
        "trusted_proxies",
        mode="before",
    )
    @classmethod
    def _split(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)
        return tuple(re.split(r"[,\s]+", value.strip(", \n\t"))) if value.strip() else ()

    @field_validator("channel_prefix")
    @classmethod
    def _prefix_is_not_ours(cls, value: str) -> str:
        # Clients could listen to the gateway's own channels, and no durable message could be published.
        if value.startswith("gateway."):
            raise ValueError("must not begin with 'gateway.', as the gateway's own channels do")
        return value

    @field_validator("secret")
    @classmethod
    def _secret_is_secret(cls, value: str) -> str:
        # It is a literal in Lua.
        if value and not re.fullmatch(r"[\x21-\x26\x28-\x5b\x5d-\x7e]{16,}", value):
            raise ValueError("must be at least 16 characters of visible ASCII, without ' and \\")
        return value

    @field_validator("jwt_secret")
    @classmethod
    def _jwt_secret_is_secret(cls, value: str) -> str:
        if "-----BEGIN" in value:
            # Whoever knows the public key could sign with it (RFC 8725, 2.1).
            raise ValueError("must be a secret, not a PEM key; a public key belongs in jwt_public_key")
        if value and len(value.encode()) < 32:
            raise ValueError("must be at least 32 characters long (RFC 7518, 3.2)")
        return value

    @field_validator("auth_url", "jwks_url")
    @classmethod
    def _url_is_a_url(cls, value: str) -> str:
        if value and (urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname):
            raise ValueError("must begin with https:// or http://, and name a host")
        return value

    @field_validator("jwt_algorithms")
    @classmethod
    def _algorithms_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in JWT_ALGORITHMS:
                raise ValueError(f"{name!r} is not known; known are {', '.join(JWT_ALGORITHMS)}")
        return value

    @field_validator("mercure_tokens")
    @classmethod
    def _mercure_versions_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for version in value:
            if version not in ("0.x", "1.0"):
                raise ValueError(f"{version!r} is not known; known are 0.x and 1.0")
        return value

    @field_validator("token_cookie")
    @classmethod
    def _cookie_has_a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]*", value):
            raise ValueError(f"{value!r} is no name of a cookie")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_url_has_a_known_scheme(cls, value: str) -> str:
        if urlsplit(value).scheme not in ("redis", "rediss", "unix"):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return value

    @field_validator("port", mode="before")
    @classmethod
    def _port_is_no_service_link(cls, value: Any) -> Any:
        if isinstance(value, str) and "://" in value:
            raise ValueError(
                f"{value!r} was put there by Kubernetes for a service called gateway; "
                "set enableServiceLinks: false on the pod"
            )
        return value

    @field_validator("cors_origins")
    @classmethod
    def _origins_are_origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for origin in value:
            if origin != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s]+", origin):
                raise ValueError(f"{origin!r} is no origin; one looks like https://www.example.com")
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each in ("unix", "none"):
                continue
            try:
                ip_network(each, strict=False)
            except ValueError:
                raise ValueError(f"{each!r} is no address or network such as 10.0.0.0/8, nor `unix`") from None
        return value

    @field_validator("cors_headers")
    @classmethod
    def _headers_are_headers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
                raise ValueError(f"{name!r} is no name of a header; one looks like X-Request-Id")
        return value

    @field_validator("overflow")
    @classmethod
    def _policies_are_known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for entry in value:
            policy = entry.rpartition("=")[2]
            if policy not in ("disconnect", "drop-oldest", "latest"):
                raise ValueError(f"{policy!r} is no policy; known are disconnect, drop-oldest and latest")
        return value

    @model_validator(mode="after")
    def _settings_agree(self) -> Self:
        if self.cors_credentials and (not self.cors_origins or any("*" in origin for origin in self.cors_origins)):
            raise ValueError("cors_credentials: needs cors_origins with exact origins, without wildcards")
        if "1.0" in self.mercure_tokens and not (self.jwt_audience and self.jwt_issuer):
            raise ValueError("mercure_tokens: 1.0 needs jwt_audience, the hub's identifier, and jwt_issuer")
        if self.max_bodies_bytes < self.max_payload_bytes:
            raise ValueError(f"max_bodies_bytes: must be at least max_payload_bytes ({self.max_payload_bytes})")
        if self.unsent_total_bytes < self.replay_total_bytes:
            raise ValueError(
                f"unsent_total_bytes: must be at least replay_total_bytes ({self.replay_total_bytes}), a part of it"
            )
        if self.retry_max < self.retry_min:
            raise ValueError(f"retry_max: must be at least retry_min ({self.retry_min:g})")
        if self.shutdown_timeout <= self.drain_window + self.handover_timeout:
            least = self.drain_window + self.handover_timeout
            raise ValueError(f"shutdown_timeout: must be longer than drain_window and handover_timeout ({least:g})")
        return self

    @classmethod
    def load(cls, flags: Mapping[str, Any] | None = None) -> Self:
        """Read flags (they win), then the environment and the files it names, then the defaults.

        Raises:
            SettingsError: with one sentence naming the setting that is unknown or impossible.
        """
        flags = flags or {}
        _refuse_unknown_variables(cls, os.environ)
        in_files = _in_files([name for name in cls.model_fields if name not in flags], os.environ)
        try:
            return cls(**{**in_files, **flags})
        except ValidationError as error:
            secret = {name for name, field in cls.model_fields.items() if not field.repr}
            raise SettingsError(_sentence(error, secret | in_files.keys())) from None


class DevSettings(Settings):
    """What `gateway dev` changes: everything a first try needs is on, for this machine only."""

    http_publish: bool = _field(True, "flag", "Accept POST /publish/{channel}.")
    console: bool = _field(True, "flag", "Serve the console page at /.")
    allowed_patterns: StringList = _field(("*",), "list", "Patterns (Redis globs) clients may subscribe to.")
    cors_origins: StringList = _field(
        ("http://localhost:*", "http://127.0.0.1:*"),
        "list",
        "Origins whose pages may read this gateway from a browser.",
    )
    # A page of another site could have its own name point to this machine, and would then be of the same origin.
    allowed_hosts: StringList = _field(
        ("localhost", "127.0.0.1"), "list", "Host names requests may be made to; empty: any."
    )
    drain_window: float = _field(0.0, "seconds", "How long the ending of open streams is spread.", ge=0)


def flag(name: str) -> str:
    """`redis_url` → `--redis-url`."""
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    """`redis_url` → `GATEWAY_REDIS_URL`."""
    return ENV_PREFIX + name.upper()


def _refuse_unknown_variables(cls: type[Settings], environ: Mapping[str, str]) -> None:
    known = {name.upper() + suffix for name in cls.model_fields for suffix in ("", FILE_SUFFIX)}
    for full_name in sorted(environ):
        name = full_name.removeprefix(ENV_PREFIX)
        if name == full_name or name in known or _KUBERNETES_LINK.fullmatch(name):
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {ENV_PREFIX}{close[0]}?" if close else "; `gateway run --help` lists all settings."
        raise SettingsError(f"{full_name} is not a setting{hint}")


def _in_files(names: Collection[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The values in files, less the line's end that editors and `echo` put there."""
    values: dict[str, str] = {}
    for name in names:
        in_file = variable(name) + FILE_SUFFIX
        path = environ.get(in_file)
        if not path:
            continue
        if environ.get(variable(name)):
            raise SettingsError(f"{variable(name)} and {in_file} are both set; only one of them can be.")
        try:
            values[name] = Path(path).read_text().rstrip("\r\n")
        except (OSError, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise SettingsError(f"{in_file}: {path} can't be read: {why}.") from None
    return values


def _sentence(error: ValidationError, secret: Collection[str]) -> str:
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:  # a rule over several settings names its own
        name, _, message = message.partition(": ")
    else:
        name = str(first["loc"][0])
    is_shown = first["loc"] and first["type"] != "value_error" and name not in secret
    given = f" (got {first['input']!r})" if is_shown else ""
    message = message.removesuffix(".")
    return f"{name} ({flag(name)}, {variable(name)}): {message[:1].lower()}{message[1:]}{given}."
