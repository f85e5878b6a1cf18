"""How the processes end that hold others still: by an exception, so that none is left stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Ended(Exception):
    """The process that started this one has ended, or wants the result."""


@contextmanager
def until_asked() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the block. Afterwards they do nothing: the result has still to be printed."""
    for number in SIGNALS:
        signal.signal(number, _end)
    try:
        yield
    except Ended:
        pass
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended
