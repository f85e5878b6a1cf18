"""A command in a terminal of its own, whose size a test sets."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.harness.paths import REPOSITORY
from tests.harness.processes import kill_family
from tests.harness.waiting import DEADLINE_S


class Terminal:
    """The terminal, and the process in it. `shown` is all that it has printed, with its control codes."""

    def __init__(self, process: subprocess.Popen[bytes], descriptor: int) -> None:
        self.process = process
        self.shown = ""
        self._descriptor = descriptor
        self._raw = b""

    def resize(self, columns: int, rows: int) -> None:
        """Give it another size; the process gets SIGWINCH."""
        _set_size(self._descriptor, columns, rows)

    def until(self, text: str) -> None:
        """Read until `text` is shown."""
        end_s = time.monotonic() + DEADLINE_S
        while text not in self.shown:
            assert time.monotonic() < end_s, f"not shown within {DEADLINE_S:g} s: {text!r}; shown: {self.shown!r}"
            assert self._read(), f"the process has ended without showing {text!r}; shown: {self.shown!r}"

    def ended(self) -> int:
        """Read until the process ends; return its exit status."""
        while self._read():
            pass
        return self.process.wait(DEADLINE_S)

    def modes(self) -> list[Any]:
        """Return the terminal's modes: whether it echoes, and so on."""
        return termios.tcgetattr(self._descriptor)

    def _read(self) -> bool:
        """Take what has arrived, if anything comes soon; return False at the end."""
        ready, _, _ = select.select([self._descriptor], [], [], 0.2)
        if not ready:
            return self.process.poll() is None
        try:
            chunk = os.read(self._descriptor, 65_536)
        except OSError:
            # Linux says so when the last process has closed its side.
            return False
        self._raw += chunk
        self.shown = self._raw.decode(errors="replace")
        return bool(chunk)


@contextmanager
def in_terminal(command: list[str], columns: int = 80, rows: int = 24, **environment: str) -> Iterator[Terminal]:
    """Run a command in a terminal of this size; at the end it is killed if it still runs."""
    ours, its = pty.openpty()
    _set_size(ours, columns, rows)
    env = {**os.environ, "TERM": "xterm-256color", **environment}
    # In a session of its own, whose terminal this is: Ctrl-C is a signal from there.
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=env, stdin=its, stdout=its, stderr=its, start_new_session=True
    ) as process:
        os.close(its)
        try:
            yield Terminal(process, ours)
        finally:
            if process.poll() is None:
                kill_family(process)
            os.close(ours)


def _set_size(descriptor: int, columns: int, rows: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
