"""Whether a stage that died is started again, and the error when it is not."""

from __future__ import annotations

from collections import defaultdict, deque
from pathlib import Path

from pipeline.errors import EmoStreamError

# A stage that dies this often within this time will not recover by another restart.
DEATHS_MAX = 6
WITHIN_S = 60.0
LINE_MAX = 500


class Restarts:
    """Counts the starts of every stage within the last WITHIN_S seconds. No I/O."""

    def __init__(self) -> None:
        self._starts: dict[str, deque[float]] = defaultdict(deque)

    def count(self, stage: str, now_s: float) -> int:
        """Record a start of `stage` at `now_s`; return its recent starts, this one included."""
        starts = self._starts[stage]
        starts.append(now_s)
        while now_s - starts[0] > WITHIN_S:
            starts.popleft()
        return len(starts)

    def forget(self, stage: str) -> None:
        """Forget the starts of `stage`, which was stopped on purpose and did not die."""
        self._starts.pop(stage, None)


def is_hopeless(starts: int) -> bool:
    """Return whether a stage with this many recent starts has died too often to be started again. No I/O."""
    return starts > DEATHS_MAX


def gave_up(stage: str, log: Path) -> EmoStreamError:
    """Return the error for a stage that is not started again; it quotes the last line of the stage's `log`."""
    return EmoStreamError(f"stage {stage} died {DEATHS_MAX} times within {WITHIN_S:g} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    return f"{lines[-1][:LINE_MAX] if lines else 'its log is empty'} (full log: {log})"
