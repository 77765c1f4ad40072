"""Request targets that are not what they look like, and what a gateway makes of each."""

import socket
import ssl
from contextlib import ExitStack
from typing import NamedTuple

# Sent as they are, which clients with a URL parser don't do.
TARGETS = [
    *("/", "/events?channel=a", "/events/a", "/publish/a", "/metrics", "/readyz", "/healthz"),
    # Dot segments, plain and encoded, of each endpoint and to each endpoint.
    *("/publish/../events?channel=a", "/publish/../events/a", "/publish/%2e%2e/events/a", "/publish/%2E%2e/events/a"),
    *("/publish/..%2fevents/a", "/publish/..%2Fevents/a", "/publish/%2e%2e%2fevents%2fa", "/publish%2f..%2fevents/a"),
    *(
        "/publish/.%2e/events/a",
        "/publish/%2e./events/a",
        "/publish/x/../../events/a",
        "/publish/./a",
        "/./publish/a",
    ),
    *("/events/../publish/a", "/events/%2e%2e/publish/a", "/events/..%2fpublish/a", "/events/x/%2e%2e/../publish/a"),
    *("/x/../publish/a", "/%2e/publish/a", "/healthz/../publish/a", "/gateway.js/../publish/a", "/../publish/a"),
    *(
        "/events/../metrics",
        "/events/%2e%2e/metrics",
        "/publish/../metrics",
        "/healthz/../metrics",
        "/%2e%2e/metrics",
    ),
    *("/publish/.", "/publish/..", "/publish/../", "/publish/a/..", "/publish/a/.", "/events/.", "/events/a/../b"),
    # Not dot segments.
    *("/events/...", "/events/.a", "/events/a.", "/publish/...", "/publish/.a", "/publish/..a", "/publish/..;/a"),
    # Encoded letters and slashes.
    *("/%70ublish/a", "/publi%73h/a", "/publish%2fa", "/publish%2Fa", "/publish/a%2fb", "/%65vents/a", "/events%2fa"),
    *("/%6detrics", "/metric%73", "/%2fmetrics", "/%2fpublish/a", "/%252e%252e/publish/a", "/publish/%252e%252e/a"),
    # Slashes.
    *(
        "//publish/a",
        "/publish//a",
        "///publish///a",
        "//events/a",
        "/events//a",
        "//metrics",
        "/publish/a/",
        "/events/",
    ),
    *("/publish", "/publish/", "/metrics/", "/readyz/", "/healthz/", "/events/a/"),
    # Case, parameters, backslashes, queries, fragments.
    *(
        "/PUBLISH/a",
        "/Publish/a",
        "/EVENTS/a",
        "/publish;x/a",
        "/publish/a;x",
        "/events;x/a",
        "/metrics;x",
        "/;/publish/a",
    ),
    *("/publish\\a", "/events\\..\\publish\\a", "/events/%5c..%5cpublish/a", "/publish/a%3fb", "/publish/a%23b"),
    *(
        "/publish/a#b",
        "/publish/a%00",
        "/publish/%ff",
        "/publish%00/a",
        "/publish/a%0a",
        "/metrics%0a",
        "/metrics%20",
    ),
    # The absolute form.
    *(
        "http://x/publish/a",
        "http://x/events/a",
        "http://x/metrics",
        "http://x/events/../publish/a",
        "http://x//publish/a",
    ),
]


class Answer(NamedTuple):
    status: int
    what: str
    """Which endpoint it is of, with the channel; empty for a refusal."""


def ask(port: int, method: str, target: str, *, host: str = "127.0.0.1", tls: bool = False) -> Answer:
    """Send a target as it is, which HTTP clients don't do, and say what came."""
    body = b"x" if method == "POST" else b""
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    with ExitStack() as stack:
        connection: socket.socket = stack.enter_context(socket.create_connection((host, port), timeout=10))
        if tls:
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            connection = stack.enter_context(context.wrap_socket(connection))
        connection.sendall(head.encode() + body)
        answer = b""
        while b"event: gateway.open" not in answer or not answer.rstrip().endswith(b"}"):
            if not (piece := connection.recv(65_536)):
                break
            answer += piece
    head_text, _, text = answer.decode().partition("\r\n\r\n")
    assert "location:" not in head_text.lower(), f"{target} is redirected: {head_text}"
    status = int(head_text.split()[1])
    return Answer(status, _endpoint(text) if status < 400 else "")


def _endpoint(text: str) -> str:
    if "event: gateway.open" in text:
        [said] = [line for line in text.splitlines() if line.startswith("data: ")]
        return f"stream {said}"
    for sign, endpoint in (("# HELP", "metrics"), ("ready", "readyz"), ("<html", "console"), ('"ok"', "healthz")):
        if sign in text:
            return endpoint
    assert '"receivers"' in text, text
    return text.partition(',"receivers"')[0].replace("{", "published ")
