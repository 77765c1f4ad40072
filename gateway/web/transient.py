"""The answer to a client that can't have its stream just now.

A browser that gets anything but 200 gives up for good; only a clean end or a network error makes it come back
(HTML standard, 9.2.2, "fail the connection"). So it gets an event stream that says when to try again, and ends.
"""

import random

from starlette.responses import Response

from gateway.fanout.event import retry_frame
from gateway.metrics import Metrics

STREAM_HEADERS = {
    # no-transform keeps proxies from compressing, and so from holding events back.
    "Cache-Control": "no-store, no-transform",
    "X-Accel-Buffering": "no",
    "Vary": "Accept-Encoding",
}
STREAM_TYPE = "text/event-stream; charset=utf-8"


def turn_away(reason: str, retry_busy: float, metrics: Metrics) -> Response:
    """An empty stream.

    Args:
        reason: why, for the metric and as a comment for people with curl.
        retry_busy: longest reconnection time told, in seconds; half of it is the shortest.
        metrics: where it is counted.
    """
    metrics.turned_away[reason] += 1
    retry = random.uniform(retry_busy / 2, retry_busy)
    return Response(b": %b\n%b" % (reason.encode(), retry_frame(retry)), 200, STREAM_HEADERS, STREAM_TYPE)
