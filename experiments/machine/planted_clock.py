"""A wall clock that is wrong on purpose, for processes that are started with it (`wrong_clock/sitecustomize.py`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments.machine.wrong_clock import sitecustomize

FOLDER = Path(sitecustomize.__file__).parent


class PlantedClock:
    """The clock of the processes that are started `with for_children()`; `file` has to stay while any of them lives.

    It is right until it is set.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.set()

    def set(self, *, begin_ns: int = 0, rate: float = 0.0, step_ns: int = 0) -> None:
        """From the monotonic moment `begin_ns` on, be ahead by `step_ns`, and by `rate` of the time since then."""
        # In place: processes have the file mapped.
        self.file.touch()
        with self.file.open("r+b") as numbers:
            numbers.write(sitecustomize.NUMBERS.pack(begin_ns, rate, step_ns))

    @contextmanager
    def for_children(self) -> Iterator[None]:
        """Give the clock to every process that this one starts meanwhile."""
        path = os.pathsep.join(filter(None, (str(FOLDER), os.environ.get("PYTHONPATH"))))
        changes = {sitecustomize.VARIABLE: str(self.file), "PYTHONPATH": path}
        before = {name: os.environ.get(name) for name in changes}
        os.environ.update(changes)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
