"""Small questions to a running worker."""

import httpx

from testing.servers import Worker


def metric(worker: Worker, name: str, **labels: str) -> float:
    """The value of one of the worker's metrics, without its prefix `gateway_`; 0 if it isn't there."""
    wanted = ",".join(f'{label}="{value}"' for label, value in labels.items())
    full_name = f"gateway_{name}{{{wanted}}}" if labels else f"gateway_{name}"
    for line in httpx.get(f"{worker.url}/metrics").text.splitlines():
        if line.startswith(full_name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0
