"""Every kind of credentials, in every place, for every kind of channel: the status and the text of each answer.

What is expected stands in `expected`, written from docs/auth.md.
"""

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from testing.servers import RedisServer, Worker
from testing.waiting import wait_until

SECRET = "a secret that is long enough for anybody"
OTHER_SECRET = "another secret, which nobody here knows of"
AUDIENCE, ISSUER = "gateway", "https://issuer.example"
PAYLOAD = "nobody else is to read this"
_BEFORE = time.time() - 100
# httpx would load the system's certificates for each client.
_CLIENT = httpx.Client(verify=False)

RSA_KEY = rsa.generate_private_key(65537, 2048)
PEM = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def token(key: Any = SECRET, algorithm: str | None = "HS256", **claims: Any) -> str:
    now = time.time()
    given = {
        "sub": "alice", "iat": int(now) - 10, "exp": int(now) + 600, "aud": AUDIENCE, "iss": ISSUER,
        "gateway": {"subscribe": ["own", "own.*"], "publish": ["own"], "presence": ["own"]}, **claims,
    }  # fmt: skip
    return jwt.encode(given, key, algorithm)


def signed_with_the_public_key() -> str:
    """PyJWT doesn't make such a token; an attacker would."""
    signed, _, _ = token().rpartition(".")
    signature = urlsafe_b64encode(hmac.digest(PEM, signed.encode(), "sha256")).rstrip(b"=")
    return f"{signed}.{signature.decode()}"


class Kind(NamedTuple):
    """Credentials, and what is wrong with them; None: nothing."""

    make: Callable[[], str]
    wrong: str | None


KINDS = {
    "none": Kind(lambda: "", "Without a token you may not"),
    "wrong key": Kind(lambda: token(OTHER_SECRET), "signature is wrong"),
    "expired": Kind(lambda: token(exp=int(time.time()) - 1), "has expired"),
    "not yet valid": Kind(lambda: token(nbf=time.time() + 60), "not valid yet"),
    "wrong audience": Kind(lambda: token(aud="somebody else"), "its aud is none"),
    "wrong issuer": Kind(lambda: token(iss="https://evil.example"), "iss is none"),
    "wrong algorithm": Kind(lambda: token(EC_KEY, "ES256"), "No key here verifies a token with alg 'ES256'"),
    "alg none": Kind(lambda: token(None, None), "No key here verifies a token with alg 'none'"),
    "PEM as HMAC": Kind(signed_with_the_public_key, "signature is wrong"),
    "float exp": Kind(lambda: token(exp=time.time() + 600.5), None),
    "truncated": Kind(lambda: token()[:-3], "signature is wrong"),
    "revoked": Kind(lambda: token(sub="mallory", iat=_BEFORE), "has been revoked"),
    "right": Kind(token, None),
    "right, RSA": Kind(lambda: token(RSA_KEY, "RS256"), None),
}
PLACES = ("header", "cookie", "query", "ticket")
TARGETS = {
    "own channel": ("channel", "own"),
    "other": ("channel", "other"),
    "pattern": ("pattern", "own.*"),
    "other pattern": ("pattern", "o*"),
    "reserved": ("channel", "gateway.tick.0"),
    "public": ("channel", "open.a"),
}
SUBSCRIBE, PUBLISH = "subscribe", "publish"


def expected(kind: str, place: str, target: str, action: str) -> tuple[int, str]:
    """Status, and a part of the text; a ticket is one that was made with the credentials, if they make one."""
    wrong = KINDS[kind].wrong
    if place == "ticket" and action == PUBLISH:
        return 400, "no parameter 'ticket'"
    if target == "reserved":
        return 400, "gateway."
    if place == "ticket":
        if kind == "revoked" and target in ("own channel", "pattern", "public"):
            return 401, "The ticket has been revoked."
        if wrong is not None or target in ("other", "other pattern"):
            return 401, "There is no such ticket"  # none was made, and one that somebody makes up is none
        return 200, ""
    if wrong is not None:
        if kind == "none" and action == SUBSCRIBE and target == "public":
            return 200, ""
        return 401, wrong
    allowed = {SUBSCRIBE: ("own channel", "pattern", "public"), PUBLISH: ("own channel",)}[action]
    return (200, "") if target in allowed else (403, f"may not {action}")


