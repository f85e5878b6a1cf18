"""The limit of open files is raised to what the system allows."""

from __future__ import annotations

import resource
import subprocess
import sys

PROGRAM = """
import resource
from pipeline.file_limit import raise_file_limit

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
print(raise_file_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def test_the_soft_limit_becomes_the_hard_one() -> None:
    """In a process of its own, since a limit that was lowered stays."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = hard if hard != resource.RLIM_INFINITY else 1 << 20
    assert done.stdout.split() == [str(allowed), str(hard), str(hard)]
