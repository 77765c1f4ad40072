"""The secure set-up of the compose files for real, with an application and a browser: who listens loses nothing when
what lets them ends and is renewed, and no log tells what is secret."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from testing.acl import documented
from testing.browser import CLOSED, Listener, chromium
from testing.certificate import make_certificate
from testing.compose import Compose, docker, docker_is_missing
from testing.nginx import REPOSITORY
from testing.process import free_port
from testing.waiting import DEADLINE, wait_until

# The first build fetches every dependency.
pytestmark = pytest.mark.timeout(600)

FILES = ["docker-compose.yml", "deploy/compose.production.yml", "deploy/compose.auth.yml"]
APPLICATION = "tests/browser/secure/compose.yml"
TYPES = ("message", "gateway.open", "gateway.expiring", "gateway.closing", "gateway.gap")
SHORT, LONG = 6, 600
"""Seconds for which a page may listen at first, and from when it has renewed that."""


@dataclass(frozen=True)
class Way:
    """How a page shows that it may listen.

    Attributes:
        channel: what it listens to.
        renew: JavaScript, a function of seconds: gets what lets the page listen for so long; returns the stream's
            address.
    """

    channel: str
    renew: str


WAYS = {
    "token": Way(
        "news.token",
        """async (seconds) => {
          await fetch(`/app/token?seconds=${seconds}`, {method: "POST"});
          return "/events?channel=news.token";
        }""",
    ),
    "session": Way(
        "news.session",
        """async (seconds) => {
          await fetch(`/app/session?seconds=${seconds}`, {method: "POST"});
          return "/events?channel=news.session";
        }""",
    ),
}

_BEGIN = """async (renew) => {
  window.renew = eval(renew);
  return await window.renew(%d);
}"""
_RENEW_IN_TIME = """() => listeners[0].source.addEventListener("gateway.expiring", () => window.renew(%d))"""
_LISTEN_WITH_TICKETS = """async ([gateway, first, later]) => {
  window.seen = {events: [], tickets: [], failed: 0};
  let events = null, lastEventId = "";
  const listen = async (seconds) => {
    const {ticket} = await (await fetch(`/app/ticket?seconds=${seconds}`, {method: "POST"})).json();
    seen.tickets.push(ticket);
    // The former stream goes on until here.
    events?.close();
    events = new EventSource(`${gateway}/events?${new URLSearchParams({ticket, last_event_id: lastEventId})}`);
    for (const type of ["message", "gateway.open", "gateway.expiring", "gateway.closing", "gateway.gap"])
      events.addEventListener(type, (event) => {
        lastEventId = event.lastEventId;
        seen.events.push([event.type, event.data]);
      });
    events.addEventListener("gateway.expiring", () => listen(later));
    events.onerror = () => { seen.failed += 1; };
  };
  await listen(first);
}"""


@dataclass
class Stack:
    """The containers.

    Attributes:
        port: of nginx, for TLS.
        secrets: the directory with them.
        known: what no log may hold.
    """

    compose: Compose
    port: int
    secrets: Path
    known: set[str] = field(default_factory=set)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def redis_cli(self, *words: str) -> str:
        """As the README calls it."""
        return self.compose("exec", "-T", "redis", "redis-cli", *words).strip()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if reason := docker_is_missing():
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("secure")
    secrets = directory / "secrets"
    subprocess.run([REPOSITORY / "deploy" / "make-secrets", secrets, "news*"], check=True, capture_output=True)
    server = directory / "server.conf"
    server.write_text(_server_with_application())
    plain, tls = free_port(), free_port()
    env = {
        "EDGE_HTTP_ADDRESS": f"127.0.0.1:{plain}",
        "EDGE_HTTPS_ADDRESS": f"127.0.0.1:{tls}",
        "EDGE_TLS": str(make_certificate(directory / "tls")),
        "EDGE_SECRETS": str(secrets),
        "EDGE_AUTH_URL": "http://application:8080/gateway/auth",
        "EDGE_PUBLIC_CHANNELS": "news.public",
        "TEST_SERVER": str(server),
        "TEST_ORIGIN": f"https://127.0.0.1:{tls}",
    }
    with Compose(env, [*FILES, APPLICATION]) as compose:
        compose("up", "--build", "--detach", "--wait")
        yield Stack(compose, tls, secrets)
    assert compose.leftovers() == ""


def _server_with_application() -> str:
    text = (REPOSITORY / "deploy" / "nginx" / "server-production.conf").read_text()
    at = text.index("    location / {")
    return f"{text[:at]}    location /app/ {{\n        proxy_pass http://application:8080;\n    }}\n\n{text[at:]}"


@pytest.fixture(scope="module")
def browser(stack: Stack) -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """Somebody's browser, which knows nobody."""
    with browser.new_context(ignore_https_errors=True) as fresh:
        fresh.set_default_timeout(DEADLINE * 1000)
        yield fresh


