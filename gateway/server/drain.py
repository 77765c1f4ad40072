"""Letting the clients of a worker go that is about to end."""

import asyncio
import logging
import random
from collections.abc import Callable

from gateway.fanout.event import own_event, retry_frame
from gateway.fanout.hub import Hub
from gateway.settings import Settings

logger = logging.getLogger(__name__)

_STEP = 0.05


async def drain(hub: Hub, settings: Settings, hurry: Callable[[], bool]) -> None:
    """End every stream cleanly, in random order, spread over the setting `drain_window`.

    Each client is told with a `gateway.closing` event and a random reconnection time of its own, so that the other
    workers don't get them all at once.

    Args:
        hurry: whether to end the rest at once.
    """
    streams = hub.drain()
    if not streams:
        return
    logger.info("draining %d streams over %g s", len(streams), settings.drain_window)
    random.shuffle(streams)
    closing = own_event("gateway.closing", {"reason": "worker_shutdown"}).frame
    start = asyncio.get_running_loop().time()
    ended = 0
    while ended < len(streams):
        elapsed = asyncio.get_running_loop().time() - start
        window = settings.drain_window
        share = 1.0 if hurry() or elapsed >= window else elapsed / window
        due = int(share * len(streams))
        for subscriber in streams[ended:due]:
            retry = random.uniform(settings.retry_min, settings.retry_max)
            hub.end(subscriber, "drain", closing + retry_frame(retry))
        ended = max(ended, due)
        await asyncio.sleep(_STEP)
