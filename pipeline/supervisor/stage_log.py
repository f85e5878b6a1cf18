"""The log files of one stage, read back from where the stage's newest process began."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from pipeline.supervisor import log_lines

# The end of a log says why a process died.
TAIL_BYTES = 65_536
LOG_MAX_BYTES = 16 << 20
"""A log of a stage, or of its JVM, takes twice as much at most, with the part that was moved aside."""


class StageLog:
    """What one stage has logged: into `path`, and by a JVM of its own into `others`."""

    def __init__(self, path: Path, *others: Path) -> None:
        self.path = path
        # In the order of reading: the stage itself has the last word.
        self._begins = dict.fromkeys((*others, path), 0)

    def begin(self) -> None:
        """Leave out what was logged until now, by earlier processes."""
        self._begins = {path: _size(path) for path in self._begins}

    def trim(self) -> None:
        """Move what is logged aside, as `….log.1`, once it has more than LOG_MAX_BYTES.

        The process goes on at the beginning of the emptied file, because it appends. What it writes between the copy
        and the emptying is lost.
        """
        for path in self._begins:
            if _size(path) > LOG_MAX_BYTES:
                with suppress(OSError):
                    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
                    os.truncate(path, 0)
                    self._begins[path] = 0

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
