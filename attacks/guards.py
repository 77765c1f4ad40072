"""What says who may do what on a worker that is attacked: keys for tokens, and a backend."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

SECRET = "with this, tokens of the attacks are signed"
"""The attacker only uses it for a token that has expired, as anybody may have one."""
_BACKLOG = 4096


@contextmanager
def keys() -> Iterator[Mapping[str, Any]]:
    """A secret, and a key set with two RSA and two EC keys, as it is while keys are being changed.

    Gives the settings of a worker with them.
    """
    described = []
    for kid in ("now", "next"):
        public = {
            "RS256": rsa.generate_private_key(65_537, 2048).public_key(),
            "ES256": ec.generate_private_key(ec.SECP256R1()).public_key(),
        }
        for algorithm, key in public.items():
            of_kind = json.loads(jwt.get_algorithm_by_name(algorithm).to_jwk(key))
            described.append({**of_kind, "kid": kid, "alg": algorithm, "use": "sig"})
    content = json.dumps({"keys": described}).encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield {"jwt_secret": SECRET, "jwks_url": f"http://127.0.0.1:{http.server_port}/keys"}
        finally:
            http.shutdown()
            thread.join()


@contextmanager
def hanging_backend() -> Iterator[Mapping[str, Any]]:
    """A backend that can be connected to, and never answers.

    Gives the settings of a worker with it.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG) as listener:  # the kernel takes connections for it
        yield {"auth_url": f"http://127.0.0.1:{listener.getsockname()[1]}/auth"}


def token(channels: str, seconds: float = 3600) -> str:
    """One that is signed as it should be.

    Args:
        channels: a glob; which it allows to subscribe to.
        seconds: from now, it expires.
    """
    claims = {"sub": "somebody", "exp": time.time() + seconds, "gateway": {"subscribe": [channels]}}
    return jwt.encode(claims, SECRET, "HS256")
