"""Long polling: `GET /clients/{id}/windows?after=<epoch>:<window>`.

The answer is `{"events": [{"id", "event", "data"}, …], "after": "<id>"}`. It comes as soon as there is an event, or
after WAIT_S without one. The next request sends `after` in either case, so that no window between two polls is missed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from pipeline.messages import encode
from pipeline.subscriber.admission import Admission
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.frames import Wire

WAIT_S = 25.0
EVENTS_MAX = 100
ANSWER_MAX_BYTES = 1 << 20
"""An answer of more bytes is ended by its next event: the client asks for the rest."""


class PollAnswer:
    """The sink of one poll: keeps events until the poll is answered."""

    def __init__(self) -> None:
        self.events: list[Wire] = []
        self.size = 0
        self.stream: Stream | None = None

    def write(self, data: Wire) -> None:
        """Keep an event, and have the poll answered."""
        if data.message:
            self.events.append(data)
            self.size += len(data.message)
            if self.stream is not None:
                self.stream.wake()

    def is_full(self) -> bool:
        """Whether the answer holds EVENTS_MAX events, or ANSWER_MAX_BYTES."""
        return len(self.events) >= EVENTS_MAX or self.size >= ANSWER_MAX_BYTES

    def abort(self) -> None:
        """Do nothing: the answer goes out as it is."""

    def stuck_s(self, now_s: float) -> float:
        """Return 0: no bytes wait here."""
        return 0.0


async def serve_poll(request: web.Request, fanout: Fanout, admission: Admission) -> web.StreamResponse:
    """Answer with the windows after `after`, or with the next one. Raises Refusal."""
    client_id = await admission.authenticate(request)
    after = request.query.get("after", "")
    position, first = await admission.resume(after, "after")
    answer = PollAnswer()
    stream = answer.stream = Stream(client_id, answer, "poll")
    if first is not None:
        answer.write(first)
    if admission.is_registered(client_id):
        fanout.join(stream, position)
        try:
            if not answer.events and stream.ended is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(WAIT_S):
                        await stream.woken()
        finally:
            fanout.leave(stream)
    # The stream's start and not the newest id: a window that came after the stream's end is not in the answer.
    start = after if first is None else first.event_id
    last = answer.events[-1].event_id if answer.events else start
    events = b",".join(event.message for event in answer.events)
    return web.Response(
        body=b'{"events":[%b],"after":%b}' % (events, encode(last)),
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )
