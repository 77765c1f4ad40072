"""Unit tests start no server."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="package", autouse=True)
def _no_programs() -> Iterator[None]:
    """What a test starts nevertheless is not found, on a machine that has it too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")
        yield
