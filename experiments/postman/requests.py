"""The requests of the collection, in the order in which they are sent, each with the answer that it must get. Pure.

The story of one fan is written out here, and so is each refusal that needs a request of its own. What every route
refuses alike (pages of other origins, handshakes of WebSockets) is made from the OpenAPI documents.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.postman.javascript import (
    Lines,
    answers,
    check,
    has_header,
    is_problem,
    keep,
    repeated,
)
from pipeline.openapi import delivery, ingest, kinds
from pipeline.openapi.page import METHODS
from pipeline.openapi.parts import STAGES
from pipeline.settings import Settings

INGEST, REGISTRY, SUBSCRIBER = "ingest", "registry", "subscriber"
JSON = {"Content-Type": "application/json"}
TOKEN = {"Authorization": "Bearer {{token}}"}
ANOTHER_TOKEN = {"Authorization": "Bearer {{other_token}}"}
ELSEWHERE = {"Origin": "https://elsewhere.example"}
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
# What an EventSource sends when it reconnects.
RECONNECT = {"Accept": "text/event-stream", "Last-Event-ID": "{{after}}"}
STREAMS = ("stream", "socket", "windows")
CLIENT = "/clients/{client_id}"
SENT_BY_STORY = 6
TURNS_MAX = 10


@dataclass(frozen=True)
class Request:
    """One request, and the status (and kind of problem) that answers it.

    `kind` is the last part of the problem's `type`, empty for `about:blank`. `path` is as in the OpenAPI document;
    `values` replaces its parameters, by default with the variables of these names. `query` is written out. `before` and
    `tests` are lines of JavaScript; the test of the status, and that of the problem document, are added to `tests`.
    With `until` the request is sent again, `TURNS_MAX` times at most, until that expression holds: `each_turn` runs at
    every turn, the tests after the last. A redirect is followed unless `follow` is False.
    """

    name: str
    stage: str
    method: str
    path: str
    status: int
    kind: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    before: Lines = ()
    tests: Lines = ()
    each_turn: Lines = ()
    until: str = ""
    follow: bool = True
    about: str = ""

    @property
    def all_tests(self) -> Lines:
        """The lines of its tests, that of the status first."""
        problem = is_problem(self.kind) if self.status >= 400 else ()
        tests = (*answers(self.status), *problem, *self.tests)
        return (*self.each_turn, *(repeated(self.until, TURNS_MAX, tests) if self.until else tests))


def folders() -> dict[str, list[Request]]:
    """Return the requests by folder, in order."""
    return {
        "1. A fan registers, reacts, and sees the count come back": list(_story()),
        "2. Reactions that ingest refuses": list(_reactions()),
        "3. Registrations that the registry refuses": list(_registrations()),
        "4. A client's routes refuse strangers": list(_strangers()),
        "5. A subscriber refuses": list(_subscriber()),
        "6. The fan leaves, and is refused from then on": list(_leaving()),
        "7. Health, metrics, documents": list(_operating()),
        "8. The page": list(_page()),
        "9. Pages of other origins": list(_origins()),
        "10. Handshakes of WebSockets at other paths": list(_handshakes()),
        "11. Unknown paths and methods": list(_every_path()),
    }


def _reaction(**changes: Any) -> dict[str, Any]:
    return {"user_id": "postman", "emoji_type": "😂", "timestamp": "2026-11-23T21:00:00Z", **changes}


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _story() -> Iterator[Request]:
    yield Request(
        "Register a client that polls", REGISTRY, "POST", "/clients", 201,
        headers=JSON, body=_text({"transport": "poll"}),
        before=(
            "// A flag that hardly anyone sends, so that the count is ours.",
            'const codes = "ACADAGAIAOAQASAWAXBBBFBIBJBLBMBNBQBSBTBVBWBZCCCFCKCPCVCXDGDJDMEAFKFMFOGAGDGGGLGMGPGQGS"',
            "    .match(/../g);",
            "const code = codes[Math.floor(Math.random() * codes.length)];",
            "const flag = String.fromCodePoint(...[...code].map((letter) => 0x1f1a5 + letter.charCodeAt(0)));",
            *keep("emoji", "flag"), *keep("user", "`postman-${Date.now()}`"), *keep("seen", "0"),
            'pm.collectionVariables.unset("turn");',
        ),
        tests=(
            "const client = pm.response.json();",
            *check(
                "the client has an id, a token and the address of its stream",
                "pm.expect(client.transport).to.eql('poll');",
                "pm.expect(client.live).to.eql(true);",
                "pm.expect(client.token).to.be.a('string').that.is.not.empty;",
                "pm.expect(client.stream_url).to.match(new RegExp(`/clients/${client.client_id}/windows$`));",
                "pm.expect(client.tickets_url).to.match(new RegExp(`/clients/${client.client_id}/tickets$`));",
                "pm.expect(pm.response.headers.get('Location')).to.match(new RegExp(`/clients/${client.client_id}$`));",
            ),
            *check(
                "the token is in a cookie for this client's path only",
                "const cookie = pm.response.headers.get('Set-Cookie');",
                "pm.expect(cookie).to.include(client.token).and.to.include(`Path=/clients/${client.client_id}`);",
                "pm.expect(cookie).to.include('HttpOnly').and.to.include('SameSite=Strict');",
            ),
            *keep("client_id", "client.client_id"), *keep("token", "client.token"),
            *keep("after", "client.last_event_id"),
        ),
        about="Everything after this uses the id and the token of the answer.",
    )  # fmt: skip
    yield Request(
        "Register another client, whose token opens nothing of the first", REGISTRY, "POST", "/clients", 201,
        tests=(*keep("other_id", "pm.response.json().client_id"), *keep("other_token", "pm.response.json().token")),
        about="Without a body: the registry picks the cluster, and the transport is server-sent events.",
    )  # fmt: skip
    yield Request(
        "Show the client", REGISTRY, "GET", CLIENT, 200,
        tests=check(
            "it is live, and its token is not shown",
            "const client = pm.response.json();",
            "pm.expect(client.client_id).to.eql(pm.collectionVariables.get('client_id'));",
            "pm.expect(client.live).to.eql(true);",
            "pm.expect(client).not.to.have.property('token');",
        ),
    )  # fmt: skip
    yield Request(
        "List clients", REGISTRY, "GET", "/clients", 200, query="limit=1",
        tests=check(
            "one page of all",
            "const page = pm.response.json();",
            "pm.expect(page.count).to.be.at.least(2);",
            "pm.expect(page.clients).to.have.lengthOf(1);",
            "pm.expect(page.clients[0]).not.to.have.property('token');",
        ),
    )  # fmt: skip
    yield Request(
        "Ask where the stream is", REGISTRY, "GET", f"{CLIENT}/windows", 307, query="after={{after}}", headers=TOKEN,
        follow=False,
        tests=check(
            "the redirect leads to a subscriber, with a ticket",
            "pm.expect(pm.response.headers.get('Location')).to.match(/\\/windows\\?after=.*&ticket=/);",
        ),
        about="Postman shows the redirect here. The next requests follow it.",
    )  # fmt: skip
    yield Request(
        "Get a ticket", REGISTRY, "POST", f"{CLIENT}/tickets", 201, query="after={{after}}", headers=TOKEN,
        tests=(
            "const ticket = pm.response.json();",
            *check(
                "an address at a subscriber, for ten seconds",
                "pm.expect(ticket.expires_s).to.eql(10);",
                "pm.expect(ticket.url).to.match(/^http.*\\/windows\\?after=.*&ticket=/);",
            ),
            *keep("subscriber", "ticket.url.split('/clients/')[0]"), *keep("ticket", "ticket.url.split('ticket=')[1]"),
        ),
    )  # fmt: skip
    yield Request(
        "React once", INGEST, "POST", "/reactions", 202, headers=JSON,
        body='{"user_id": "{{user}}", "emoji_type": "{{emoji}}", "timestamp": "{{$isoTimestamp}}"}',
        tests=check("one was accepted", "pm.expect(pm.response.json()).to.eql({ accepted: 1 });"),
    )  # fmt: skip
    yield Request(
        "React five times, as other programs write it", INGEST, "POST", "/reactions", 202, headers=JSON,
        body=(
            '[\n  {"user_id": 7, "emoji_type": "{{emoji}}", "timestamp": {{$timestamp}}},\n'
            '  {"user_id": "7", "emoji_type": " {{emoji}}", "timestamp": "{{$timestamp}}000"},\n'
            '  {"user_id": "{{user}}", "emoji_type": "{{emoji}}\\ufe0f", "timestamp": "2026-11-23 22:00:00.250+01"},\n'
            '  {"user_id": "{{user}}", "emoji_type": "{{emoji}}", "timestamp": "2026-11-23T21:00:00.123456"},\n'
            '  {"user_id": "{{user}}", "emoji_type": "{{emoji}}", "timestamp": "20261123T210000Z", "more": true}\n]'
        ),
        tests=check("all were accepted", "pm.expect(pm.response.json()).to.eql({ accepted: 5 });"),
        about="Numbers of users, seconds and milliseconds since 1970, times with an offset and without a zone, and "
        "fields that ingest does not know.",
    )  # fmt: skip
    yield Request(
        "Poll until the count is back", REGISTRY, "GET", f"{CLIENT}/windows", 200, query="after={{after}}",
        headers=TOKEN,
        each_turn=(
            "const poll = pm.response.json();",
            'let seen = Number(pm.collectionVariables.get("seen"));',
            'for (const event of poll.events.filter(({ event }) => event === "window"))',
            "    for (const cell of event.data.reactions)",
            '        if (cell.emoji_type === pm.collectionVariables.get("emoji")) seen += cell.count;',
            *keep("seen", "seen"), *keep("after", "poll.after"),
        ),
        until=f"seen >= {SENT_BY_STORY}",
        tests=(
            *check("every reaction is counted, once", f"pm.expect(seen).to.eql({SENT_BY_STORY});"),
            *check("the next poll resumes after the newest window", "pm.expect(poll.after).to.match(/^.+:\\d+$/);"),
        ),
        about="The registry redirects to the subscriber, which answers as soon as there is a window, or after 25 s "
        "without one. A window comes every six seconds unless `trigger_s` says otherwise. The collection runner "
        f"repeats this request until all {SENT_BY_STORY} reactions are counted.",
    )  # fmt: skip


def _reactions() -> Iterator[Request]:
    def refused(name: str, kind: kinds.Kind, body: str, **more: Any) -> Request:
        given = {"headers": JSON, **more}
        return Request(name, INGEST, "POST", "/reactions", kind.status, kind.slug, body=body, **given)

    def wrong(name: str, fields: list[tuple[int, str]], body: object) -> Request:
        named = [{"index": index, "field": field} for index, field in fields]
        return refused(
            name, kinds.NOT_A_REACTION, _text(body),
            tests=check(
                "each bad item is named",
                "const named = pm.response.json().errors.map(({ index, field }) => ({ index, field }));",
                f"pm.expect(named).to.eql({json.dumps(named)});",
            ),
        )  # fmt: skip

    yield refused("Not JSON", kinds.NOT_JSON, '{"user_id": ')
    yield wrong("A missing field", [(0, "timestamp")], {"user_id": "postman", "emoji_type": "😂"})
    yield wrong("A name in place of an emoji", [(0, "emoji_type")], _reaction(emoji_type="party-popper"))
    yield wrong("A date without a time", [(0, "timestamp")], _reaction(timestamp="2026-11-23"))
    yield wrong("A user that is no text", [(0, "user_id")], _reaction(user_id=None))
    yield wrong(
        "Two bad items among three", [(0, "user_id"), (2, "")], [_reaction(user_id=""), _reaction(), "😂"]
    )  # fmt: skip
    yield refused(
        "Not application/json", kinds.NOT_APPLICATION_JSON, _text(_reaction()), headers={"Content-Type": "text/plain"}
    )
    yield refused(
        "A form", kinds.NOT_APPLICATION_JSON, "user_id=postman&emoji_type=%F0%9F%98%82",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )  # fmt: skip
    yield refused(
        "A compressed body", kinds.COMPRESSED_BODY, "not what a decoder reads",
        headers={**JSON, "Content-Encoding": "gzip"}, tests=has_header("Accept-Encoding", "identity"),
    )  # fmt: skip
    many = "Array.from({ length: %d }, (_, number) => ({ user_id: %s, emoji_type: '😂', timestamp: 1795474536 }))"
    yield refused(
        "More than a thousand in one array", kinds.ARRAY_TOO_LONG, "{{body}}",
        before=keep("body", f"JSON.stringify({many % (1001, '`postman-${number}`')})"),
    )  # fmt: skip
    yield refused(
        "More of one user than a second allows", kinds.TOO_MANY_OF_ONE_USER, "{{body}}",
        before=keep("body", f"JSON.stringify({many % (51, repr('postman'))})"),
    )  # fmt: skip
    yield refused(
        "More than 256 KiB", kinds.BODY_TOO_LARGE, "{{body}}", before=keep("body", "'x'.repeat(262145)"),
    )  # fmt: skip
    yield Request(
        "One user, faster than the limit", INGEST, "POST", "/reactions", 429, kinds.TOO_MANY_REACTIONS.slug,
        headers=JSON, body="{{body}}",
        before=keep("body", f"JSON.stringify({many % (50, '`hasty-${pm.collectionVariables.get(`user`)}`')})"),
        until="pm.response.code === 429", tests=(*has_header("Retry-After"), *keep("body", "''")),
        about="Each turn sends all that one user may send in a second. Each of ingest's workers keeps a count of its "
        "own, so that it may take a turn for each worker until one refuses. The collection runner repeats the request.",
    )  # fmt: skip


def _registrations() -> Iterator[Request]:
    def refused(name: str, kind: kinds.Kind, body: str, **more: Any) -> Request:
        given = {"headers": JSON, **more}
        return Request(name, REGISTRY, "POST", "/clients", kind.status, kind.slug, body=body, **given)

    yield refused("Not JSON", kinds.MALFORMED_JSON, "{")
    yield refused("A field that there is not", kinds.UNUSABLE_REGISTRATION, _text({"client_id": "me"}))
    yield refused("A transport that there is not", kinds.UNUSABLE_REGISTRATION, _text({"transport": "telegraph"}))
    yield refused("A query", kinds.UNUSABLE_REGISTRATION, "", query="transport=poll", headers={})
    yield refused("Not application/json", kinds.NOT_APPLICATION_JSON, "{}", headers={"Content-Type": "text/plain"})
    yield refused("More than 4 KiB", kinds.BODY_TOO_LARGE, "{{body}}", before=keep("body", "'x'.repeat(5000)"))
    yield refused(
        "A cluster without a subscriber", kinds.NO_LIVE_SUBSCRIBER, _text({"cluster": "nowhere"}),
        tests=has_header("Retry-After"),
    )  # fmt: skip
    yield Request(
        "A limit that is no number", REGISTRY, "GET", "/clients", 422, kinds.UNUSABLE_LIMIT.slug, query="limit=all"
    )


def _strangers() -> Iterator[Request]:
    nobody = {"client_id": "nobody"}
    yield Request("Show a client that there is not", REGISTRY, "GET", CLIENT, 404, "no-such-client", values=nobody)
    for method, path in (
        ("DELETE", CLIENT),
        ("POST", f"{CLIENT}/tickets"),
        *(("GET", f"{CLIENT}/{transport}") for transport in STREAMS),
    ):
        common: dict[str, Any] = {"follow": False}
        what = f"{method} {path.removeprefix('/clients/')}"
        yield Request(
            f"{what} without a token", REGISTRY, method, path, 401, kinds.TOKEN_MISSING.slug, **common,
            tests=has_header("WWW-Authenticate", "Bearer"), headers={"Authorization": "Basic me"},
        )  # fmt: skip
        yield Request(
            f"{what} with another client's token", REGISTRY, method, path, 403, kinds.WRONG_TOKEN.slug, **common,
            headers=ANOTHER_TOKEN,
        )  # fmt: skip
        yield Request(
            f"{what} of a client that there is not", REGISTRY, method, path, 404, kinds.NO_SUCH_CLIENT.slug, **common,
            headers=TOKEN, values=nobody,
        )  # fmt: skip
    for transport in ("stream", "socket"):
        yield Request(
            f"Ask where the {transport} is", REGISTRY, "GET", f"{CLIENT}/{transport}", 307, headers=TOKEN, follow=False,
            tests=has_header("Location"),
        )  # fmt: skip
    yield Request(
        "Ask where the socket is, with a handshake", REGISTRY, "GET", f"{CLIENT}/socket", 307, follow=False,
        headers={**TOKEN, **HANDSHAKE},
        tests=check("without a scheme", "pm.expect(pm.response.headers.get('Location')).to.match(/^\\/\\//);"),
    )  # fmt: skip


def _stream(transport: str) -> Iterator[Request]:
    """Yield what a subscriber refuses at one of its streams."""
    upgrade = HANDSHAKE if transport == "socket" else {}
    own = {**TOKEN, **upgrade}

    def refused(what: str, kind: kinds.Kind, **more: Any) -> Request:
        given = {"headers": upgrade, **more}
        name, path = f"{transport}: {what}", f"{CLIENT}/{transport}"
        return Request(name, SUBSCRIBER, "GET", path, kind.status, kind.slug, **given)

    def resumed(last: str) -> dict[str, Any]:
        if transport == "stream":
            return {"headers": {**own, "Last-Event-ID": last}}
        return {"headers": own, "query": f"after={last}"}

    yield refused("an id that is malformed", kinds.MALFORMED_EVENT_ID, **resumed("yesterday"))
    yield refused("an id of the future", kinds.UNKNOWN_EVENT_ID, **resumed("{{after}}000000"))
    yield refused("neither ticket nor token", kinds.TOKEN_MISSING, tests=has_header("WWW-Authenticate", "Bearer"))
    yield refused("a malformed ticket", kinds.MALFORMED_TICKET, query="ticket=me")
    yield refused("another client's token", kinds.WRONG_TOKEN, headers={**ANOTHER_TOKEN, **upgrade})
    # A client that polls is refused after it has left. Each takes two seconds: a registration may be under way.
    if transport != "windows":
        nobody = {"client_id": "nobody"}
        yield refused("a client that there is not", kinds.NO_SUCH_CLIENT, headers=own, values=nobody)


def _subscriber() -> Iterator[Request]:
    for transport in STREAMS:
        yield from _stream(transport)
    yield Request(
        "socket: no handshake", SUBSCRIBER, "GET", f"{CLIENT}/socket", 426, kinds.WEBSOCKET_ONLY.slug, headers=TOKEN,
        tests=has_header("Upgrade", "websocket"),
    )  # fmt: skip
    yield Request(
        "Get a ticket to use twice", REGISTRY, "POST", f"{CLIENT}/tickets", 201, headers=TOKEN,
        tests=keep("ticket", "pm.response.json().url.split('ticket=')[1]"),
    )  # fmt: skip
    yield Request(
        "windows: another client's ticket", SUBSCRIBER, "GET", f"{CLIENT}/windows", 403,
        kinds.ANOTHER_CLIENTS_TICKET.slug, query="ticket={{ticket}}", values={"client_id": "{{other_id}}"},
        about="The refused ticket stays valid where it belongs.",
    )  # fmt: skip
    yield Request(
        "windows: the first use of a ticket", SUBSCRIBER, "GET", f"{CLIENT}/windows", 400,
        kinds.MALFORMED_EVENT_ID.slug, query="after=yesterday&ticket={{ticket}}",
        about="The id is malformed, so that the answer comes at once. The ticket is used all the same.",
    )  # fmt: skip
    yield Request(
        "windows: a ticket that was used before", SUBSCRIBER, "GET", f"{CLIENT}/windows", 401, kinds.TICKET_USED.slug,
        query="ticket={{ticket}}",
    )  # fmt: skip


def _leaving() -> Iterator[Request]:
    yield Request("Leave", REGISTRY, "DELETE", CLIENT, 204, headers=TOKEN)
    yield Request("Leave again", REGISTRY, "DELETE", CLIENT, 404, kinds.NO_SUCH_CLIENT.slug, headers=TOKEN)
    yield Request("Show the client that left", REGISTRY, "GET", CLIENT, 404, kinds.NO_SUCH_CLIENT.slug)
    yield Request(
        "Ask for a ticket", REGISTRY, "POST", f"{CLIENT}/tickets", 404, kinds.NO_SUCH_CLIENT.slug, headers=TOKEN
    )
    for stage in (REGISTRY, SUBSCRIBER):
        yield Request(
            f"Poll again at the {stage}", stage, "GET", f"{CLIENT}/windows", 404, kinds.NO_SUCH_CLIENT.slug,
            headers=TOKEN, query="after={{after}}", follow=False,
        )  # fmt: skip
        for transport in STREAMS:
            upgrade = HANDSHAKE if (stage, transport) == (SUBSCRIBER, "socket") else {}
            yield Request(
                f"Reconnect to the {transport} at the {stage}, as an EventSource does", stage, "GET",
                f"{CLIENT}/{transport}", 204, headers={**TOKEN, **RECONNECT, **upgrade}, follow=False,
                about="204 is the standard's sign to stop.",
            )  # fmt: skip
    yield Request(
        "The other client leaves too", REGISTRY, "DELETE", CLIENT, 204, headers=ANOTHER_TOKEN,
        values={"client_id": "{{other_id}}"},
    )  # fmt: skip


def _operating() -> Iterator[Request]:
    for stage in (INGEST, REGISTRY, SUBSCRIBER):
        begins = check("the stage names itself", f"pm.expect(pm.response.json().stage).to.match(/^{stage}/);")
        yield Request(f"Health of {stage}", stage, "GET", "/healthz", 200, tests=begins)
        yield Request(
            f"Metrics of {stage}", stage, "GET", "/metrics", 200,
            tests=check("Prometheus' text", "pm.expect(pm.response.text()).to.include('# TYPE emostream_');"),
        )  # fmt: skip
        yield Request(
            f"OpenAPI of {stage}", stage, "GET", "/openapi.json", 200,
            tests=check("OpenAPI 3.1", "pm.expect(pm.response.json().openapi).to.match(/^3\\.1/);"),
        )  # fmt: skip
        yield Request(
            f"OpenAPI of {stage} as a page", stage, "GET", "/docs", 200,
            tests=check("a page without a script", "pm.expect(pm.response.text()).not.to.include('<script');"),
        )  # fmt: skip
    yield Request(
        "Clusters and their subscribers", REGISTRY, "GET", "/clusters", 200,
        tests=check(
            "at least one subscriber is live",
            "pm.expect(pm.response.json().clusters.flatMap((one) => one.subscribers).some((one) => one.live))",
            "    .to.eql(true);",
        ),
    )  # fmt: skip
    yield Request(
        "Subscribers, for Prometheus", REGISTRY, "GET", "/targets", 200,
        tests=check("a list of targets", "pm.expect(pm.response.json()[0].targets).to.be.an('array');"),
    )  # fmt: skip
    yield Request(
        "The state of the chain", REGISTRY, "GET", "/ops/data", 200,
        tests=check("windows and alerts", "pm.expect(pm.response.json()).to.include.keys('windows', 'alerts', 'lag');"),
    )  # fmt: skip
    yield Request(
        "How many watch", REGISTRY, "GET", "/watching", 200,
        tests=check("a number", "pm.expect(pm.response.json().watching).to.be.at.least(0);"),
    )  # fmt: skip


def _page() -> Iterator[Request]:
    pages = {"/": {}, "/ops": {}, "/page/{filename}": {"filename": "main.js"}, "/page/emoji.json": {}}
    for path, values in pages.items():
        common: dict[str, Any] = {"stage": REGISTRY, "method": "GET", "path": path, "values": values}
        shown = path.replace("{filename}", "main.js")
        yield Request(
            f"{shown}", **common, status=200,
            tests=(
                *has_header("Content-Security-Policy"),
                *keep("etag", "pm.response.headers.get('ETag')"),
                'pm.test("ETag is set", () => pm.response.to.have.header("ETag"));',
            ),
        )  # fmt: skip
        yield Request(f"{shown} that has not changed", **common, status=304, headers={"If-None-Match": "{{etag}}"})
        yield Request(
            f"{shown} of another version", **common, status=412, headers={"If-Match": '"another"'}
        )  # fmt: skip
        if path != "/page/emoji.json":
            yield Request(f"the first bytes of {shown}", **common, status=206, headers={"Range": "bytes=0-9"})
            yield Request(
                f"bytes that {shown} has not", **common, status=416, headers={"Range": "bytes=99999999-"},
                tests=has_header("Content-Range"),
            )  # fmt: skip
    yield Request(
        "A file that there is not", REGISTRY, "GET", "/page/{filename}", 404, values={"filename": "nothing.js"}
    )
    yield Request(
        "The page's settings", REGISTRY, "GET", "/page/settings.json", 200,
        tests=check("the address of ingest", "pm.expect(pm.response.json().ingest_url).to.match(/^http/);"),
    )  # fmt: skip


def operations() -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Yield every operation of the OpenAPI documents: stage, method, path and the operation."""
    for document in (ingest.document(Settings()), delivery.document()):
        for path, item in document["paths"].items():
            for method in METHODS:
                for stage in item.get(method, {}).get(STAGES, ()):
                    yield stage, method.upper(), path, item[method]


