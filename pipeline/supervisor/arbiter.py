"""Circus's arbiter, extended: it stops a chain's processes in order, and adds and removes some while it runs."""

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
    """Keeps the processes of `plan` running; `watcher_of` makes the watcher of each stage."""

    def __init__(self, plan: Sequence[Stage], watcher_of: Callable[[Stage], Watcher], **options: Any) -> None:
        self.plan = list(plan)
        self._watcher_of = watcher_of
        self._scaling = False
        super().__init__([watcher_of(stage) for stage in plan], **options)

    @gen.coroutine
    def _stop_watchers(self, close_output_streams: bool = False, watcher_iter_func: Any = None) -> Any:
        """Stop watchers of a lower priority before those of a higher one."""
        # Otherwise it would look for stages to restart twice a second, and log each time that it may not.
        self.ctrl.caller.stop()
        for _, group in groupby(self.iter_watchers(reverse=False), key=lambda watcher: watcher.priority):
            yield gen.multi([watcher._stop(close_output_streams) for watcher in group])

    def scale(self, cluster: str, subscribers: int) -> Any:
        """Set the number of `cluster`'s subscribers; the future has the names of the stages started and stopped.

        Raises MessageError, which circus answers with, while the chain is being stopped or scaled.
        """
        if self._stopping or self._scaling:
            raise MessageError("the chain is being stopped or scaled already: try again later")
        start, stop = scaled(self.plan, cluster, subscribers)
        taken = [stage.name for stage in start if stage.name.lower() in self._watchers_names]
        if taken:
            raise MessageError(
                f"cluster {cluster!r} differs only in letter case from a running one ({taken[0]}): choose another name"
            )
        self._scaling = True
        return self._scale(start, stop)

    @gen.coroutine
    def _scale(self, start: list[Stage], stop: list[Stage]) -> Any:
        # Circus's own commands lock the arbiter, so that no dead stage would be restarted while another one stops.
        try:
            for stage in start:
                watcher = self._watcher_of(stage)
                watcher.initialize(self.evpub_socket, self.sockets, self)
                self.watchers.append(watcher)
                self._watchers_names[stage.name.lower()] = watcher
                self.plan.append(stage)
                yield watcher._start()
            # Subscribers stop before their publisher: until they end, their clients get windows.
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
    """Set the number of a cluster's subscribers."""

    name = "scale"
    properties = ("cluster", "subscribers")

    def execute(self, arbiter: ChainArbiter, props: dict[str, Any]) -> Any:
        """Carry out the message inside the supervisor."""
        return arbiter.scale(props["cluster"], props["subscribers"])
