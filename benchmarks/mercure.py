"""Mercure 1.0: a hub in Go, within the web server Caddy."""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.stage import Stage
from gateway.bench import server
from gateway.bench.session import Target

_ISSUER = "https://localhost"
_RESOURCE = f"{_ISSUER}/.well-known/mercure"
_TOKEN_SECONDS = 86_400

# Messages are kept nowhere, and nothing is sent or ended by a clock.
_CADDYFILE = """
{{
	auto_https off
	admin off
	log {{
		level ERROR
	}}
}}
http://:{port} {{
	bind 127.0.0.1
	mercure {{
		transport local
		issuer {issuer} {{
			publisher {{
				jwt {key} HS256
			}}
			subscriber {{
				jwt {key} HS256
			}}
		}}
		resource_identifier {resource}
		anonymous
		heartbeat 0s
		write_timeout 0s
	}}
}}
"""


@contextmanager
def mercure(stage: Stage) -> Iterator[Target]:
    """Mercure, running: on one core like the others, subscribers without tokens, without history."""
    port = server.free_port()
    key = secrets.token_hex(32)
    configuration = stage.directory / "Caddyfile"
    configuration.write_text(caddyfile(port, key))
    words = [str(stage.programs["mercure"]), "run", "--config", str(configuration), "--adapter", "caddyfile"]
    # Caddy keeps files of its own in the user's directories otherwise.
    variables = {name: str(stage.directory / "caddy") for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    with server.running(words, {"GOMAXPROCS": "1", **variables}, stage.server_cores) as (process, log):
        server.wait(lambda: server.accepts(port), process, log)
        url = f"http://127.0.0.1:{port}/.well-known/mercure"
        yield Target(
            f"{url}?match={{channel}}",
            url,
            pids=(process.pid,),
            cores=stage.server_cores,
            publish_headers=(
                f"Authorization: Bearer {publisher_token(key, time.time())}",
                "Content-Type: application/x-www-form-urlencoded",
            ),
            publish_body="topic={channel}&data={quoted}",
        )


def caddyfile(port: int, key: str) -> str:
    """Its configuration."""
    return _CADDYFILE.format(port=port, issuer=_ISSUER, key=key, resource=_RESOURCE)


def publisher_token(key: str, now: float) -> str:
    """A JWT that may publish on every topic.

    Args:
        key: the secret of HS256.
        now: seconds since 1970; the token is valid for a day.
    """
    details = {
        "type": "https://mercure.rocks/authorization-detail",
        "actions": ["publish"],
        "topics": [{"match": "*"}],
    }
    claims = {
        "iss": _ISSUER,
        "aud": _RESOURCE,
        "exp": int(now) + _TOKEN_SECONDS,
        "authorization_details": [details],
    }
    signed = f"{_encoded({'alg': 'HS256', 'typ': 'at+jwt'})}.{_encoded(claims)}"
    digest = hmac.new(key.encode(), signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{_base64(digest)}"


def _encoded(part: dict[str, object]) -> str:
    return _base64(json.dumps(part, separators=(",", ":")).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