def _kinds(operation: Mapping[str, Any], status: int) -> Mapping[str, Any]:
    """Return the documented kinds of problem of one status, by slug."""
    content = operation["responses"].get(str(status), {}).get("content", {})
    examples: Mapping[str, Any] = content.get("application/problem+json", {}).get("examples", {})
    return examples


def _origins() -> Iterator[Request]:
    refused = kinds.ORIGIN_NOT_ALLOWED
    for stage, method, path, operation in operations():
        if refused.slug in _kinds(operation, refused.status):
            yield Request(
                f"{method} {path} at {stage}", stage, method, path, refused.status, refused.slug, headers=ELSEWHERE,
                values={"client_id": "nobody"},
            )  # fmt: skip
    for stage, path in ((INGEST, "/reactions"), (REGISTRY, "/clients"), (SUBSCRIBER, "/clients/nobody/windows")):
        yield Request(
            f"The preflight of the registry's own page at {stage}", stage, "OPTIONS", path, 204,
            headers={"Origin": "{{registry}}", "Access-Control-Request-Method": "POST"},
            tests=(*has_header("Access-Control-Allow-Origin"), *has_header("Access-Control-Allow-Methods")),
        )  # fmt: skip


def _handshakes() -> Iterator[Request]:
    refused = kinds.NOT_A_WEBSOCKET_ROUTE
    for stage, method, path, operation in operations():
        # A subscriber takes the header for one that it may ignore, as RFC 9110 (section 7.8) permits.
        if stage != SUBSCRIBER and refused.slug in _kinds(operation, refused.status):
            yield Request(
                f"{method} {path} at {stage}", stage, method, path, refused.status, refused.slug, headers=HANDSHAKE,
                values={"client_id": "nobody", "filename": "main.js"},
            )  # fmt: skip


def _every_path() -> Iterator[Request]:
    for stage, path, method in (
        (INGEST, "/reactions", "GET"),
        (REGISTRY, "/clients", "PUT"),
        (SUBSCRIBER, "/healthz", "POST"),
    ):
        yield Request(f"A path that {stage} has not", stage, "GET", "/nowhere", 404)
        yield Request(f"{method} {path} at {stage}", stage, method, path, 405, tests=has_header("Allow"))
        yield Request(f"The head of the health of {stage}", stage, "HEAD", "/healthz", 200)
    yield Request(
        "A slash too many", INGEST, "POST", "/reactions/", 404, headers=JSON, body=_text(_reaction()),
        tests=check("the right path is named", "pm.expect(pm.response.json().detail).to.include('POST /reactions');"),
    )  # fmt: skip
