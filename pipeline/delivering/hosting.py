"""What one process needs to hold thousands of connections."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable


def raise_file_limit() -> int:
    """Allow this process as many open files as it may have; return how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        # macOS calls its hard limit unlimited and refuses it.
        return soft
    return hard if hard != resource.RLIM_INFINITY else 1 << 20


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop factory where there is one."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def hand_over_quickly() -> None:
    """Have Python's threads take turns every half millisecond: what reads Kafka would keep the event loop for five."""
    sys.setswitchinterval(0.0005)
