"""What one process needs to hold thousands of connections."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
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


def shorten_switch_interval() -> None:
    """Have Python's threads take turns every half millisecond: what reads Kafka would keep the event loop for five."""
    sys.setswitchinterval(0.0005)


def use_system_malloc() -> None:
    """Begin this process anew with Python's objects in the C library's heap, where that can give memory back.

    Python's own allocator keeps a mebibyte for each object in it that lives on: when 2,500 clients had gone, 23 MB of
    the 34 that they had taken. PYTHONMALLOC, where it is set, has chosen already.
    """
    if _heap() is not None and "PYTHONMALLOC" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONMALLOC": "malloc"})


def trim_heap() -> None:
    """Return to the system whatever whole pages of the heap are free; it takes some 50 ms."""
    heap = _heap()
    if heap is not None:
        # It also drops the used-up objects that Python keeps for reuse, tuples above all: each holds its page.
        gc.collect()
        heap.malloc_trim(0)


def _heap() -> ctypes.CDLL | None:
    """The C library, if it is one that can be told to (glibc)."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
