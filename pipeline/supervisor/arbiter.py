"""The keeper of a chain's processes: circus's arbiter, which stops them in order and takes some in and out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from circus.arbiter import Arbiter
from circus.commands.base import Command
from circus.exc import MessageError
from circus.watcher import Watcher
from tornado import gen

from pipeline.supervisor.plan import Stage, scaled


class ChainArbiter(Arbiter):  # type: ignore[misc]
    """Keeps the processes of `plan`, each by the watcher that `watcher_of` makes of it."""

    def __init__(self, plan: Sequence[Stage], watcher_of: Callable[[Stage], Watcher], **options: Any) -> None:
        self.plan = list(plan)
        self._watcher_of = watcher_of
        self._scaling = False
        super().__init__([watcher_of(stage) for stage in plan], **options)

    @gen.coroutine
    def _stop_watchers(self, close_output_streams: bool = False, watcher_iter_func: Any = None) -> Any:
        """Stop watchers of a low priority before those of a higher one."""
        # Or it would go on looking for stages to start, and log that it may not, twice a second.
        self.ctrl.caller.stop()
        for _, group in groupby(self.iter_watchers(reverse=False), key=lambda watcher: watcher.priority):
            yield gen.multi([watcher._stop(close_output_streams) for watcher in group])

    def scale(self, cluster: str, subscribers: int) -> Any:
        """Give `cluster` so many subscribers; the future has the names of the stages started and stopped.

        Raises MessageError, which circus answers with, while another scale is under way or the chain ends.
        """
        if self._stopping or self._scaling:
            raise MessageError("the chain is being stopped or scaled already: try again when that is over")
        start, stop = scaled(self.plan, cluster, subscribers)
        taken = [stage.name for stage in start if stage.name.lower() in self._watchers_names]
        if taken:
            raise MessageError(f"cluster {cluster!r} is too like one that is there ({taken[0]}): choose another name")
        self._scaling = True
        return self._scale(start, stop)

    @gen.coroutine
    def _scale(self, start: list[Stage], stop: list[Stage]) -> Any:
        # Circus's own commands lock the arbiter: nothing that died would be started again while a stage takes its
        # time to stop.
        try:
            for stage in start:
                watcher = self._watcher_of(stage)
                watcher.initialize(self.evpub_socket, self.sockets, self)
                self.watchers.append(watcher)
                self._watchers_names[stage.name.lower()] = watcher
                self.plan.append(stage)
                yield watcher._start()
            # Subscribers first: until they have gone, their clients are given windows.
            for _, group in groupby(stop, key=lambda stage: stage.module):
                leaving = [(stage, self._watchers_names.pop(stage.name.lower())) for stage in group]
                for stage, watcher in leaving:
                    self.watchers.remove(watcher)
                    self.plan.remove(stage)
                yield gen.multi([watcher._stop() for _, watcher in leaving])
        finally:
            self._scaling = False
        return {"started": [stage.name for stage in start], "stopped": [stage.name for stage in stop]}


class Scale(Command):  # type: ignore[misc]
    """Give a cluster so many subscribers."""

    name = "scale"
    properties = ("cluster", "subscribers")

    def execute(self, arbiter: ChainArbiter, props: dict[str, Any]) -> Any:
        """Start, inside the supervisor, what the message asks for."""
        return arbiter.scale(props["cluster"], props["subscribers"])
