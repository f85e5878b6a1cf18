"""Settings of a process that holds thousands of connections: event loop, threads, heap."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
from collections.abc import Callable


def fastest_loop() -> Callable[[], asyncio.AbstractEventLoop]:
    """Return uvloop's loop factory if uvloop is installed, else asyncio's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    return uvloop.new_event_loop


def shorten_switch_interval() -> None:
    """Switch threads every half millisecond: Kafka's reader would block the event loop for five (the default)."""
    sys.setswitchinterval(0.0005)


def use_system_malloc() -> None:
    """Restart this process with Python's objects in the C library's heap, if `trim_heap` works on that.

    Python's own allocator keeps a mebibyte as long as one object in it lives: after 2,500 clients had left, it kept 23
    of their 34 MB. Does nothing if PYTHONMALLOC is set.
    """
    if _heap() is not None and "PYTHONMALLOC" not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, "PYTHONMALLOC": "malloc"})


def trim_heap() -> None:
    """Return the heap's free pages to the system; takes about 50 ms."""
    heap = _heap()
    if heap is not None:
        # This also frees the objects that Python keeps for reuse, mostly tuples: each would hold its page.
        gc.collect()
        heap.malloc_trim(0)


def _heap() -> ctypes.CDLL | None:
    """Return the C library if it has malloc_trim (glibc), else None."""
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
