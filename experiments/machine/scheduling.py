"""Real-time scheduling of the processes that stand for people: the load generator and the receivers.

Real users do not slow down when the machine that serves them is busy. An ordinary process on the same cores would: the
kernel makes it wait behind the chain that it measures.
"""

from __future__ import annotations

import os

# The lowest real-time priority: even it comes before every ordinary process.
REALTIME_PRIORITY = 1


def go_first() -> str:
    """Schedule this thread before every ordinary one if the system allows it; return the policy it has now."""
    if not hasattr(os, "sched_setscheduler"):
        return "ordinary"
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
    except OSError:
        return "ordinary"
    return "real-time"


def scheduling() -> str:
    """Return the policy that `go_first` would give a process started now: "real-time" or "ordinary"."""
    policy = go_first()
    if policy == "real-time":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    return policy
