"""The thread that acts at exact moments, so that a planted delay is true."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable

from experiments.machine.scheduling import go_first
from experiments.units import NS_PER_S

# It sleeps until this long before a moment and then looks at the clock without pause: a sleep ends up to a tenth of a
# millisecond late.
SPIN_NS = 250_000

Action = Callable[[], object]


class Clockwork:
    """Calls actions at their moments, one after the other, on a thread of real-time priority where that is allowed.

    An action that raises ends the clockwork: `failure` is its exception, and `on_failure` is called once.
    """

    def __init__(self, on_failure: Action) -> None:
        self.failure: BaseException | None = None
        self._on_failure = on_failure
        self._actions: list[tuple[int, int, Action]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="clockwork", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def at(self, moment_ns: int, action: Action) -> None:
        """Call `action` at `moment_ns` (epoch), or at once if that has passed; from any thread."""
        with self._changed:
            heapq.heappush(self._actions, (moment_ns, next(self._numbers), action))
            if self._actions[0][2] is action:
                self._changed.notify()

    def close(self) -> None:
        """End the thread; actions that are due later are dropped."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(5)

    def _run(self) -> None:
        go_first()
        try:
            while (due := self._next()) is not None:
                moment_ns, action = due
                while time.time_ns() < moment_ns:
                    pass
                action()
        except BaseException as error:
            self.failure = error
            self._on_failure()

    def _next(self) -> tuple[int, Action] | None:
        """Wait until shortly before the next moment; return it with its action, None at the end."""
        with self._changed:
            while not self._ended:
                if not self._actions:
                    self._changed.wait()
                    continue
                left_ns = self._actions[0][0] - SPIN_NS - time.time_ns()
                if left_ns <= 0:
                    moment_ns, _, action = heapq.heappop(self._actions)
                    return moment_ns, action
                self._changed.wait(left_ns / NS_PER_S)
            return None
