"""The console page, as a file."""

import re

from gateway import console


def test_page_needs_nobody_else() -> None:
    source = console.page().decode()
    hosts = set(re.findall(r"https?://[^/'\"\s]+", source))
    assert hosts == {"http://www.w3.org"}  # the name of the SVG namespace, which nobody fetches
    assert not re.search(r"<(link|script|img)[^>]+(src|href)=[\"'](?!data:)", source)


def test_policy_names_what_the_page_holds() -> None:
    policy = console.content_security_policy()
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert re.search(r"script-src 'sha256-[\w+/]{43}='(;|$)", policy)
    assert re.search(r"style-src 'sha256-[\w+/]{43}='(;|$)", policy)
    assert "unsafe" not in policy
    # Attributes would be refused by that policy.
    assert not re.search(r"<[^>]+\s(style|on\w+)=", console.page().decode().partition("<script>")[0])
