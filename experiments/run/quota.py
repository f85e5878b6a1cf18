"""A limit on the CPU of the whole chain, for the demand: the least cores that carry a given load."""

from __future__ import annotations

from typing import Any

import psutil

from experiments.machine.beside import Beside
from pipeline.errors import EmoStreamError


class Quota:
    """Lets the process `pid` and all below it use `cores` cores together while it is entered; 0 sets no limit.

    `about` then says what was done, for the manifest; it is empty without a limit.
    """

    def __init__(self, cores: float, pid: int) -> None:
        self.about: dict[str, Any] = {}
        self._cores, self._pid = cores, pid
        self._beside: Beside | None = None

    def __enter__(self) -> Quota:
        """Limit the processes that there are. Raises EmoStreamError if there is none."""
        if self._cores:
            if not psutil.pid_exists(self._pid):
                raise EmoStreamError(f"the chain cannot be limited to chain_cores: its process {self._pid} has ended")
            self._beside = Beside("quota", self._cores, self._pid)
        return self

    def __exit__(self, *_ended: object) -> None:
        if self._beside is None:
            return
        try:
            self.about = {"cores": self._cores, **self._beside.end()}
        except EmoStreamError as error:
            raise EmoStreamError(
                f"the limit chain_cores did not last until the end of the run ({error}): run again"
            ) from None
