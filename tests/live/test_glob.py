"""Our glob against that of a real Redis: in thousands of random cases they must not differ once."""

import random
from typing import cast

import redis

from gateway.memory.glob import compile_glob
from tests.unit.test_glob import CASES

PATTERNS = 3000
ALPHABET = b"ab-]^[*?\\c"


def test_redis_matches_alike(publisher: redis.Redis) -> None:
    rng = random.Random(1)
    names = {bytes(rng.choices(ALPHABET, k=rng.randint(0, 4))) for _ in range(300)}
    names |= {name for _, matching, others in CASES for name in (*matching, *others)}
    publisher.flushdb()
    for at in range(0, len(names), 100):
        publisher.mset({b"glob " + name: b"" for name in sorted(names)[at : at + 100]})
    patterns = [pattern for pattern, _, _ in CASES]
    patterns += [bytes(rng.choices(ALPHABET, k=rng.randint(0, 7))) for _ in range(PATTERNS)]
    try:
        for pattern in patterns:
            keys = cast("list[bytes]", publisher.keys(b"glob " + pattern))
            found = {key.removeprefix(b"glob ") for key in keys}
            glob = compile_glob(pattern)
            ours = {name for name in names if glob.fullmatch(name)}
            assert ours == found, pattern
    finally:
        publisher.flushdb()
