"""One live session: a chain, a load that can be changed, and one screen, in a thread of its own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp

from experiments.explore.live_load import LiveLoad, user_names
from experiments.explore.seen_windows import Ledger, Seen, seen
from experiments.explore.state import KEPT, State
from experiments.machine import machine_lock
from experiments.parameters import Parameters
from experiments.run import chain
from experiments.run.audience import CONNECT_S, Screen, joined, listen
from experiments.run.chain import Endpoints
from pipeline.bus.base import Reader
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.client.client import Client
from pipeline.errors import EmoStreamError, SettingError
from pipeline.messages import decode_window

DRAIN_TRIGGERS = 5
POLL_S = 0.05
# A chain's first micro-batch takes up to ten seconds.
SILENCE_S = 30.0
# The seed of emoji and times; a session is not repeatable, because a person changes the rate.
SEED = 1


class Session:
    """A chain, its load and its screen; `start` and `stop` may alternate.

    It checks its parameters at once. `attach` is the ready file of a chain that is up; without one a chain is started
    below `run_dir` (empty: a temporary directory), which ends with the session or with this process. It holds the lock
    of measurements: it does not run beside one on this machine.
    """

    def __init__(
        self, *, users: int, rate_per_s: float, trigger_s: float, policy: str, attach: str = "", run_dir: str = ""
    ) -> None:
        self._parameters = Parameters(
            users=users,
            rate_per_s=rate_per_s,
            trigger_s=trigger_s,
            policy=policy,
            attach=attach,
            # Enough for one screen.
            clusters=1,
            subscribers=1,
            ingest_workers=1,
        )
        self._run_dir = run_dir
        self._rate_per_s = self._parameters.rate_per_s
        self._load: LiveLoad | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._state = State(rate_per_s=self._rate_per_s, parameters=self._parameters)
        self._windows: deque[Seen] = deque(maxlen=KEPT)

    @property
    def state(self) -> State:
        """The current state."""
        load, state = self._load, self._state
        if load is None:
            return replace(state, rate_per_s=self._rate_per_s)
        return replace(
            state,
            rate_per_s=self._rate_per_s,
            bursting=load.bursting and state.phase == "running",
            sent=load.sent,
            accepted=load.accepted,
            refused=load.refused,
        )

    def set_rate(self, rate_per_s: float) -> None:
        """Change the rate from the next tick on. Raises SettingError unless it is above 0."""
        self._rate_per_s = replace(self._parameters, rate_per_s=rate_per_s).rate_per_s
        if self._load is not None:
            self._load.rate_per_s = self._rate_per_s

    def burst(self) -> None:
        """Start a burst; does nothing while no load runs."""
        if self._load is not None:
            self._load.burst()

    def start(self) -> None:
        """Start over; return at once. Does nothing while it runs."""
        if not self._state.over:
            return
        self._stop = threading.Event()
        self._windows.clear()
        self._load = None
        self._state = State("starting", parameters=self._parameters)
        self._thread = threading.Thread(target=self._run, name="explore", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the load, wait for the last windows, stop the chain; return at once."""
        self._stop.set()

    def join(self) -> None:
        """Wait until everything has ended."""
        if self._thread is not None:
            self._thread.join()

    def watch(self, watch_s: float) -> State:
        """Start, let the load run for `watch_s` seconds, stop, and return how it ended (see `end_after`)."""
        self.start()
        return self.end_after(watch_s)

    def follow(self, windows: int) -> Iterator[State]:
        """Start, yield the state whenever it changed, and stop once this many windows have arrived.

        The last state says how it ended. Raises EmoStreamError with the reason if it failed, or if no window arrived
        for SILENCE_S and five triggers. Whatever happens, nothing runs afterwards.
        """
        if windows < 1:
            raise SettingError(f"windows is {windows}: give 1 or more")
        self.start()
        seen: tuple[str, int] | None = None
        deadline_s = float("inf")
        try:
            while not (state := self.state).over:
                if state.arrived >= windows:
                    self.stop()
                if seen != (state.phase, state.arrived):
                    seen = state.phase, state.arrived
                    if state.phase == "running":
                        deadline_s = time.monotonic() + SILENCE_S + DRAIN_TRIGGERS * state.parameters.trigger_s
                    yield state
                if state.phase == "running" and time.monotonic() > deadline_s:
                    raise EmoStreamError(
                        f"{state.arrived} of {windows} windows arrived, and no further one within {SILENCE_S:g} s and "
                        f"{DRAIN_TRIGGERS} triggers: see the log of the chain's Spark"
                    )
                time.sleep(POLL_S)
        finally:
            self.stop()
            self.join()
        yield self._ended()

    def end_after(self, watch_s: float) -> State:
        """Let the load run for `watch_s` seconds from its start, stop, and return how it ended.

        Raises EmoStreamError with the reason if it failed. Whatever happens, nothing runs afterwards.
        """
        try:
            while self._state.phase == "starting":
                time.sleep(POLL_S)
            deadline_s = time.monotonic() + watch_s
            while self._state.phase == "running" and time.monotonic() < deadline_s:
                time.sleep(POLL_S)
        finally:
            self.stop()
            self.join()
        return self._ended()

    def _ended(self) -> State:
        """Return how it ended; raise EmoStreamError with the reason if it failed."""
        if self._state.error:
            raise EmoStreamError(self._state.error)
        return self.state

    def _run(self) -> None:
        try:
            with ExitStack() as stack:
                stack.enter_context(machine_lock.alone("A notebook's live session"))
                endpoints = stack.enter_context(self._chain())
                given = endpoints.parameters(self._parameters)
                self._state = replace(self._state, parameters=given)
                bus = stack.enter_context(closing(KafkaBus(endpoints.bootstrap_servers)))
                events = topics(chain.settings_of(endpoints)).events.name
                reader = stack.enter_context(closing(bus.reader(events, bus.ends(events))))
                asyncio.run(self._explore(endpoints, reader))
            self._state = replace(self._state, phase="ended")
        # Any error has to reach the person at the notebook.
        except Exception as error:
            error_text = str(error) if isinstance(error, EmoStreamError) else f"{type(error).__name__}: {error}"
            self._state = replace(self._state, phase="failed", error=error_text)

    @contextmanager
    def _chain(self) -> Iterator[Endpoints]:
        if self._parameters.attach:
            yield chain.attached(Path(self._parameters.attach))
            return
        directory = Path(self._run_dir or tempfile.mkdtemp(prefix="emostream-explore-"))
        with chain.started(self._parameters.of_chain(), directory / "chain") as endpoints:
            yield endpoints
        # After an error its logs are kept.
        if not self._run_dir:
            shutil.rmtree(directory, ignore_errors=True)

    async def _explore(self, endpoints: Endpoints, reader: Reader) -> None:
        """Open the screen, send until `stop`, and take every window until all reactions are counted."""
        name = f"look-{uuid.uuid4().hex[:8]}"
        load = LiveLoad(user_names(self._parameters.users, name), self._rate_per_s, SEED)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        async with aiohttp.ClientSession(timeout=timeout) as http, Client.register(endpoints.registry) as client:
            screen = Screen(client)
            listening = asyncio.create_task(listen(screen))
            ending = asyncio.Event()
            sending: asyncio.Task[None] | None = None
            try:
                await joined([screen], [listening])
                self._load = load
                self._state = replace(self._state, phase="running")
                sending = asyncio.create_task(load.run(http, endpoints.ingest, ending))
                await self._take(screen, listening, sending, Ledger(name), reader, ending)
            finally:
                for task in (listening, sending):
                    if task is not None:
                        task.cancel()
                await asyncio.gather(*filter(None, (listening, sending)), return_exceptions=True)

    async def _take(
        self,
        screen: Screen,
        listening: asyncio.Task[None],
        sending: asyncio.Task[None],
        ledger: Ledger,
        reader: Reader,
        ending: asyncio.Event,
    ) -> None:
        patience_s = DRAIN_TRIGGERS * self._state.parameters.trigger_s
        deadline_s = float("inf")
        while time.monotonic() < deadline_s:
            if self._stop.is_set() and not ending.is_set():
                ending.set()
                self._state = replace(self._state, phase="draining")
                deadline_s = time.monotonic() + patience_s
            if sending.done():
                sending.result()
                if self.state.counted >= self.state.accepted:
                    return
            if listening.done():
                listening.result()
                raise EmoStreamError("the stream of windows ended: see the logs of the chain's subscriber")
            while screen.received:
                received_ns, _, data = screen.received.pop(0)
                window = await seen(ledger, reader, decode_window(data.encode()), received_ns)
                self._windows.append(window)
                self._state = replace(
                    self._state,
                    counted=self._state.counted + len(window.latencies_s),
                    arrived=self._state.arrived + 1,
                    windows=tuple(self._windows),
                )
            await asyncio.sleep(POLL_S)
