"""Raising the kernel's limit of listen queues for a benchmark."""

from pathlib import Path

import pytest

from gateway.bench import listen_queue


@pytest.fixture
def somaxconn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "somaxconn"
    monkeypatch.setattr(listen_queue, "_SOMAXCONN", file)
    return file


def test_it_is_raised_and_put_back(somaxconn: Path) -> None:
    somaxconn.write_text("4096\n")

    def interrupted() -> None:
        with listen_queue.long_listen_queues() as sentence:
            assert listen_queue.allowed() == listen_queue.LENGTH
            assert "raised from 4,096 to 16,384" in sentence
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert listen_queue.allowed() == 4096


def test_a_limit_that_suffices_is_left_alone(somaxconn: Path) -> None:
    somaxconn.write_text("65536\n")
    with listen_queue.long_listen_queues() as sentence:
        assert listen_queue.allowed() == 65_536
    assert listen_queue.allowed() == 65_536
    assert sentence == "net.core.somaxconn is 65,536."


def test_without_the_right_to_it_that_is_said(somaxconn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    somaxconn.write_text("4096\n")

    def refuse(*_: object) -> int:
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refuse)
    with listen_queue.long_listen_queues() as sentence:
        assert "only root may raise it" in sentence
    assert listen_queue.allowed() == 4096
