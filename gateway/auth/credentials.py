"""What a request says about who it is from."""

from typing import NamedTuple


class Credentials(NamedTuple):
    """The request's own.

    Attributes:
        token: a JWT, or what stands in its place; None: there is none.
    """

    token: str | None


ANONYMOUS = Credentials(None)
