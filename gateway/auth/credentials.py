"""What a request says about who it is from."""

from typing import NamedTuple


class Credentials(NamedTuple):
    """The request's own.

    Attributes:
        tokens: JWTs, or what stands in their place; mostly one.
        cookie: the header Cookie; empty if there is none, as the others.
        authorization: the header Authorization.
        origin: the header Origin.
    """

    tokens: tuple[str, ...] = ()
    cookie: str = ""
    authorization: str = ""
    origin: str = ""