@pytest.mark.parametrize("way", WAYS)
def test_a_page_that_renews_in_time_loses_nothing(stack: Stack, context: BrowserContext, way: str) -> None:
    channel, renew = WAYS[way].channel, WAYS[way].renew
    page = _logged_in(context, f"{stack.url}/app/")
    source = Listener(page, page.evaluate(_BEGIN % SHORT, renew), TYPES)
    page.evaluate(_RENEW_IN_TIME % LONG)
    source.wait_open()
    _note_cookies(stack, context)
    with _publishing(stack, channel) as sent:
        wait_until(lambda: source.opened >= 2 or source.state == CLOSED, "it is ended, and comes back", 3 * DEADLINE)
        assert source.state != CLOSED, "it isn't let in again"
        came = len(_messages(source))
        wait_until(lambda: len(_messages(source)) > came, "it goes on")
    _note_cookies(stack, context)
    wait_until(lambda: _messages(source)[-1] == sent[-1], "all have come")
    assert _messages(source) == sent
    own = [(type_, data) for type_, data, _ in source.events if type_ not in ("message", "gateway.open")]
    assert [type_ for type_, _ in own] == ["gateway.expiring", "gateway.closing"]
    assert own[1] == ("gateway.closing", '{"reason":"expired"}')
    assert CLOSED not in source.states_at_errors


def test_a_page_of_another_origin_with_tickets_loses_nothing(stack: Stack, context: BrowserContext) -> None:
    """It gets a new one in time, and goes on where it is. Meanwhile a worker ends, to which it may be connected."""
    page = _logged_in(context, f"https://127.0.0.1:{stack.port}/app/")
    page.evaluate(_LISTEN_WITH_TICKETS, [stack.url, SHORT, LONG])

    def seen(name: str) -> Any:
        return page.evaluate(f"seen.{name}")

    def messages() -> list[str]:
        return [data for type_, data in seen("events") if type_ == "message"]

    wait_until(lambda: [type_ for type_, _ in seen("events")] == ["gateway.open"], "it is open")
    with _publishing(stack, "news.ticket") as sent:
        wait_until(lambda: len(seen("tickets")) == 2, "it is told, and gets another", 3 * DEADLINE)
        for container in stack.compose.containers("worker"):
            came = len(messages())
            wait_until(lambda came=came: len(messages()) > came, "it goes on")  # type: ignore[misc]
            docker("restart", container)
            _wait_healthy(container)
        wait_until(lambda: seen("failed") > 0 and page.evaluate("seen.events.at(-1)[0]") == "message", "it is back")
    wait_until(lambda: messages()[-1] == sent[-1], "all have come")
    assert messages() == sent
    assert "gateway.gap" not in [type_ for type_, _ in seen("events")]
    assert len(seen("tickets")) == 2, "reconnects take no other"
    stack.known |= {*seen("tickets"), *(ticket[-12:] for ticket in seen("tickets"))}


def _wait_healthy(container: str) -> None:
    wait_until(
        lambda: docker("inspect", "--format", "{{.State.Health.Status}}", container).strip() == "healthy",
        "the worker is healthy again",
        60,
    )


