"""Which code a run was made with: the commit, and a hash of what differs from it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

GIT_S = 10
UNKNOWN: dict[str, Any] = {"commit": None, "dirty": None, "diff_sha256": None}


def code_state(checkout: Path | None) -> dict[str, Any]:
    """Return `commit`, `dirty` and `diff_sha256` of a checkout.

    All are None without a checkout, as for a wheel, and where git does not answer: then nothing is known, and that is
    not the same as "no changes".
    `diff_sha256` is None without changes. It covers the changes against the commit and every file that git neither
    tracks nor ignores, so that equal hashes mean equal code.
    """
    if checkout is None:
        return UNKNOWN
    commit = git(checkout, "rev-parse", "HEAD")
    changes = git(checkout, "status", "--porcelain")
    if commit is None or changes is None:
        return UNKNOWN
    return {
        "commit": commit.decode().strip(),
        "dirty": bool(changes),
        "diff_sha256": _diff_hash(checkout) if changes else None,
    }


def _diff_hash(checkout: Path) -> str | None:
    diff = git(checkout, "diff", "--binary", "HEAD")
    others = git(checkout, "ls-files", "--others", "--exclude-standard", "-z", "--full-name")
    if diff is None or others is None:
        return None
    whole = hashlib.sha256(diff)
    for name in sorted(filter(None, others.split(b"\0"))):
        path = Path(os.fsdecode(os.path.join(os.fsencode(checkout), name)))  # noqa: PTH118
        whole.update(name + b"\0" + (path.read_bytes() if path.is_file() else b"") + b"\0")
    return whole.hexdigest()


def git(checkout: Path, *arguments: str) -> bytes | None:
    """Return git's answer about a checkout, or None if it is not one. Nothing is written there."""
    # GIT_DIR and the like name other repositories.
    env = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", *arguments],
            cwd=checkout,
            env=env,
            capture_output=True,
            timeout=GIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout
