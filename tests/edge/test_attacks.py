"""The attacks of docs/security.md, for a moment each: healthy clients lose nothing, and memory stays within bounds.

`python -m attacks` measures what else they notice; how late events are depends on what else runs on this machine.
"""

import pytest

from attacks.__main__ import play
from attacks.attack import ATTACKS, Attack

_MOST = 400 * 1_048_576
"""Bytes of the worker's memory: its limits of bodies and replays together, with what Python needs for them."""


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_healthy_clients_lose_nothing(attack: Attack) -> None:
    result = play(attack, 1.5, compare=False)
    assert result.alive
    assert (result.during.lost, result.during.closed) == (0, 0)
    assert result.most < _MOST
    assert attack.what.endswith("."), "it says what it does, for the documentation"
