"""Long polling: `GET /clients/{id}/windows?after=<epoch>:<window>`.

The answer is `{"events": [{"id", "event", "data"}, …], "after": "<id>"}`: as soon as there is an event, or after WAIT_S
without any. `after` is what to ask with the next time, in either case: what comes between two polls is not missed.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import web

from pipeline.messages import encode
from pipeline.subscriber.admission import Admission, cors_headers
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.frames import Wire

WAIT_S = 25.0
EVENTS_MAX = 100


class Answer:
    """The sink of one poll: keeps events until it is answered."""

    def __init__(self) -> None:
        self.events: list[Wire] = []
        self.stream: Stream | None = None

    def write(self, data: Wire) -> None:
        """Keep an event, and have the poll answered."""
        if data.message:
            self.events.append(data)
            if self.stream is not None:
                self.stream.wake()

    def is_full(self) -> bool:
        """Whether the answer holds all it may."""
        return len(self.events) >= EVENTS_MAX

    def abort(self) -> None:
        """Nothing to cut: the answer goes out as it is."""

    def stuck_s(self, now_s: float) -> float:
        """Nothing waits here."""
        return 0.0


async def poll(request: web.Request, fanout: Fanout, admission: Admission) -> web.StreamResponse:
    """Answer with what came after `after`, or with what comes next. Raises Refusal."""
    client_id = await admission.authenticate(request)
    after = request.query.get("after", "")
    position, first = await admission.resume(after, "after")
    answer = Answer()
    one = answer.stream = Stream(client_id, answer, "poll")
    if first is not None:
        answer.write(first)
    if admission.is_registered(client_id):
        fanout.join(one, position)
        try:
            if not answer.events and one.ended is None:
                with suppress(TimeoutError):
                    async with asyncio.timeout(WAIT_S):
                        await one.disturbed()
        finally:
            fanout.leave(one)
    # Where it began, not what is newest by now: a window that came after its end would be named and not given.
    begun = after if first is None else first.event_id
    newest = answer.events[-1].event_id if answer.events else begun
    listed = b",".join(event.message for event in answer.events)
    return web.Response(
        body=b'{"events":[%b],"after":%b}' % (listed, encode(newest)),
        content_type="application/json",
        headers={"Cache-Control": "no-store", **cors_headers(request)},
    )
