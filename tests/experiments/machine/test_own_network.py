"""A loopback interface of one's own: nobody else's is touched, and it can be slow."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from experiments.machine import own_network
from pipeline.errors import EmoStreamError

possible = pytest.mark.skipif(bool(own_network.unavailable()), reason=own_network.unavailable() or "possible here")


@possible
def test_what_is_done_apart_reaches_no_other_network() -> None:
    """A port of the machine is not there; the loopback of one's own works; afterwards all is as before."""
    with socket.create_server(("127.0.0.1", 0)) as outside:
        with own_network.apart():
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(outside.getsockname(), 5)
            with socket.create_server(("127.0.0.1", 0)) as inside:
                socket.create_connection(inside.getsockname(), 5).close()
        socket.create_connection(outside.getsockname(), 5).close()
        with pytest.raises(ZeroDivisionError), own_network.apart():
            1 / 0  # noqa: B018
        socket.create_connection(outside.getsockname(), 5).close()


@possible
def test_a_slow_loopback_loses_what_would_wait_too_long() -> None:
    """It counts what it lost, and is as before afterwards; the machine's loopback has no such limit."""

    def flood() -> int:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(500):
                sender.sendto(bytes(1000), ("127.0.0.1", 9))
        return own_network.lost_packets()

    with own_network.apart():
        with own_network.slow(0.5, queue_ms=100):
            assert flood() > 100
        with own_network.slow(1000.0, queue_ms=100):
            assert flood() == 0
    assert "tbf" not in own_network._run("tc", "qdisc", "show", "dev", "lo")


def test_without_root_the_reason_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what is needed."""
    monkeypatch.setenv("PATH", str(Path(__file__).parent))
    with pytest.raises(EmoStreamError, match=r"no network apart.*root.*ip and tc"), own_network.apart():
        pass
