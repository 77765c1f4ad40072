"""Whose the open streams are."""

from collections.abc import Iterable

from gateway.fanout.subscriber import Subscriber


class Subjects:
    """The streams of each subject: somebody whom a grant names."""

    def __init__(self) -> None:
        self._streams: dict[str, dict[Subscriber, float | None]] = {}
        self._owners: dict[Subscriber, str] = {}

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, sub: str, subscriber: Subscriber, issued_at: float | None) -> None:
        """A stream has been let in.

        Args:
            sub: whose it is.
            subscriber: the stream.
            issued_at: when the grant was given (seconds since 1970); None: that isn't known.
        """
        self._streams.setdefault(sub, {})[subscriber] = issued_at
        self._owners[subscriber] = sub

    def discard(self, subscriber: Subscriber) -> None:
        """The stream has ended."""
        if (sub := self._owners.pop(subscriber, None)) is not None:
            streams = self._streams[sub]
            del streams[subscriber]
            if not streams:
                del self._streams[sub]

    def of(self, sub: str) -> Iterable[tuple[Subscriber, float | None]]:
        """The subject's streams, and when the grant of each was given."""
        return list(self._streams.get(sub, {}).items())
