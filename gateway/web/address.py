"""From where a request comes, also behind proxies."""

import re
from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from starlette.types import Scope

from gateway.settings import Settings

_UNIX = "unix"
_NOBODY = "none"
_IPV6_PREFIX = 64
"""Bits of an IPv6 address that stand for one client: whoever has one address has all of its network (RFC 6177)."""
_MAX_HOPS = 20
# The `for=` of an element (RFC 7239, 4): a token or a quoted string, in which IPv6 has brackets and perhaps a port.
_FOR = re.compile(r"""(?:^|[;\s])for=(?:"([^"\\]*)"|([^",;\s]*))""", re.IGNORECASE)
_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([^:]*):\d+")


class ClientAddress:
    """Finds the client's address, believing only proxies of the setting `trusted_proxies`.

    Each proxy appends the address it was asked from, so from the end of the list backwards the first that is no proxy
    of ours is the client; what stands before it, the client may have made up. Where something else than an address
    comes first (`unknown`, a name, nothing), the client is counted as the proxy that says so: else it would have no
    limit.

    Args:
        settings: the proxies, and the header that they write.
    """

    def __init__(self, settings: Settings) -> None:
        self._unix = _UNIX in settings.trusted_proxies
        networks = [each for each in settings.trusted_proxies if each not in (_UNIX, _NOBODY)]
        self._networks = [ip_network(each, strict=False) for each in networks]
        self._header = settings.forwarded_header.encode()
        self._is_trusted = lru_cache(maxsize=1000)(self._in_networks)

    def of(self, scope: Scope) -> str:
        """The address, an IPv6 one without what a client chooses itself; empty if it isn't known.

        `unix` stands for a proxy that uses the unix socket.
        """
        address = self.exactly(scope)
        return address if address == _UNIX else _counted(address)

    def exactly(self, scope: Scope) -> str:
        """The same, with all of an IPv6 address."""
        client = scope.get("client")
        if client is None:
            if not self._unix:
                return ""
        elif not self._is_trusted(client[0]):
            return str(client[0])
        nearest = ""
        for hop in self._hops(scope["headers"]):
            if _parse(hop) is None:
                break
            nearest = hop
            if not self._is_trusted(hop):
                break
        return nearest or (_UNIX if client is None else str(client[0]))

    def _hops(self, headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
        """The addresses in the header, the nearest first."""
        text = ",".join(value.decode("latin-1") for name, value in headers if name == self._header)
        hops = text.rsplit(",", _MAX_HOPS)[::-1][:_MAX_HOPS] if text else []
        if self._header == b"forwarded":
            found = (_FOR.search(hop) for hop in hops)
            hops = [(match[1] or match[2] or "") if match else "" for match in found]
        return [_without_port(hop.strip()) for hop in hops]

    def _in_networks(self, text: str) -> bool:
        address = _parse(text)
        return address is not None and any(address in network for network in self._networks)


def _without_port(hop: str) -> str:
    match = _PORT.fullmatch(hop)
    return (match[1] or match[2] or "") if match else hop


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _counted(text: str) -> str:
    address = _parse(text)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, _IPV6_PREFIX), strict=False))
    return str(address) if address is not None else ""
