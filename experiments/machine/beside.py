"""A process beside a run that acts on other processes until it is ended, and then says what it did, as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from pipeline.errors import EmoStreamError

END_S = 10.0


class Beside:
    """`python -m experiments.machine.<name>` with these arguments, until `end`."""

    def __init__(self, name: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"experiments.machine.{name}", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def ask(self) -> None:
        """Ask it to end, without waiting."""
        self._process.terminate()

    def end(self) -> dict[str, Any]:
        """End it and return what it did. Raises EmoStreamError with its last words if it did not say."""
        self._process.terminate()
        try:
            output, words = self._process.communicate(timeout=END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise EmoStreamError(f"it did not end within {END_S:g} s") from None
        try:
            done: dict[str, Any] = json.loads(output)
        except ValueError:
            raise EmoStreamError((words.strip().splitlines() or ["it ended without a word"])[-1]) from None
        return done
