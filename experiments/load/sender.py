"""Send a plan, and invalid requests beside it: prepared, each written at its time on a connection that is free then.

An open loop cannot limit how many answers are outstanding, so connections are opened as they are needed, up to a bound.
When all are busy a reaction waits for the first free one, and that wait is part of its `t_sent_ns - t_intended_ns`:
nothing is dropped and nothing hidden. Waits that long make the run invalid.
"""

from __future__ import annotations

import asyncio
import math
import time
from array import array
from bisect import bisect_right
from collections import deque
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from experiments.load import forms, http1, invalid
from experiments.units import NS_PER_S
from pipeline.errors import EmoStreamError, SettingError

CONNECTIONS_MAX = 2_000
"""Connections of one process. At 2,000 reactions per second all are busy when an answer takes 1 s."""

# A longer answer counts as no answer; the chain has its own, shorter deadlines.
ANSWER_S = 30.0
# Opened before the first reaction is due, so that usually none waits for a handshake: as many as are busy when an
# answer takes ANSWER_EXPECTED_S, and up to OPEN_AT_START in any case. They take turns, so that every worker of ingest
# gets its share.
OPEN_AT_START = 100
ANSWER_EXPECTED_S = 0.25
# A connection idle for longer is not used again: the server may be about to close it.
IDLE_S = 10.0
# Reactions written before answers are read again; it bounds how far one reaction delays the next.
TOGETHER = 64
# uvloop's timers count milliseconds, and a shorter wait would be a busy one on cores that the chain needs.
TICK_S = 0.001
LOOK_S = 1.0


class Sent(NamedTuple):
    """What became of a load.

    `reactions` has `seq, t_sent_ns, t_answered_ns, status`, one row for each reaction sent, in the plan's order;
    `invalid` is the frame of the ledger, with the answers.
    """

    reactions: pd.DataFrame
    invalid: pd.DataFrame


