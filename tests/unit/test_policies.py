"""Which overflow policy is whose."""

import pytest

from gateway.fanout.policies import Policies


@pytest.mark.parametrize(
    ("entries", "channel", "policy"),
    [
        ((), "a", "disconnect"),
        (("latest",), "a", "latest"),
        (("a*=latest", "drop-oldest"), "ab", "latest"),
        (("a*=latest", "drop-oldest"), "b", "drop-oldest"),
        (("a*=latest",), "b", "disconnect"),
        (("a*=latest", "ab=disconnect"), "ab", "latest"),
        (("A*=latest",), "ab", "disconnect"),
        (("a=b=latest",), "a=b", "latest"),
    ],
)
def test_the_first_pattern_that_matches_counts(entries: tuple[str, ...], channel: str, policy: str) -> None:
    assert Policies(entries).of(channel) == policy
