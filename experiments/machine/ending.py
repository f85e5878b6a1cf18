"""How the processes end that hold others still: by an exception, so that none is left stopped."""

from __future__ import annotations

import signal
from types import FrameType


class Ended(Exception):
    """The process that started this one has ended, or wants the result."""


def raise_when_asked() -> None:
    """Let SIGTERM and SIGINT raise Ended from here on."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended
