"""Whether the code of what was measured has changed since its commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.run.code_state import git

SHORT = 7


@dataclass(frozen=True)
class Age:
    """What is known of a measurement's code: `changed` paths since its commits, or None and `unknown` says why."""

    commits: tuple[str, ...]
    changed: tuple[str, ...] | None
    unknown: str = ""

    @property
    def stale(self) -> bool:
        """Whether the code has changed since."""
        return bool(self.changed)

    @property
    def words(self) -> str:
        """What a reader has to know; empty if nothing has changed."""
        commits = ", ".join(commit[:SHORT] for commit in self.commits)
        if self.changed is None:
            return f"measured at {commits or 'an unknown commit'}; {self.unknown}"
        if not self.changed:
            return ""
        have = "has" if len(self.changed) == 1 else "have"
        return f"measured before {', '.join(self.changed)} {have} changed (at {commits})"


def age(checkout: Path, commits: Iterable[str | None], code: Sequence[str]) -> Age:
    """Return what has changed in the paths `code` between the commits of a measurement and HEAD."""
    known = tuple(sorted({commit for commit in commits if commit}))
    if not known:
        return Age((), None, "its commit is not recorded, so that it is not known what has changed since")
    if git(checkout, "rev-parse", "HEAD") is None:
        return Age(known, None, "this is not a git checkout, so that it is not known what has changed since")
    changed: set[str] = set()
    for commit in known:
        names = git(checkout, "diff", "--name-only", "-z", commit, "HEAD", "--", *code)
        if names is None:
            shallow = (git(checkout, "rev-parse", "--is-shallow-repository") or b"").strip() == b"true"
            why = "this clone is shallow (git fetch --unshallow)" if shallow else "this clone does not have that commit"
            return Age(known, None, f"{why}, so that it is not known what has changed since")
        changed |= {stage(name) for name in names.decode().split("\0") if name}
    return Age(known, tuple(sorted(changed)))


def stage(path: str) -> str:
    """Return the stage that a file belongs to: the first two names of its path, `pipeline/ingest`."""
    return "/".join(Path(path).with_suffix("").parts[:2])
