"""Centrifugo: a server in Go, with its unidirectional event streams."""

import json
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.stage import Stage
from gateway.bench import server
from gateway.bench.session import Target

# {"subs":{"{channel}":{}}}, percent-encoded; {channel} is replaced.
_SUBSCRIPTION = "%7B%22subs%22%3A%7B%22{channel}%22%3A%7B%7D%7D%7D"


@contextmanager
def centrifugo(stage: Stage) -> Iterator[Target]:
    """Centrifugo, running: on one core like the others, without tokens, without history."""
    port = server.free_port()
    configuration = stage.directory / "centrifugo.json"
    configuration.write_text(json.dumps(_configuration(port), indent=1))
    words = [str(stage.programs["centrifugo"]), "-c", str(configuration)]
    with server.running(words, {"GOMAXPROCS": "1"}, stage.server_cores) as (process, log):
        server.wait(lambda: server.accepts(port), process, log)
        url = f"http://127.0.0.1:{port}"
        yield Target(
            f"{url}/connection/uni_sse?cf_connect={_SUBSCRIPTION}",
            f"{url}/api/publish",
            pids=(process.pid,),
            cores=stage.server_cores,
            publish_headers=("Content-Type: application/json",),
            publish_body='{"channel":"{channel}","data":{data}}',
        )


def _configuration(port: int) -> dict[str, object]:
    return {
        "http_server": {"address": "127.0.0.1", "port": str(port)},
        "client": {"insecure": True, "allowed_origins": ["*"]},
        "http_api": {"insecure": True},
        "uni_sse": {"enabled": True},
        "log": {"level": "error"},
        "channel": {"without_namespace": {"allow_subscribe_for_anonymous": True, "allow_subscribe_for_client": True}},
    }
