"""The streams that were opened with a grant: they end with it."""

import time
from collections.abc import Callable

from gateway.fanout.admission import Admission
from gateway.fanout.expiries import Expiries
from gateway.fanout.in_band import expiring
from gateway.fanout.members import Members
from gateway.fanout.quotas import Quotas
from gateway.fanout.subjects import Subjects
from gateway.fanout.subscriber import Subscriber
from gateway.settings import Settings


class GrantedStreams:
    """Knows whose they are, and until when.

    Args:
        settings: `expiry_notice` and `subject_streams`.
        members: says who has left.
        admission: ends streams.
        clock: seconds, monotonic.
        now: seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        members: Members,
        admission: Admission,
        clock: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._admission = admission
        self._subjects = Subjects()
        self._quotas = Quotas(settings.subject_streams, 0.0, 0, 0.0, clock)
        self._expiries = Expiries(
            settings.expiry_notice,
            now,
            lambda subscriber, at: admission.tell(subscriber, expiring(at)),
            lambda subscriber: admission.close(subscriber, "expired", "expired"),
        )
        for part in (self._subjects, self._quotas, self._expiries):
            members.on_leave.append(part.discard)

    def full(self, sub: str | None) -> bool:
        """Whether the subject has as many streams as it may have."""
        return self._quotas.enabled and self._quotas.exceeded(sub or "", ())

    def add(self, subscriber: Subscriber, sub: str | None, expires_at: float | None, issued_at: float | None) -> None:
        """A stream is let in.

        Args:
            subscriber: the stream.
            sub: whose it is; None: the grant names nobody.
            expires_at: when the grant ends (seconds since 1970); None: never.
            issued_at: when it was given, likewise; None: that isn't known.
        """
        if sub:
            self._subjects.add(sub, subscriber, issued_at)
            if self._quotas.enabled:
                self._quotas.add(sub, subscriber)
        if expires_at is not None:
            self._expiries.add(subscriber, expires_at)

    def revoke(self, sub: str, at: float) -> None:
        """End the subject's streams whose grant was given up to then (seconds since 1970)."""
        for subscriber, issued_at in self._subjects.of(sub):
            if issued_at is None or issued_at <= at:
                self._admission.close(subscriber, "revoked", "revoked")

    async def run(self) -> None:
        """End streams whose grant ends, forever."""
        await self._expiries.run()

    def sweep(self) -> None:
        """Forget subjects without open streams; to be called every second or so."""
        self._quotas.sweep()
