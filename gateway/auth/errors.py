"""Why somebody may not."""


class Unauthorized(Exception):
    """401: credentials are missing, bad or expired; says which, and what is wrong with them."""


class Forbidden(Exception):
    """403: the credentials are good, and don't allow this; says what."""


class CannotTell(Exception):
    """Nobody can tell just now, because what would decide it can't be reached; says what."""
