"""Waiting for what another thread or process is about to do: a condition, a deadline, and what was waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

DEADLINE_S = 60.0
"""A test waits this long only if something is broken."""
POLL_S = 0.01


def until(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S, poll_s: float = POLL_S) -> T:
    """Wait until `condition()` is true, and return what it returned.

    Fails after `deadline_s` with `what` and the value that the condition had last. An exception of the condition is
    the test's failure.
    """
    end_s = time.monotonic() + deadline_s
    while not (last := condition()):
        if time.monotonic() > end_s:
            raise AssertionError(_late(what, deadline_s, last))
        time.sleep(poll_s)
    return last


async def until_async(
    condition: Callable[[], Awaitable[T]], what: str, deadline_s: float = DEADLINE_S, poll_s: float = POLL_S
) -> T:
    """Wait until `await condition()` is true, as `until` does."""
    end_s = time.monotonic() + deadline_s
    while not (last := await condition()):
        if time.monotonic() > end_s:
            raise AssertionError(_late(what, deadline_s, last))
        await asyncio.sleep(poll_s)
    return last


def _late(what: str, deadline_s: float, last: object) -> str:
    return f"not within {deadline_s:g} s: {what} (the condition was last {last!r})"
