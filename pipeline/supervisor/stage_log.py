"""The log files of one stage, read back from where the stage's newest process began."""

from __future__ import annotations

from pathlib import Path

from pipeline.supervisor import log_lines

# The end of a log says why a process died.
TAIL_BYTES = 65_536


class StageLog:
    """What one stage has logged: into `path`, and by a JVM of its own into `others`."""

    def __init__(self, path: Path, *others: Path) -> None:
        self.path = path
        # In the order of reading: the stage itself has the last word.
        self._begins = dict.fromkeys((*others, path), 0)

    def begin(self) -> None:
        """Leave out what was logged until now, by earlier processes."""
        self._begins = {path: _size(path) for path in self._begins}

    def last_error(self) -> str:
        """Return the last error of the newest process, or ""."""
        return log_lines.last_error(self._text())

    def last_complaint(self) -> str:
        """Return the last error of the newest process, else its last warning, else its last line, or ""."""
        return log_lines.last_complaint(self._text())

    def _text(self) -> str:
        return "\n".join(_read(path, begin) for path, begin in self._begins.items())


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read(path: Path, begin: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(begin, _size(path) - TAIL_BYTES))
            return file.read().decode(errors="replace")
    except OSError:
        # Also for a log that somebody has removed: the report of a death matters more.
        return ""