def _logged_in(context: BrowserContext, application: str) -> Page:
    page = context.new_page()
    page.goto(application)
    page.locator("[name=user]").fill("alice")
    page.get_by_role("button").click()
    page.locator("#user").get_by_text("alice").wait_for()
    return page


@contextmanager
def _publishing(stack: Stack, channel: str) -> Iterator[list[str]]:
    """Have the application publish all the time; afterwards it is known what."""
    sent: list[str] = []
    address = f"{stack.url}/app/publishing?channel={channel}"
    with httpx.Client(verify=False, timeout=DEADLINE) as client:
        assert client.post(address).status_code == 204
        yield sent
        sent += [f"payload {number}" for number in range(1, client.delete(address).json() + 1)]


def _messages(source: Listener) -> list[str]:
    return [data for type_, data, _ in source.events if type_ == "message"]


def _note_cookies(stack: Stack, context: BrowserContext) -> None:
    cookies = {cookie["value"] for cookie in context.cookies()}
    assert cookies
    stack.known |= cookies


def test_who_may_not_is_turned_away(stack: Stack, context: BrowserContext) -> None:
    page = context.new_page()
    page.goto(f"{stack.url}/app/")
    closed, public = (Listener(page, f"/events?channel=news.{name}") for name in ("session", "public"))
    wait_until(lambda: closed.state == CLOSED, "401 ends it")
    public.wait_open()
    assert stack.redis_cli("PUBLISH", "news.public", "payload for all") == "1"
    wait_until(lambda: public.events == [("message", "payload for all", "")], "it comes")


def test_redis_knows_its_users(stack: Stack) -> None:
    """And the operator's redis-cli is as it ever was."""
    assert stack.redis_cli("ACL", "WHOAMI") == "operator"
    assert stack.redis_cli("FCALL", "gateway_publish", "1", "news.public", "payload kept").count(".") == 2
    assert sorted(stack.redis_cli("ACL", "USERS").split()) == ["default", "operator", "publisher", "worker"]
    assert stack.redis_cli("ACL", "LOG") == "", "they were never denied anything"
    for user in ("worker", "publisher"):
        (commands,) = re.findall(r"^commands\n(.*)$", stack.redis_cli("ACL", "GETUSER", user), re.MULTILINE)
        allowed = {rule for rule in commands.split() if rule.startswith("+")}
        assert allowed == {rule for rule in documented(user)[0] if rule.startswith("+")}
    assert "NOAUTH" in stack.compose("exec", "-T", "worker", "python", "-c", _WITHOUT_PASSWORD)


_WITHOUT_PASSWORD = """
import socket
connection = socket.create_connection(("redis", 6379), 5)
connection.sendall(b"PUBLISH news.public forged\\r\\n")
print(connection.recv(100))
"""


def test_no_log_and_no_variable_holds_a_secret(stack: Stack) -> None:
    """The last test of this file: all that was logged is looked through."""
    with httpx.Client(verify=False, timeout=DEADLINE) as client:
        for name in ("token", "ticket", "authorization"):
            secret = f"{name}-in-a-query"
            stack.known.add(secret)
            address = f"{stack.url}/events?channel=news.token&{name}={secret}"
            assert client.get(address, headers={"Authorization": f"Bearer {secret}"}).status_code == 401
    for file in stack.secrets.iterdir():
        text = file.read_text()
        stack.known |= set(re.findall(r"[0-9a-f]{64}", text))
    edge, worker, redis = (stack.compose("logs", service) for service in ("nginx", "worker", "redis"))
    # Both have logged the requests.
    assert "/events?channel=news.session" in edge
    assert "/events?channel=news.session" in worker
    assert "token=-" in edge
    logs = edge + worker + redis
    assert not [secret for secret in stack.known if secret in logs]
    assert "payload" not in logs
    assert not re.search(r"\bey[\w-]+\.", logs), "a JWT"
    for service in ("redis", "worker", "nginx"):
        for container in stack.compose.containers(service):
            shown = docker("inspect", container)
            assert not [secret for secret in stack.known if secret in shown]
