"""Ending the streams of a worker that shuts down."""

import asyncio
import logging
import random
from collections.abc import Callable

from gateway.fanout.admission import Admission
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_STEP = 0.05


async def drain(admission: Admission, settings: Settings, hurry: Callable[[], bool]) -> None:
    """End every stream cleanly, in random order, spread over the setting `drain_window`.

    Each client is told with a `gateway.closing` event and a random reconnection time of its own, so that the other
    workers don't get them all at once.

    Args:
        hurry: whether to end the rest at once.
    """
    streams = admission.drain()
    if not streams:
        return
    logger.info("draining %d streams over %g s", len(streams), settings.drain_window)
    random.shuffle(streams)
    start = asyncio.get_running_loop().time()
    ended = 0
    while ended < len(streams):
        elapsed = asyncio.get_running_loop().time() - start
        window = settings.drain_window
        share = 1.0 if hurry() or elapsed >= window else elapsed / window
        due = int(share * len(streams))
        for subscriber in streams[ended:due]:
            admission.close(subscriber, "drain", "worker_shutdown")
        ended = max(ended, due)
        await asyncio.sleep(_STEP)
