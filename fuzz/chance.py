"""Random choices that come again for the same seed, target and number of a case."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Choice = TypeVar("Choice")

_ODD = [
    *(
        b"\0",
        b"\r",
        b"\n",
        b"\r\n",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\x0b",
        b"\x1e",
        b"\x7f",
        b"\x80",
        b"\xff",
        b"\xc0\xaf",
    ),
    *("\ufeff".encode(), "\u2028".encode(), "\u0085".encode(), "ž".encode(), "😀".encode(), b"\xed\xa0\x80"),
    *(b":", b";", b",", b"=", b"&", b"%", b"%00", b"%0a", b"%ff", b"/", b"..", b"?", b"#", b"*", b"[", b"]", b"\\"),
    *(b'"', b"'", b"{", b"}", b"-", b"+", b"0", b"-1", b"2147483648", b"9223372036854775808", b"1" * 25, b"0x10"),
    *(b"data: x\n\n", b"event: gateway.open\n", b"id: 1\n", b"retry: 1\n", b"null", b"NaN", b"1e400", b"~", b"2.0.0"),
]


class Chance(random.Random):
    """One case's source of randomness."""

    def one(self, items: Sequence[Choice]) -> Choice:
        return items[int(self.random() * len(items))]

    def perhaps(self, probability: float) -> bool:
        return self.random() < probability

    def weighted(self, choices: Mapping[Choice, float]) -> Choice:
        """One of the keys; the values say how often each comes, compared with the others."""
        return self.choices(list(choices), list(choices.values()))[0]

    def several(self, most: int, make: Callable[[], Choice], least: int = 0) -> list[Choice]:
        return [make() for _ in range(self.randint(least, most))]

    def number(self) -> int:
        """Mostly small, often at a border of some type."""
        if self.perhaps(0.5):
            return self.randint(0, 20)
        border = 1 << self.one([7, 8, 15, 16, 31, 32, 52, 53, 60, 62, 63, 64, 65, 200])
        return (border + self.randint(-2, 2)) * self.one([1, 1, 1, -1])

    def text(self, most: int = 20) -> str:
        """Unicode without surrogates; short runs of letters and what means something to some parser."""
        return b"".join(self.several(most, self._piece)).decode(errors="ignore")

    def garbage(self, most: int = 20) -> bytes:
        """Bytes, often no UTF-8."""
        return b"".join(self.several(most, self._piece))

    def mutated(self, data: bytes, most: int = 3) -> bytes:
        """The bytes with a few changes."""
        changed = bytearray(data)
        for _ in range(self.randint(1, most)):
            at = self.randint(0, len(changed))
            to = min(at + self.one([1, 1, 1, 2, 4, 16]), len(changed))
            match self.randint(0, 6):
                case 0:
                    del changed[at:to]
                case 1:
                    changed[at:at] = self.one(_ODD)
                case 2:
                    changed[at:to] = self.one(_ODD)
                case 3:
                    changed[at:at] = changed[at:to]
                case 4:
                    changed[at:to] = self.randbytes(to - at)
                case 5:
                    changed[at:at] = changed[self.randint(0, len(changed)) :][:64]
                case _:
                    if at < len(changed):
                        changed[at] ^= 1 << self.randint(0, 7)
        return bytes(changed)

    def json(self, depth: int = 3) -> Any:
        """What JSON can say."""
        match self.randint(0, 7 if depth else 5):
            case 0:
                return self.text(6)
            case 1:
                return self.number()
            case 2:
                return self.one([True, False, None])
            case 3:
                return self.uniform(-1e6, 1e6)
            case 4:
                return self.text(2)
            case 5:
                return self.randint(0, 9)
            case 6:
                return self.several(4, lambda: self.json(depth - 1))
            case _:
                return {self.text(2): self.json(depth - 1) for _ in range(self.randint(0, 4))}

    def _piece(self) -> bytes:
        if self.perhaps(0.6):
            return self.one([b"a", b"news", b"x" * 10, b"1", b"Z", b"gateway.", b"b"])
        return self.one(_ODD) if self.perhaps(0.9) else self.randbytes(2)


def chance_of(seed: int, target: str, number: int) -> Chance:
    """That of one case: no case depends on the ones before it."""
    return Chance(f"{seed} {target} {number}")
