"""What a request says about who it is from."""

from typing import NamedTuple


class Credentials(NamedTuple):
    """The request's own.

    Attributes:
        token: a JWT, or what stands in its place; None: there is none.
        cookie: the header Cookie; empty if there is none, as the others.
        authorization: the header Authorization.
        origin: the header Origin.
    """

    token: str | None
    cookie: str = ""
    authorization: str = ""
    origin: str = ""
