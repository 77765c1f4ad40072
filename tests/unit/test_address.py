"""From where a request comes: only proxies that are trusted may say it for others."""

from typing import Any

import pytest

from gateway.settings import Settings, SettingsError
from gateway.web.address import ClientAddress

PROXY = "10.1.2.3"


def of(peer: str | None, header: str = "", *, value: str = "", **settings: Any) -> str:
    address = ClientAddress(Settings(**settings))
    headers = [(header.encode(), value.encode())] if header else []
    return address.of({"client": (peer, 4711) if peer is not None else None, "headers": headers})


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),  # the client has made up the first
        ("203.0.113.7, 10.9.9.9", "203.0.113.7"),  # through two of our proxies
        ("203.0.113.7:4000", "203.0.113.7"),
        ("[2001:db8:1:2:3::4]:4000", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("", PROXY),
        ("10.0.0.1", "10.0.0.1"),  # nobody but proxies: the farthest
        # No address: they count as their proxy, or nothing would limit them.
        ("unknown", PROXY),
        ("203.0.113.7, unknown", PROXY),
        ("203.0.113.7, <script>", PROXY),
        ('"10.0.0.1:1"', PROXY),
        ("203.0.113.7 3", PROXY),
        ("203.0.113.007", PROXY),
        ("203.0.113.7,", PROXY),
        (",", PROXY),
        ("_hidden", PROXY),
        ("unix", PROXY),
        ("203.0.113.7, unknown, 10.9.9.9", "10.9.9.9"),  # the farther of two of our proxies
        (", ".join(["203.0.113.7", *["10.0.0.1"] * 50]), "10.0.0.1"),
    ],
)
def test_behind_proxies(value: str, client: str) -> None:
    assert of(PROXY, "x-forwarded-for", value=value, trusted_proxies="10.0.0.0/8") == client


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.7;proto=https;by=10.0.0.1", "203.0.113.7"),
        ('For="[2001:db8:1:2:3::4]:4711"', "2001:db8:1:2::/64"),
        ("for=1.1.1.1, proto=http; for=203.0.113.7", "203.0.113.7"),
        ("for=_hidden", PROXY),
        ("for=unknown", PROXY),
        ("proto=https", PROXY),
        ("beforfor=1.1.1.1", PROXY),
    ],
)
def test_the_standard_header(value: str, client: str) -> None:
    settings = {"trusted_proxies": "10.0.0.0/8", "forwarded_header": "forwarded"}
    assert of(PROXY, "forwarded", value=value, **settings) == client


def test_others_are_not_believed() -> None:
    assert of("198.51.100.9", "x-forwarded-for", value="203.0.113.7") == "198.51.100.9"
    assert of(PROXY, "forwarded", value="for=203.0.113.7", trusted_proxies="10.0.0.0/8") == PROXY
    assert of("127.0.0.1", "x-forwarded-for", value="203.0.113.7") == "203.0.113.7"
    assert of("127.0.0.1", "x-forwarded-for", value="203.0.113.7", trusted_proxies="none") == "127.0.0.1"


def test_behind_a_unix_socket() -> None:
    assert of(None, "x-forwarded-for", value="203.0.113.7") == "203.0.113.7"
    assert of(None, "x-forwarded-for", value="203.0.113.7", trusted_proxies="127.0.0.1") == ""
    assert of(None) == of(None, "x-forwarded-for", value="unknown") == "unix"
    assert of(None, trusted_proxies="127.0.0.1") == ""


def test_what_is_no_proxy() -> None:
    with pytest.raises(SettingsError, match=r"trusted_proxies .*'nginx' is no address or network"):
        Settings.load({"trusted_proxies": "nginx"})
