"""A real Chromium, and EventSources in it that write down all they see.

Playwright's synchronous interface keeps an event loop running in its thread for as long as the browser is open, so
modules that use it hold no asynchronous tests, and their browser ends with the module.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from testing.stream import publishers_id
from testing.waiting import wait_until

CONNECTING, OPEN, CLOSED = 0, 1, 2
"""`EventSource.readyState`."""

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

_LISTEN = """([address, types]) => {
  const source = new EventSource(address);
  const seen = {source, events: [], opened: 0, errors: []};
  source.onopen = () => { seen.opened += 1; };
  source.onerror = () => { seen.errors.push(source.readyState); };
  for (const type of types)
    source.addEventListener(type, (event) => seen.events.push([event.type, event.data, event.lastEventId]));
  window.listeners ??= [];
  return window.listeners.push(seen) - 1;
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a fresh profile; each `new_context` in it is a fresh one again."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        try:
            yield browser
        finally:
            browser.close()


class Listener:
    """One EventSource of a page.

    Args:
        page: on the gateway's own origin, or one that may read from it.
        address: of the stream, absolute or relative to the page.
        types: event types listened to; an EventSource is silent about all others.
    """

    def __init__(self, page: Page, address: str, types: Sequence[str] = ("message",)) -> None:
        self._page = page
        self._address = address
        self._index = page.evaluate(_LISTEN, [address, list(types)])

    def _ask(self, expression: str) -> Any:
        return self._page.evaluate(f"(index) => {{ const s = listeners[index]; return {expression}; }}", self._index)

    @property
    def state(self) -> int:
        """`readyState`."""
        return int(self._ask("s.source.readyState"))

    @property
    def opened(self) -> int:
        """How often onopen was called."""
        return int(self._ask("s.opened"))

    @property
    def states_at_errors(self) -> list[int]:
        """`readyState` in each onerror: CONNECTING means it will try again, CLOSED that it won't."""
        return list(self._ask("s.errors"))

    @property
    def events(self) -> list[tuple[str, str, str]]:
        """(type, data, lastEventId) of each event; an id the gateway gave is left out."""
        return [(type_, data, publishers_id(id_)) for type_, data, id_ in self._ask("s.events")]

    @property
    def ids(self) -> list[str]:
        """The lastEventId of each event, whoever gave it."""
        return [id_ for _, _, id_ in self._ask("s.events")]

    def wait_open(self) -> None:
        wait_until(lambda: self.state == OPEN, f"EventSource of {self._address} open")

    def close(self) -> None:
        self._ask("s.source.close()")
