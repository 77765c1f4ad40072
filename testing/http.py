"""Small questions to a running worker."""

from urllib.request import urlopen

from testing.servers import Worker
from testing.waiting import DEADLINE


def metrics(worker: Worker) -> dict[str, float]:
    """The worker's metrics, by name and labels as /metrics spells them, without the prefix `gateway_`."""
    with urlopen(f"{worker.url}/metrics", timeout=DEADLINE) as answer:  # a tenth of httpx.get, and asked all the time
        text = answer.read().decode()
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("gateway_"))
    return {name.removeprefix("gateway_"): float(value) for name, _, value in lines}


def metric(worker: Worker, name: str, **labels: str) -> float:
    """The value of one of them; 0 if it isn't there."""
    wanted = ",".join(f'{label}="{value}"' for label, value in labels.items())
    return metrics(worker).get(f"{name}{{{wanted}}}" if labels else name, 0.0)
