"""The limit of open files of a process that holds many connections: each is one."""

from __future__ import annotations

import resource


def raise_file_limit() -> int:
    """Raise this process's limit of open files to the most that the system allows; return it.

    Processes that are started later have it too.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError):
        # macOS reports an unlimited hard limit and refuses to set it.
        return soft
    return hard if hard != resource.RLIM_INFINITY else 1 << 20
