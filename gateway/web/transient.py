"""The answer to a client that can't have its stream just now.

A browser that gets anything but 200 gives up for good; only a clean end or a network error makes it come back
(HTML standard, 9.2.2, "fail the connection"). So it gets an event stream that says when to try again, and ends.
"""

import random
import re

from starlette.responses import Response

from gateway.fanout import sse
from gateway.fanout.in_band import closing
from gateway.metrics import Metrics
from gateway.web.torn import TornResponse

STREAM_HEADERS = {
    # no-transform keeps proxies from compressing, and so from holding events back.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "Vary": "Accept-Encoding",
    # A page of another site could otherwise load a stream as a script.
    "X-Content-Type-Options": "nosniff",
}
STREAM_TYPE = "text/event-stream; charset=utf-8"


# What may stand in an `id:` line: a client could send anything.
_SAFE_ID = re.compile(r"[^\x00-\x1f\x7f]*")


def turn_away(
    reason: str,
    last_event_id: str | None,
    retry_busy: float,
    metrics: Metrics,
    close: bool,
    torn: bool = False,
) -> Response:
    """A stream of one event.

    Args:
        reason: why, for the metric and for the client.
        last_event_id: what the client has sent.
        retry_busy: longest reconnection time told, in seconds; half of it is the shortest.
        metrics: where it is counted.
        close: whether to close the connection. Thousands are turned away at once, when descriptors are scarce.
        torn: whether it breaks off (`gateway.web.torn`).
    """
    metrics.turned_away[reason] += 1
    retry = random.uniform(retry_busy / 2, retry_busy)
    id_ = last_event_id if last_event_id is not None and _SAFE_ID.fullmatch(last_event_id) else None
    body = sse.id_line(id_) + sse.body(closing(reason, retry))
    headers = STREAM_HEADERS | ({"Connection": "close"} if close else {})
    return (TornResponse if torn else Response)(body, 200, headers, STREAM_TYPE)
