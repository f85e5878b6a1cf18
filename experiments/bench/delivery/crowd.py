"""The crowd in a process of its own, and the benchmark's handle to it.

`python -m experiments.bench.delivery.crowd REGISTRY_URL FD` obeys requests from the pipe FD, and ends with it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import subprocess
import sys
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, Self

import uvloop

from experiments.bench.delivery.audience import Audience
from experiments.run.chain import ended
from pipeline.errors import EmoStreamError
from pipeline.file_limit import raise_file_limit

PATIENCE_S = 120.0
END_S = 10.0


class Crowd:
    """One process of clients: `ask` calls a method of its Audience and returns the result.

    `start` and `result` are the two halves of `ask`, for work in between. Leaving the context ends every client.
    """

    def __init__(self, registry: str) -> None:
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", "experiments.bench.delivery.crowd", registry, str(theirs.fileno())]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
            # The benchmark handles a Ctrl-C at the terminal; this process ends with the pipe.
            process_group=0,
        )
        theirs.close()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipe.close()
        ended(self._process, END_S)

    def start(self, method: str, *arguments: object) -> None:
        """Start `method`."""
        try:
            self._pipe.send((method, arguments))
        except OSError as error:
            raise self._gone() from error

    def has_answered(self) -> bool:
        """Whether `result` would not wait."""
        return self._pipe.poll(0)

    def result(self, patience_s: float = PATIENCE_S) -> Any:
        """Return the result of the method started. Raises EmoStreamError: the method's own, or after `patience_s`."""
        if not self._pipe.poll(patience_s):
            raise EmoStreamError(f"the crowd (process {self.pid}) did not answer within {patience_s:g} s: run it again")
        try:
            answer = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise self._gone() from error
        if isinstance(answer, EmoStreamError):
            raise answer
        return answer

    def ask(self, method: str, *arguments: object) -> Any:
        """Call `method` and return its result."""
        self.start(method, *arguments)
        return self.result()

    def _gone(self) -> EmoStreamError:
        return EmoStreamError(f"the crowd (process {self.pid}) ended: see its message above")


async def obey(pipe: Connection, registry: str) -> None:
    """Carry out the requests from `pipe`, one after the other, until its end."""
    audience = Audience(registry)
    while True:
        try:
            method, arguments = await asyncio.to_thread(pipe.recv)
        except (EOFError, OSError):
            return
        answer: object
        try:
            answer = await getattr(audience, method)(*arguments)
        except EmoStreamError as error:
            answer = error
        except OSError as error:
            answer = EmoStreamError(f"{method} failed, {error!r}: see the log of the registry at {registry}")
        try:
            pipe.send(answer)
        except OSError:
            return


def main() -> None:
    """`python -m experiments.bench.delivery.crowd`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.bench.delivery.crowd", description="Act as many SSE clients."
    )
    line.add_argument("registry", help="base URL of the registry")
    line.add_argument("pipe", type=int, help="file descriptor of the pipe to the benchmark, which starts this")
    options = line.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    # A full collection visits every client and takes some hundred milliseconds in which no event is read. Little
    # garbage is left in the minutes that this runs.
    gc.disable()
    uvloop.run(obey(Connection(options.pipe), options.registry))


if __name__ == "__main__":
    main()
