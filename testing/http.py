"""Small questions to a running worker."""

from urllib.request import urlopen

from testing.servers import Worker
from testing.waiting import DEADLINE


def metric(worker: Worker, name: str, **labels: str) -> float:
    """The value of one of the worker's metrics, without its prefix `gateway_`; 0 if it isn't there."""
    wanted = ",".join(f'{label}="{value}"' for label, value in labels.items())
    full_name = f"gateway_{name}{{{wanted}}}" if labels else f"gateway_{name}"
    with urlopen(f"{worker.url}/metrics", timeout=DEADLINE) as answer:  # a tenth of httpx.get, and asked all the time
        text = answer.read().decode()
    for line in text.splitlines():
        if line.startswith(full_name + " "):
            return float(line.rpartition(" ")[2])
    return 0.0
