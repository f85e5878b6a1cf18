"""Circus's arbiter, extended: it stops a chain's processes in order, and adds and removes some while it runs."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

from circus.arbiter import Arbiter
from circus.commands.base import Command
from circus.exc import ConflictError, MessageError
from circus.process import DEAD_OR_ZOMBIE, UNEXISTING
from circus.watcher import Watcher
from tornado import gen

from pipeline import logs
from pipeline.supervisor.plan import Stage, scaled

log = logs.get(__name__)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)
START_POLL_S = 0.01


def is_ignored(number: signal.Signals) -> bool:
    """Return whether the chain goes on after this signal: after SIGHUP under `nohup`, which ignores it."""
    return number is signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


class StopSignals:
    """Calls `stop` with the signal's name at each of STOP_SIGNALS. Circus's own for SIGHUP restarts every stage."""

    def __init__(self, loop: asyncio.AbstractEventLoop, stop: Callable[[str], Any]) -> None:
        self._loop = loop
        parent = os.getppid()

        def on_signal(name: str) -> None:
            # lifecycle.follow_parent sends the signal then.
            stop(name if os.getppid() == parent else "its parent process has ended")

        for number in STOP_SIGNALS:
            if not is_ignored(number):
                loop.add_signal_handler(number, on_signal, number.name)

    def stop(self) -> None:
        """Ignore the signals from now on: this process ends, and a late Ctrl-C must not change how. For Circus."""
        for number in STOP_SIGNALS:
            self._loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_IGN)


class StageWatcher(Watcher):  # type: ignore[misc]
    """Watches one stage; its hook `after_reap` gets every death with the exit code."""

    may_start: Callable[[], bool]
    waits: Callable[[], bool] = staticmethod(lambda: False)
    """Whether it is too early to start it again."""

    def manage_processes(self) -> Any:
        """Restart the stage if it died."""
        # Of a process that died since Circus last asked the system, Circus would forget the exit code.
        for process in list(self.processes.values()):
            if process.status in (DEAD_OR_ZOMBIE, UNEXISTING):
                self.reap_process(process.pid)
        return super().manage_processes()

    def spawn_process(self, recovery_wid: int | None = None) -> Any:
        """Start the process if `may_start`; return False if not, after which Circus leaves the stage stopped.

        If it `waits`, the next look asks again.
        """
        # False also means that the system refused to make a process: the next look tries again.
        return self.may_start() and (self.waits() or super().spawn_process(recovery_wid) or True)


class ChainArbiter(Arbiter):  # type: ignore[misc]
    """Keeps the processes of `plan` running; `watcher_of` makes the watcher of each stage."""

    def __init__(self, plan: Sequence[Stage], watcher_of: Callable[[Stage], Watcher], **options: Any) -> None:
        self.plan = list(plan)
        self._watcher_of = watcher_of
        self._starting = False
        self._scaling = False
        self.stopping = threading.Event()
        """Set as soon as the chain begins to stop."""
        self._end: Any = None
        super().__init__([watcher_of(stage) for stage in plan], **options)
        self.ctrl.sys_hdl.stop()
        self.ctrl.sys_hdl = StopSignals(self.loop.asyncio_loop, self.stop)

    @gen.coroutine
    def start_watchers(self, watcher_iter_func: Any = None) -> Any:
        """Start every stage.

        Circus would lock the arbiter meanwhile. The look for dead stages, due twice a second, would then fail with a
        traceback, and a request to stop would be lost.
        """
        self._starting = True
        try:
            for watcher in (watcher_iter_func or self.iter_watchers)():
                if self._stopping:
                    break
                yield self.start_watcher(watcher)
        finally:
            self._starting = False

    @gen.coroutine
    def manage_watchers(self) -> Any:
        """Restart the stages that died; Circus calls this at regular intervals."""
        # A watcher whose process was reaped while it starts would give up.
        if self._starting or self._stopping:
            return
        try:
            yield super().manage_watchers()
        except ConflictError:
            log.debug("one of Circus's own commands is under way; dead stages are looked for after it")

    def stop(self, why: str = "a request to the control socket") -> Any:
        """Stop every stage in order, then the loop; the future ends with them. A further call changes nothing.

        Circus's own would be refused while stages are started or restarted.
        """
        if self._end is None:
            log.info("stopping", why=why)
            self._stopping = True
            self.stopping.set()
            self._end = self._stop_all()
        else:
            log.info("stopping already", why=why)
        return self._end

    @gen.coroutine
    def _stop_all(self) -> Any:
        while self._starting:
            yield gen.sleep(START_POLL_S)
        yield self._stop_watchers(close_output_streams=True)
        self.loop.add_callback(self.loop.stop)

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
