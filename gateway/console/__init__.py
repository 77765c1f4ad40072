"""The console: one self-contained page for who tries the gateway or looks at what flows through it."""

import base64
import hashlib
import html
import re
from functools import cache
from importlib.resources import files

_REDIS_CLI = 'name="redis-cli" content="redis-cli"'
_PUBLIC = 'name="access" content="public"'


@cache
def _source() -> str:
    return files(__name__).joinpath("index.html").read_text(encoding="utf-8")


@cache
def page(redis_cli: str = "redis-cli", public: bool = True) -> bytes:
    """The page, ready to send as `text/html; charset=utf-8`.

    Args:
        redis_cli: how the page's examples call redis-cli, such as `redis-cli -p 6380` where Redis is not on its
            usual port. Everybody who opens the page sees it: no passwords.
        public: whether everybody may subscribe to everything; else the page asks for a token.
    """
    source = _source()
    if redis_cli != "redis-cli":
        source = source.replace(_REDIS_CLI, f'name="redis-cli" content="{html.escape(redis_cli)}"', 1)
    if not public:
        source = source.replace(_PUBLIC, 'name="access" content="token"', 1)
    return source.encode()


@cache
def content_security_policy() -> str:
    """The `Content-Security-Policy` to send with the page.

    Only the page's own style and script run, named by their hashes, and it can talk to nobody but the gateway it
    came from: a payload that found its way into the markup could neither run nor call home.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash('script')}",
            f"style-src {_hash('style')}",
            "connect-src 'self'",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )


def _hash(tag: str) -> str:
    (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", _source(), re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()}'"