@pytest.fixture(scope="module")
def worker(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    path = tmp_path_factory.mktemp("worker")
    (path / "public.pem").write_bytes(PEM)
    with Worker(
        path, redis_server.url, http_publish=False, jwt_secret=SECRET, jwt_public_key=path / "public.pem",
        jwt_audience=AUDIENCE, jwt_issuer=ISSUER, jwt_leeway=0, query_tokens=True, public_channels=["open.*"],
        allowed_patterns=["*"], log_level="debug", access_log=True, channel_prefix="matrix:",
    ) as running:  # fmt: skip
        yield running


class Seen:
    """What must not be logged."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.texts = {PAYLOAD}

    def check(self) -> None:
        self._worker.wait_for_output("GET /events")
        output = self._worker.output
        for text in self.texts:
            # A part is as bad: what ends a token is its signature.
            assert text not in output
            assert text[-20:] not in output


@pytest.fixture(scope="module")
def seen(worker: Worker) -> Iterator[Seen]:
    seen = Seen(worker)
    yield seen
    seen.check()


@pytest.fixture(scope="module")
def mallorys(worker: Worker, seen: Seen) -> dict[str, str]:
    """Tickets made before their subject was revoked."""
    text = KINDS["revoked"].make()
    tickets = {name: ticket(worker, text, name) for name in ("own channel", "pattern", "public")}
    assert all(tickets.values())
    admin = {"Authorization": f"Bearer {token(sub='root', gateway={'admin': True})}"}
    assert _CLIENT.post(f"{worker.url}/revoke", json={"sub": "mallory"}, headers=admin).status_code == 200
    url = f"{worker.url}/events?channel=own"
    headers = {"Authorization": f"Bearer {text}"}
    wait_until(lambda: _CLIENT.head(url, headers=headers).status_code == 401, "it is known")
    seen.texts |= set(tickets.values())
    return tickets


def ticket(worker: Worker, text: str, target: str) -> str:
    what, name = TARGETS[target]
    headers = {"Authorization": f"Bearer {text}"} if text else {}
    answer = _CLIENT.post(f"{worker.url}/ticket", json={f"{what}s": [name]}, headers=headers)
    made: str = answer.json().get("ticket", "")
    assert (answer.status_code == 200) == bool(made), answer.text
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_each_cell(worker: Worker, seen: Seen, mallorys: dict[str, str], kind: str, place: str) -> None:
    wrong = {}
    for target in TARGETS:
        for action in (SUBSCRIBE, PUBLISH):
            text = KINDS[kind].make()
            shown = text
            if place == "ticket":
                shown = mallorys.get(target, "") if kind == "revoked" else ticket(worker, text, target)
                shown = shown or "x" * 32
            answer = ask(worker, place, shown, target, action)
            status, detail = expected(kind, place, target, action)
            if answer[0] != status or detail not in answer[1]:
                wrong[target, action] = (answer, (status, detail))
            seen.texts |= {each for each in (text, shown) if len(each) >= 20 and each != "x" * 32}
    assert not wrong


def ask(worker: Worker, place: str, text: str, target: str, action: str) -> tuple[int, str]:
    what, name = TARGETS[target]
    headers, params = {}, {}
    if text and place == "header":
        headers["Authorization"] = f"Bearer {text}"
    elif text and place == "cookie":
        headers["Cookie"] = f"gateway_token={text}"
    elif text:
        params["token" if place == "query" else "ticket"] = text
    url = f"{worker.url}/publish/{name}"
    if action == SUBSCRIBE:
        params[what] = name
        url = f"{worker.url}/events"
    method, content = ("GET", None) if action == SUBSCRIBE else ("POST", PAYLOAD)
    with _CLIENT.stream(method, url, params=params, headers=headers, content=content) as answer:
        if answer.status_code == 200:
            return 200, ""
        assert answer.headers["content-type"] == "application/problem+json"
        assert ("www-authenticate" in answer.headers) == (answer.status_code == 401)
        answer.read()
        return answer.status_code, answer.json()["detail"]
