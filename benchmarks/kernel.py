"""What the kernel keeps for connections, and how much of them it allows."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PAGE = 4096


@dataclass(frozen=True)
class KernelMemory:
    """Bytes, of the whole machine.

    Attributes:
        slab: the kernel's own objects: sockets, files, epoll entries.
        tcp: buffers of TCP sockets.
        available: what programs could still have.
    """

    slab: int
    tcp: int
    available: int

    def since(self, before: "KernelMemory") -> "KernelMemory":
        return KernelMemory(self.slab - before.slab, self.tcp - before.tcp, self.available - before.available)


def kernel_memory() -> KernelMemory:
    """As it is now."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    tcp = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    pages = int(tcp.split()[tcp.split().index("mem") + 1])
    return KernelMemory(_kilobytes(fields["Slab"]), pages * _PAGE, _kilobytes(fields["MemAvailable"]))


def _kilobytes(text: str) -> int:
    return int(text.split()[0]) * 1024


@dataclass(frozen=True)
class Limit:
    """A setting of the kernel, and what a run needs of it.

    Attributes:
        passes: whether it is only for now that so much is needed.
    """

    name: str
    value: int
    needed: int
    passes: bool = False

    @property
    def suffices(self) -> bool:
        return self.value >= self.needed


def limits(streams: int, per_source: int, tcp_upstreams: bool) -> Iterator[Limit]:
    """What so many streams through nginx need. A setting that isn't here is none that could be in the way.

    Args:
        streams: in all.
        per_source: streams from one address, which must find a port each.
        tcp_upstreams: whether nginx reaches the workers by TCP, not by unix sockets.
    """
    first, last = map(int, _read("net/ipv4/ip_local_port_range", "0 65535").split())
    # Half of them: Linux looks through one half before it tries the other, and is slow once the first is full.
    yield Limit("net.ipv4.ip_local_port_range (half of the ports)", (last - first + 1) // 2, per_source)
    # Twice: the client's end and the server's; and both ends of the connections between nginx and the workers.
    yield Limit("fs.file-max", int(_read("fs/file-max", str(streams * 9))), streams * 4 + 10_000)
    yield Limit("net.core.somaxconn", int(_read("net/core/somaxconn", "4096")), 1024)
    # A connection that was closed is remembered for two minutes.
    remembered = int(_read("net/netfilter/nf_conntrack_count", "0"))
    tracked = streams * (2 if tcp_upstreams else 1) + remembered
    most = int(_read("net/netfilter/nf_conntrack_max", str(tracked)))
    yield Limit("net.netfilter.nf_conntrack_max", most, tracked, passes=tracked - remembered < most)
    # Pages. An event on its way to everybody: 2 kB a socket with the kernel's own overhead, less than a page each.
    yield Limit("net.ipv4.tcp_mem (pages)", int(_read("net/ipv4/tcp_mem", "0 0 9999999").split()[2]), streams)


def _read(name: str, otherwise: str) -> str:
    path = Path("/proc/sys") / name
    return path.read_text() if path.exists() else otherwise
