"""A limit on the CPU of the whole chain, for the demand: the least cores that carry a given load."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import psutil

from pipeline.errors import EmoStreamError

END_S = 10.0


class Quota:
    """Lets the process `pid` and all below it use `cores` cores together while it is entered; 0 sets no limit.

    `about` then says what was done, for the manifest; it is empty without a limit.
    """

    def __init__(self, cores: float, pid: int) -> None:
        self.about: dict[str, Any] = {}
        self._cores, self._pid = cores, pid
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Quota:
        """Limit the processes that there are. Raises EmoStreamError if there is none."""
        if self._cores:
            try:
                top = psutil.Process(self._pid)
                pids = [top.pid, *(child.pid for child in top.children(recursive=True))]
            except psutil.Error as error:
                raise EmoStreamError(f"the chain cannot be limited to chain_cores: {error}") from error
            self._process = subprocess.Popen(
                [sys.executable, "-m", "experiments.machine.quota", str(self._cores), *map(str, pids)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        return self

    def __exit__(self, *_ended: object) -> None:
        if self._process is None:
            return
        self._process.terminate()
        output, _ = self._process.communicate(timeout=END_S)
        try:
            self.about = {"cores": self._cores, **json.loads(output)}
        except ValueError:
            raise EmoStreamError("the limit chain_cores did not last until the end of the run: run again") from None