async def send(
    plan: pd.DataFrame,
    url: str,
    connections: int = CONNECTIONS_MAX,
    stop: asyncio.Event | None = None,
    enough: asyncio.Event | None = None,
    bad: pd.DataFrame | None = None,
) -> Sent:
    """Send `plan` to `url`/reactions, and the invalid requests `bad` beside it, until its end or until `stop`.

    After `enough` nothing more becomes due, but what was sent may still be answered; after `stop` it may not.

    The reactions of one array share what became of it. `t_sent_ns` is taken right before the write. Without an answer
    within ANSWER_S, or when the connection was lost or could not be opened, status and t_answered_ns are 0. Raises
    SettingError for a malformed URL, EmoStreamError when this machine runs out of ports or the like.
    """
    bad = invalid.none() if bad is None else bad
    sender = _Sender(plan, bad, url, connections, enough or asyncio.Event())
    sending = asyncio.create_task(sender.run())
    stopping = asyncio.create_task((stop or asyncio.Event()).wait())
    await asyncio.wait((sending, stopping), return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not sending.done():
        sending.cancel()
    try:
        await sending
    except asyncio.CancelledError:
        pass
    finally:
        await sender.close()
    return sender.outcome(plan, bad)


class _Connection(http1.HttpConnection):
    def __init__(self, sender: _Sender) -> None:
        super().__init__()
        self._sender = sender
        self.index: int | None = None
        self.since_ns = 0

    def opened(self) -> None:
        self._sender.opened(self)

    def answered(self, status: int, closing: bool) -> None:
        self._sender.answered(self, status, closing)

    def lost(self) -> None:
        self._sender.lost(self)


def place_of(url: str) -> tuple[str, int, str]:
    """Return host, port and path of ingest's base URL. Raises SettingError for another form."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise SettingError(f"the URL of ingest is {url!r}: give http://host:port")
    return parts.hostname, parts.port or 80, parts.path.rstrip("/")


class _Sender:
    def __init__(
        self, plan: pd.DataFrame, bad: pd.DataFrame, url: str, connections: int, enough: asyncio.Event
    ) -> None:
        self._enough = enough
        self._host, self._port, base = place_of(url)
        planned = forms.requests(plan)
        due_ns = np.concatenate([planned.due_ns, bad["t_intended_ns"].to_numpy(dtype=np.int64)])
        order = np.argsort(due_ns, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        self._of_reaction, self._of_bad = place[planned.of_row], place[len(planned.bodies) :]
        self._due_ns = array("q", due_ns[order].tobytes())
        # An invalid request is kept whole, and has no body here.
        unordered = [*planned.bodies, *(b"" for _ in range(len(bad)))]
        self._bodies = [unordered[number] for number in order.tolist()]
        self._whole = {
            number: invalid.request(case, base) for number, case in zip(self._of_bad.tolist(), bad["case"], strict=True)
        }
        self._heads = {
            length: http1.post_head(f"{base}/reactions", length) for length in {len(body) for body in planned.bodies}
        }
        empty = bytes(8 * len(due_ns))
        self._sent_ns, self._answered_ns, self._statuses = array("q", empty), array("q", empty), array("q", empty)
        self._most = connections
        self._connections: set[_Connection] = set()
        self._idle: deque[_Connection] = deque()
        # Due but not sent yet, because no connection is free; at most the rest of the plan.
        self._waiting: deque[int] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._under_way = 0
        self._failure: Exception | None = None

    async def run(self) -> None:
        """Send each reaction at its time, and wait until every answer has arrived or timed out."""
        due_ns = self._due_ns
        length_s = (due_ns[-1] - due_ns[0]) / NS_PER_S if due_ns else 0.0
        per_s = len(due_ns) / max(length_s, 1.0)
        at_start = max(min(OPEN_AT_START, math.ceil(per_s)), math.ceil(per_s * ANSWER_EXPECTED_S))
        for _ in range(min(at_start, self._most)):
            self._open()
        looking = asyncio.create_task(self._give_up_late())
        try:
            index = 0
            while index < len(due_ns) and not self._enough.is_set():
                upto = min(bisect_right(due_ns, time.time_ns(), index), index + TOGETHER)
                for each in range(index, upto):
                    self._send(each)
                index = upto
                if self._failure:
                    raise self._failure
                if index < len(due_ns):
                    # Late reactions are sent at once; answers are read in between.
                    left_s = (due_ns[index] - time.time_ns()) / NS_PER_S
                    await asyncio.sleep(min(max(left_s, TICK_S), LOOK_S) if left_s > 0 else 0)
            while self._waiting or self._under_way:
                await asyncio.sleep(0.01)
                if self._failure:
                    raise self._failure
        finally:
            looking.cancel()

    async def close(self) -> None:
        """Abort every connection."""
        self._waiting.clear()
        tasks = list(self._opening)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def outcome(self, plan: pd.DataFrame, bad: pd.DataFrame) -> Sent:
        """Return what became of each reaction sent, and of each invalid request."""
        columns = {"t_sent_ns": self._sent_ns, "t_answered_ns": self._answered_ns, "status": self._statuses}
        seen = {name: np.frombuffer(values, dtype=np.int64) for name, values in columns.items()}
        frame = pd.DataFrame({name: values[self._of_reaction] for name, values in seen.items()})
        frame.insert(0, "seq", plan["seq"].to_numpy())
        answers = bad.assign(**{name: values[self._of_bad] for name, values in seen.items()})
        return Sent(frame[frame["t_sent_ns"] > 0].reset_index(drop=True), answers)

    def _send(self, index: int) -> None:
        connection = self._free()
        if connection is not None:
            self._write(connection, index)
        else:
            self._waiting.append(index)
            self._grow()

    def _free(self) -> _Connection | None:
        fresh_ns = time.time_ns() - round(IDLE_S * NS_PER_S)
        while self._idle:
            connection = self._idle.popleft()
            if connection.since_ns >= fresh_ns and not connection.is_closing():
                return connection
            connection.close()
        return None

    def _write(self, connection: _Connection, index: int) -> None:
        body = self._bodies[index]
        request = self._heads[len(body)] + body if body else self._whole[index]
        connection.index = index
        self._under_way += 1
        self._sent_ns[index] = time.time_ns()
        connection.write(request)

    def opened(self, connection: _Connection) -> None:
        """A connection is open, and free."""
        self._connections.add(connection)
        self._release(connection)

    def answered(self, connection: _Connection, status: int, closing: bool) -> None:
        """The answer on this connection arrived."""
        if connection.index is None:
            # An answer without a request: later answers could not be distinguished from it.
            connection.abort()
            return
        self._answered_ns[connection.index] = time.time_ns()
        self._statuses[connection.index] = status
        connection.index = None
        self._under_way -= 1
        if closing:
            connection.close()
        else:
            self._release(connection)

    def lost(self, connection: _Connection) -> None:
        """A connection is closed; a request on it gets no answer."""
        self._connections.discard(connection)
        if connection.index is not None:
            connection.index = None
            self._under_way -= 1
        elif connection in self._idle:
            self._idle.remove(connection)
        self._grow()

    def _release(self, connection: _Connection) -> None:
        if self._waiting:
            self._write(connection, self._waiting.popleft())
        else:
            connection.since_ns = time.time_ns()
            self._idle.append(connection)

    def _grow(self) -> None:
        """Open a connection for each reaction that waits, as far as the bound allows."""
        while len(self._opening) < len(self._waiting) and len(self._connections) + len(self._opening) < self._most:
            self._open()

    def _open(self) -> None:
        task = asyncio.create_task(self._connect())
        self._opening.add(task)
        task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        # An open connection takes the first waiting reaction shortly before its task is done. A reaction that began to
        # wait in between counted on this task: open another connection for it now.
        self._opening.discard(task)
        self._grow()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(ANSWER_S):
                await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except (ConnectionError, TimeoutError):
            # The server's side: the attempt counts as sent, without an answer.
            if self._waiting:
                self._sent_ns[self._waiting.popleft()] = time.time_ns()
        except OSError as error:
            self._failure = EmoStreamError(
                f"no connection to {self._host}:{self._port} ({error}), with {len(self._connections)} open: "
                "lower rate_per_s, or raise this machine's limits"
            )

    async def _give_up_late(self) -> None:
        """Abort connections whose answer takes longer than ANSWER_S."""
        while True:
            await asyncio.sleep(LOOK_S)
            late_ns = time.time_ns() - round(ANSWER_S * NS_PER_S)
            for connection in list(self._connections):
                if connection.index is not None and self._sent_ns[connection.index] < late_ns:
                    connection.abort()
