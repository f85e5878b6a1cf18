"""Long polling: `GET /clients/{id}/windows?after=<epoch>:<window>`.

The answer is `{"events": [{"id", "event", "data"}, …], "after": "<id>"}`. It comes as soon as there is an event, or
after WAIT_S without one. The next request sends `after` in either case, so that no window between two polls is missed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from pipeline.messages import encode
from pipeline.subscriber import connection
from pipeline.subscriber.admission import Admission
from pipeline.subscriber.connection import StreamConnection
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.frames import Wire

WAIT_S = 25.0
EVENTS_MAX = 100
ANSWER_MAX_BYTES = 1 << 20
"""An answer of more bytes is ended by its next event: the client asks for the rest."""


class PollAnswer:
    """The sink of one poll: keeps events until the poll is answered, and watches the answer on its way."""

    def __init__(self, connection: StreamConnection) -> None:
        self._connection = connection
        self.events: list[Wire] = []
        self.size = 0
        self.sending = False
        self.stream: Stream | None = None

    def write(self, data: Wire) -> None:
        """Keep an event, and have the poll answered."""
        if data.message:
            self.events.append(data)
            self.size += len(data.message)
            if self.stream is not None:
                self.stream.wake()

    def is_full(self) -> bool:
        """Whether the answer is on its way, or holds EVENTS_MAX events or ANSWER_MAX_BYTES."""
        return self.sending or len(self.events) >= EVENTS_MAX or self.size >= ANSWER_MAX_BYTES

    def abort(self) -> None:
        """Cut the connection if the answer is on its way; one that is not goes out without windows."""
        if self.sending:
            self._connection.abort()

    def stuck_s(self, now_s: float) -> float:
        """Return how long the client has taken nothing of its answer, seconds."""
        return self._connection.stuck_s(now_s)


async def serve_poll(request: web.Request, fanout: Fanout, admission: Admission) -> web.StreamResponse:
    """Answer with the windows after `after`, or with the next one; return once the client has taken the answer.

    Until then the poll is a stream of the fan-out, which cuts it like any other. Raises Refusal.
    """
    client_id = await admission.authenticate(request)
    after = request.query.get("after", "")
    position, first = await admission.resume(after, "after")
    peer = StreamConnection(request, connection.PLAIN)
    answer = PollAnswer(peer)
    stream = answer.stream = Stream(client_id, answer, "poll")
    if first is not None:
        answer.write(first)
    try:
        if admission.is_registered(client_id):
            fanout.join(stream, position)
            if not answer.events and stream.ended is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(WAIT_S):
                        await stream.woken()
        # The fan-out no longer watches a stream that has ended: its windows are left to the next poll.
        events = answer.events if stream.ended is None else []
        # The stream's start and not the newest id: a window that came after the stream's end is not in the answer.
        last = events[-1].event_id if events else after or (first.event_id if first is not None else "")
        response = web.Response(
            body=b'{"events":[%b],"after":%b}' % (b",".join(event.message for event in events), encode(last)),
            content_type="application/json",
            headers={"Cache-Control": "no-store"},
        )
        answer.sending, answer.events = True, []
        await peer.send(request, response)
    finally:
        fanout.leave(stream)
    return response
