"""What breaks between the clients and the workers."""

import signal

from chaos.stage import Stage
from testing.waiting import wait_until


def clients_reconnect(stage: Stage) -> None:
    """A tenth of the clients lose their network, again and again."""
    for _ in range(20):
        stage.cut(0.1)
        stage.play(0.25)


def nginx_reloads(stage: Stage) -> None:
    """The old processes keep their streams until `worker_shutdown_timeout`, shortened here to 3 s."""
    before = stage.total("opened")
    stage.nginx.send_signal(signal.SIGHUP)
    all_but_some = 0.9 * stage.total("clients")
    wait_until(
        lambda: stage.total("opened") - before >= all_but_some, "the old processes have ended their streams", 20
    )


def nginx_restarts(stage: Stage) -> None:
    stage.nginx.stop()
    stage.play(0.5)
    stage.nginx.start()
