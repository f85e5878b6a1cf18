"""The registry over HTTP, with its topics in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pipeline.addresses import SubscriberId
from pipeline.bus.base import Writer
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.errors import KafkaUnreachableError
from pipeline.messages import Announcement, decode_registration, encode
from pipeline.origins import Origins
from pipeline.registry.app import create_app
from pipeline.registry.registrations import Registrations
from pipeline.settings import Settings
from pipeline.sse import SseParser
from pipeline.tickets import verify
from tests.harness.stages.doubles import Clock
from tests.harness.waiting import until

NAMES = topics(Settings())
URL = "http://registry"


class Chain:
    """One registry over a MemoryBus, and methods that act as its subscribers."""

    def __init__(self, bus: MemoryBus, clock: Clock, **settings: object) -> None:
        self.bus, self.clock = bus, clock
        values = Settings().replace(**settings)
        self.registrations = Registrations(bus, values, pytest.fail, clock)
        rule = Origins(values.origins, values.registry_url, values.registry_port)
        app = create_app(self.registrations, URL, rule, values.registrations_per_address_min)
        self.http: FlaskClient = app.test_client()

    def announce(
        self, cluster: str, subscriber: str, clients: int = 0, held: tuple[str, ...] = (), last: str | None = "e:1"
    ) -> None:
        """Announce a subscriber and wait until the registry has read it."""
        url = f"http://s{cluster}{subscriber}"
        announcement = Announcement(subscriber, cluster, url, clients, self.clock(), last, held)
        self.bus.writer().send(NAMES.subscribers.name, encode(announcement), f"{cluster}/{subscriber}".encode())
        until(lambda: announcement in list(self.registrations.assignments.subscribers()), "the registry has read it")

    def register(self, **body: str) -> dict[str, Any]:
        """Register a client."""
        answer = self.http.post("/clients", json=body)
        assert answer.status_code == 201, answer.text
        return answer.get_json()


@pytest.fixture
def chain() -> Iterator[Chain]:
    """A registry with one subscriber, 1/a."""
    with started_chain() as chain:
        yield chain


@contextmanager
def started_chain(**settings: object) -> Iterator[Chain]:
    """A registry with one subscriber, 1/a, and changed settings."""
    chain = Chain(MemoryBus(), Clock(), **settings)
    chain.announce("1", "a")
    try:
        yield chain
    finally:
        chain.registrations.close()


def bearer(client: dict[str, Any]) -> dict[str, str]:
    """Return the header with a client's token."""
    return {"Authorization": f"Bearer {client['token']}"}


def test_registration_returns_201_and_stores_only_the_tokens_digest(chain: Chain) -> None:
    """The answer has everything that a client needs; the topic does not contain the token."""
    client = chain.register()
    assert (client["cluster"], client["subscriber"]) == ("1", "a")
    assert client["stream_url"] == f"{URL}/clients/{client['client_id']}/stream"
    (record,) = chain.bus.tail(NAMES.clients.name, 9)
    assert record.key == client["client_id"].encode()
    stored = decode_registration(record.value)
    assert stored.token_sha256 == hashlib.sha256(client["token"].encode()).hexdigest()
    assert client["token"].encode() not in (record.value or b"")


@pytest.mark.parametrize(("newest", "shown"), [("e:7", "e:7"), (None, "earliest")])
def test_registration_names_the_event_to_resume_after(chain: Chain, newest: str | None, shown: str) -> None:
    """Its subscriber's newest window, so that a client that is cut off before its first window misses none."""
    chain.announce("1", "a", last=newest)
    assert chain.register()["last_event_id"] == shown


def test_cookie_is_http_only_and_limited_to_the_clients_path(chain: Chain) -> None:
    """HttpOnly, SameSite=Strict, and the client's own path."""
    answer = chain.http.post("/clients")
    cookie = answer.headers["Set-Cookie"]
    assert f"Path=/clients/{answer.get_json()['client_id']}" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_cluster_without_a_live_subscriber_returns_503(chain: Chain) -> None:
    """A live cluster is assigned as requested; otherwise the answer is 503 with Retry-After, never another cluster."""
    chain.announce("2", "b", 1000)
    assert chain.register(cluster="2")["cluster"] == "2"
    answer = chain.http.post("/clients", json={"cluster": "3"})
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) > 0
    detail = answer.get_json()["detail"]
    assert "'3'" in detail
    assert detail.endswith("clusters with a live subscriber: 1, 2")


@pytest.mark.parametrize(
    ("body", "kind", "status", "detail"),
    [
        (b"{", "application/json", 400, "not JSON"),
        (b"\xff", "application/json", 400, "not JSON"),
        (b"[" * 4000, "application/json", 422, "the body is not an object: send"),
        (b"[]", "application/json", 422, "the body is not an object: send"),
        (b'{"cluster": 1}', "application/json", 422, "field cluster: it is not the name of a cluster"),
        (b'{"cluster": "a/b"}', "application/json", 422, "text of 1 to 50 letters, digits, '_' or '-'"),
        (b'{"transport": "telegraph"}', "application/json", 422, "field transport: it is not the name of a transport"),
        (b'{"client_id": "me", "transport": "sse"}', "application/json", 422, "object contains unknown field"),
        (b"{}", "text/plain", 415, "Content-Type is 'text/plain'"),
        (b'"' + b"x" * 5000 + b'"', "application/json", 413, ""),
    ],
)
def test_bad_body_returns_a_problem_document(chain: Chain, body: bytes, kind: str, status: int, detail: str) -> None:
    """Each kind of bad body has its status, and no client is registered."""
    answer = chain.http.post("/clients", data=body, content_type=kind)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert answer.get_json()["status"] == status
    assert detail in answer.get_json()["detail"]
    assert len(chain.registrations.assignments) == 0


@pytest.mark.parametrize(
    ("query", "body", "name"),
    [
        ("", {"client_id": "me"}, "`client_id`"),
        ("", {"transport": "poll", "Cluster": "1"}, "`Cluster`"),
        ("?transport=poll", None, "'transport'"),
        ("?cluster=1", {"cluster": "1"}, "'cluster'"),
    ],
)
def test_unknown_field_of_a_registration_is_refused_by_name(
    chain: Chain, query: str, body: dict[str, str] | None, name: str
) -> None:
    """An ignored one would give a client other than the one that was asked for; the remedy lists what exists."""
    answer = chain.http.post(f"/clients{query}", json=body) if body else chain.http.post(f"/clients{query}")
    assert answer.status_code == 422
    detail = answer.get_json()["detail"]
    assert name in detail
    assert '"transport": "sse" | "websocket" | "poll"' in detail
    assert len(chain.registrations.assignments) == 0


def test_clients_are_listed_in_pages_without_secrets(chain: Chain) -> None:
    """GET shows the client's subscriber; `after` and `limit` page through all clients."""
    clients = [chain.register() for _ in range(3)]
    ids = sorted(client["client_id"] for client in clients)
    shown = chain.http.get(f"/clients/{ids[0]}").get_json()
    assert (shown["subscriber"], shown["live"]) == ("a", True)
    page = chain.http.get(f"/clients?limit=1&after={ids[0]}").get_json()
    assert (page["count"], [client["client_id"] for client in page["clients"]]) == (3, [ids[1]])
    assert "sha256" not in chain.http.get("/clients").text
    assert "token" not in shown
    assert chain.http.get("/clients?limit=x").status_code == 422


def test_delete_needs_the_clients_own_token(chain: Chain) -> None:
    """401 without a token, 403 with another client's, 204 with its own, then 404; a tombstone is written."""
    client, other = chain.register(), chain.register()
    path = f"/clients/{client['client_id']}"
    assert chain.http.delete(path).status_code == 401
    assert chain.http.delete(f"{path}?token={client['token']}").status_code == 401
    assert chain.http.delete(path, headers=bearer(other)).status_code == 403
    assert chain.http.delete(path, headers=bearer(client)).status_code == 204
    assert chain.http.delete(path, headers=bearer(client)).status_code == 404
    assert chain.http.get(path).status_code == 404
    last = chain.bus.tail(NAMES.clients.name, 1)[0]
    assert (last.key, last.value) == (client["client_id"].encode(), None)


def location_of(chain: Chain, answer: TestResponse, base: str, client: dict[str, Any]) -> str:
    """Return where below `base` a redirect leads, without its ticket, which is this client's at that subscriber."""
    assert answer.status_code == 307, answer.text
    location, _, ticket = answer.headers["Location"].partition("ticket=")
    assert client["token"] not in answer.headers["Location"]
    digest = hashlib.sha256(client["token"].encode()).hexdigest()
    assert verify(ticket, digest, client["client_id"], "/".join(base[-2:]), chain.clock())
    assert location.startswith(base)
    return location.removeprefix(base).rstrip("?&")


def test_stream_url_redirects_to_a_live_subscriber(chain: Chain) -> None:
    """307 to the client's subscriber; after 5 s of its silence to another one, and the move is written to Kafka."""
    client = chain.register()
    path = f"/clients/{client['client_id']}/stream"
    answer = chain.http.get(path, headers=bearer(client))
    assert location_of(chain, answer, "http://s1a", client) == path
    chain.clock.now_ns += 5_000_000_000
    assert chain.http.get(path, headers=bearer(client)).status_code == 503
    chain.announce("1", "b")
    answer = chain.http.get(path, headers=bearer(client))
    assert location_of(chain, answer, "http://s1b", client) == path
    assert answer.headers["Cache-Control"] == "no-store"
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 9)) == 2, "there are 2 registrations")
    assert decode_registration(chain.bus.tail(NAMES.clients.name, 1)[0].value).subscriber == "b"
    assert chain.http.get("/clients/nobody/stream").status_code == 404


def test_every_transport_has_its_path(chain: Chain) -> None:
    """The stream_url has the transport's path; all three paths redirect to the subscriber and keep the query."""
    for transport, path in (("sse", "stream"), ("websocket", "socket"), ("poll", "windows")):
        client = chain.register(transport=transport)
        assert client["transport"] == transport
        assert client["stream_url"].endswith(f"://registry/clients/{client['client_id']}/{path}")
        for other in ("stream", "socket", "windows"):
            target = f"/clients/{client['client_id']}/{other}?after=e:7&x=%0d%0a"
            answer = chain.http.get(target, headers=bearer(client))
            assert location_of(chain, answer, "http://s1a", client) == target
        assert chain.http.get(f"/clients/{client['client_id']}/unknown").status_code == 404
        assert chain.http.get(f"/clients/nobody/{path}").status_code == 404


HANDSHAKE = {
    "Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket", "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}  # fmt: skip


def test_websocket_handshake_is_redirected_without_a_scheme(chain: Chain) -> None:
    """`websockets` wants ws:// in a Location, and aiohttp http://; refusals are those of an ordinary request."""
    client, other = chain.register(transport="websocket"), chain.register()
    path = f"/clients/{client['client_id']}/socket?after=e:7"
    answer = chain.http.get(path, headers=HANDSHAKE | bearer(client))
    assert location_of(chain, answer, "//s1a", client) == path
    stranger = chain.http.application.test_client()
    assert stranger.get(path, headers=HANDSHAKE).status_code == 401
    assert stranger.get(path, headers=HANDSHAKE | bearer(other)).status_code == 403
    assert stranger.get("/clients/nobody/socket", headers=HANDSHAKE | bearer(client)).status_code == 404
    chain.clock.now_ns += 5_000_000_000
    assert stranger.get(path, headers=HANDSHAKE | bearer(client)).status_code == 503


@pytest.mark.parametrize("path", ["/clients/x/stream", "/clusters", "/healthz"])
def test_websocket_handshake_elsewhere_returns_400_with_the_remedy(chain: Chain, path: str) -> None:
    """Only one path serves WebSockets."""
    answer = chain.http.get(path, headers=HANDSHAKE)
    assert (answer.status_code, answer.mimetype) == (400, "application/problem+json")
    assert "register with transport websocket, and open its stream_url" in answer.get_json()["detail"]


@pytest.mark.parametrize("path", ["stream", "socket", "windows", "tickets"])
def test_way_to_a_subscriber_needs_the_clients_own_token(chain: Chain, path: str) -> None:
    """401 without a token, 403 with another client's; the cookie is as good as the header, which decides."""
    client, other = chain.register(), chain.register()
    stranger = chain.http.application.test_client(use_cookies=False)
    ask = stranger.post if path == "tickets" else stranger.get
    path = f"/clients/{client['client_id']}/{path}"
    accepted = 201 if path.endswith("tickets") else 307
    cookie = {"Cookie": f"emostream_token={client['token']}"}
    assert ask(path, headers=bearer(client)).status_code == accepted
    assert ask(path, headers=cookie).status_code == accepted
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer "}, {"Cookie": "emostream_token="}):
        answer = ask(path, headers=headers)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert "Location" not in answer.headers
    assert ask(f"{path}?token={client['token']}").status_code == 401
    for headers in (bearer(other), {"Cookie": f"emostream_token={other['token']}"}, cookie | bearer(other)):
        assert ask(path, headers=headers).status_code == 403
    assert ask(path.replace(client["client_id"], "nobody"), headers=bearer(client)).status_code == 404


@pytest.mark.parametrize(("transport", "scheme"), [("sse", "http"), ("websocket", "ws"), ("poll", "http")])
def test_ticket_comes_with_the_direct_address(chain: Chain, transport: str, scheme: str) -> None:
    """For clients that follow no redirect; the query is passed on, so that they can resume."""
    client = chain.register(transport=transport)
    path = client["stream_url"].partition("/clients/")[2]
    answer = chain.http.post(f"{client['tickets_url'].removeprefix(URL)}?after=e:7", headers=bearer(client))
    assert (answer.status_code, answer.headers["Cache-Control"]) == (201, "no-store")
    document = answer.get_json()
    url, _, ticket = document.pop("url").partition("&ticket=")
    assert document == {"subscriber": "a", "expires_s": 10}
    assert url == f"{scheme}://s1a/clients/{path}?after=e:7"
    digest = hashlib.sha256(client["token"].encode()).hexdigest()
    assert verify(ticket, digest, client["client_id"], "1/a", chain.clock())
    chain.clock.now_ns += 5_000_000_000
    assert chain.http.post(client["tickets_url"].removeprefix(URL), headers=bearer(client)).status_code == 503


EVENT_SOURCE = {"Accept": "text/event-stream"}


def test_event_source_returns_while_no_subscriber_is_live(chain: Chain) -> None:
    """It would give up at any status but 200: it gets a stream that only says when to return, and then ends."""
    client = chain.register()
    path = f"/clients/{client['client_id']}/stream"
    chain.clock.now_ns += 5_000_000_000
    answer = chain.http.get(path, headers=EVENT_SOURCE | bearer(client))
    assert (answer.status_code, answer.content_type) == (200, "text/event-stream")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text.startswith(": no subscriber has announced itself recently")
    parser = SseParser()
    assert (parser.feed(answer.data), parser.retry_ms) == ([], 2000)
    stranger = chain.http.application.test_client()
    assert stranger.get(path, headers=EVENT_SOURCE).status_code == 401


def test_event_source_of_a_deleted_client_is_stopped(chain: Chain) -> None:
    """204 with the last id, as at the subscriber; 404 without one, which stops it as well."""
    client = chain.register()
    path = f"/clients/{client['client_id']}"
    chain.http.delete(path, headers=bearer(client))
    for token in (bearer(client), {}):
        again = chain.http.get(f"{path}/stream", headers=EVENT_SOURCE | {"Last-Event-ID": "e:1"} | token)
        assert (again.status_code, again.data) == (204, b"")
        assert chain.http.get(f"{path}/stream", headers=EVENT_SOURCE | token).status_code == 404
        assert chain.http.get(f"{path}/stream", headers={"Last-Event-ID": "e:1"} | token).status_code == 404


def test_restarted_registry_has_the_same_state(chain: Chain) -> None:
    """Everything is read from the topics: transports, moves and removals."""
    kept, moved, removed = chain.register(), chain.register(transport="poll", cluster="1"), chain.register()
    chain.http.delete(f"/clients/{removed['client_id']}", headers=bearer(removed))
    chain.bus.writer().send(NAMES.subscribers.name, None, b"1/a")
    chain.announce("2", "b")
    until(lambda: chain.http.get("/healthz").get_json()["subscribers_live"] == 1, "1 subscribers are live")
    assert chain.http.get(f"/clients/{moved['client_id']}/windows").status_code == 307
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 9)) == 5, "there are 5 registrations")
    restarted = Chain(chain.bus, chain.clock)
    try:
        assert restarted.http.get("/clients").get_json() == chain.http.get("/clients").get_json()
        shown = restarted.http.get(f"/clients/{moved['client_id']}").get_json()
        assert (shown["cluster"], shown["subscriber"], shown["transport"]) == ("2", "b", "poll")
        restarted.announce("1", "a")
        assert "http://s1a/" in restarted.http.get(kept["stream_url"].removeprefix(URL), headers=bearer(kept)).location
        # It asked for cluster 1, but its present subscriber is live.
        assert (
            "http://s2b/" in restarted.http.get(moved["stream_url"].removeprefix(URL), headers=bearer(moved)).location
        )
    finally:
        restarted.registrations.close()


def test_ticks_move_clients_to_a_new_subscriber(chain: Chain) -> None:
    """A few clients move per second; the moves are written, and a moved client is redirected, also after a restart."""
    clients = [chain.register() for _ in range(40)]
    ids = tuple(client["client_id"] for client in clients)
    for second in range(13):
        chain.clock.now_ns += 1_000_000_000
        chain.announce("1", "a", 40, ids)
        chain.announce("1", "b")
        chain.registrations.tick()
        assert chain.registrations.assignments.registered(SubscriberId("1", "b")) == (20 if second >= 10 else 0)
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 99)) == 60, "there are 60 registrations")
    moved = [decode_registration(record.value) for record in chain.bus.tail(NAMES.clients.name, 99)[40:]]
    assert {registration.subscriber for registration in moved} == {"b"}
    location = chain.http.get(f"/clients/{moved[0].client_id}/stream").headers["Location"]
    assert location.startswith("http://s1b/")
    restarted = Chain(chain.bus, chain.clock)
    try:
        assert restarted.http.get("/clients").get_json() == chain.http.get("/clients").get_json()
    finally:
        restarted.registrations.close()


def test_registration_goes_after_a_minute_if_its_client_does_not_ask_for_its_stream(chain: Chain) -> None:
    """One that asked stays, by a redirect or a ticket, and so does one that a subscriber holds: it asked elsewhere."""
    asked, ticketed, held, silent = (chain.register() for _ in range(4))
    assert chain.http.get(f"/clients/{asked['client_id']}/stream", headers=bearer(asked)).status_code == 307
    assert chain.http.post(f"/clients/{ticketed['client_id']}/tickets", headers=bearer(ticketed)).status_code == 201
    for advance_ns, left in ((60_000_000_000, 4), (1, 3), (3_000_000_000_000, 3)):
        chain.clock.now_ns += advance_ns
        chain.announce("1", "a", 1, (held["client_id"],))
        chain.registrations.tick()
        assert len(chain.registrations.assignments) == left
    assert chain.http.get(f"/clients/{silent['client_id']}").status_code == 404
    until(lambda: chain.bus.tail(NAMES.clients.name, 9)[-1].value is None, "the removal is written")


@pytest.mark.parametrize("clients_max", [3, 4])
def test_crowded_registry_lets_unopened_registrations_go(clients_max: int) -> None:
    """Two minutes after they were made, also if they asked, if it is more than half full; one that is held stays."""
    with started_chain(clients_max=clients_max) as chain:
        watching, unopened = chain.register(), chain.register()
        chain.http.get(f"/clients/{unopened['client_id']}/stream", headers=bearer(unopened))
        chain.clock.now_ns += 119_000_000_000
        chain.announce("1", "a", 1, (watching["client_id"],))
        chain.registrations.tick()
        assert chain.http.get(f"/clients/{unopened['client_id']}").status_code == 200
        chain.clock.now_ns += 1_000_000_001
        chain.registrations.tick()
        assert chain.http.get(f"/clients/{watching['client_id']}").status_code == 200
        kept = clients_max == 4
        assert chain.http.get(f"/clients/{unopened['client_id']}").status_code == (200 if kept else 404)


def test_client_without_a_stream_for_an_hour_is_removed(chain: Chain) -> None:
    """Its registration ends with a tombstone; a client that holds a stream stays registered."""
    watching, gone = chain.register(), chain.register()
    chain.http.get(f"/clients/{gone['client_id']}/stream", headers=bearer(gone))
    for _ in range(59):
        chain.clock.now_ns += 60_000_000_000
        chain.announce("1", "a", 1, (watching["client_id"],))
        chain.registrations.tick()
    assert len(chain.bus.tail(NAMES.clients.name, 9)) == 2
    chain.clock.now_ns += 60_000_000_001
    chain.registrations.tick()
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 9)) == 3, "there are 3 registrations")
    last = chain.bus.tail(NAMES.clients.name, 1)[0]
    assert (last.key, last.value) == (gone["client_id"].encode(), None)
    assert chain.http.get(f"/clients/{gone['client_id']}/stream").status_code == 404
    assert chain.http.get(f"/clients/{watching['client_id']}").status_code == 200


def test_stamp_in_the_future_keeps_no_subscriber_live(chain: Chain) -> None:
    """A subscriber whose clock is an hour ahead, and which then died, is silent as soon as any other."""
    hour_ns = 3_600_000_000_000
    ghost = Announcement("ghost", "1", "http://ghost", 0, chain.clock() + hour_ns)
    chain.bus.writer().send(NAMES.subscribers.name, encode(ghost), b"1/ghost")

    def live(registrations: Registrations) -> set[str]:
        return {each.subscriber for each in registrations.assignments.live(registrations.clock_ns())}

    until(lambda: live(chain.registrations) == {"a", "ghost"}, "both have announced themselves")
    chain.clock.now_ns += 6_000_000_000
    chain.announce("1", "a")
    assert live(chain.registrations) == {"a"}
    restarted = Chain(chain.bus, chain.clock)
    assert live(restarted.registrations) == {"a"}
    restarted.registrations.close()


def test_run_ticks_ends_with_the_registry() -> None:
    """`close` ends the thread."""
    with started_chain() as chain:
        thread = threading.Thread(target=chain.registrations.run_ticks)
        thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_address_over_its_limit_returns_429() -> None:
    """429 with Retry-After and no registration; other addresses and the next minute are not affected."""
    with started_chain(registrations_per_address_min=3) as chain:
        chain.clock.now_ns = 600_000_000_000 - 20_500_000_000
        chain.announce("1", "b")
        answers = [chain.http.post("/clients") for _ in range(50)]
        assert [answer.status_code for answer in answers] == [201] * 3 + [429] * 47
        assert answers[-1].mimetype == "application/problem+json"
        assert answers[-1].headers["Retry-After"] == "21"
        assert "registrations_per_address_min=3" in answers[-1].get_json()["detail"]
        assert len(chain.registrations.assignments) == 3
        other = {"REMOTE_ADDR": "10.0.0.9"}
        assert chain.http.post("/clients", environ_base=other).status_code == 201
        # The header of a client is not believed: no proxy is configured.
        assert chain.http.post("/clients", headers={"X-Forwarded-For": "10.0.0.10"}).status_code == 429
        assert chain.http.get("/clients").status_code == 200
        chain.clock.now_ns += 21_000_000_000
        chain.announce("1", "b")
        assert chain.http.post("/clients").status_code == 201


def test_registration_beyond_clients_max_returns_503() -> None:
    """503 with Retry-After; a removed client makes room."""
    with started_chain(clients_max=2) as chain:
        first = chain.register()
        chain.register()
        answer = chain.http.post("/clients")
        assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        assert "clients_max=2" in answer.get_json()["detail"]
        chain.http.delete(f"/clients/{first['client_id']}", headers=bearer(first))
        assert chain.http.post("/clients").status_code == 201


def test_two_registries_share_their_clients(chain: Chain) -> None:
    """A client registered or removed at one is registered or removed at the other."""
    other = Chain(chain.bus, chain.clock)
    try:
        client = other.register()
        path = f"/clients/{client['client_id']}"
        until(lambda: chain.http.get(path).status_code == 200, "the answer is 200")
        other.http.delete(path, headers=bearer(client))
        until(lambda: chain.http.get(path).status_code == 404, "the answer is 404")
    finally:
        other.registrations.close()


def test_clusters_show_load_health_and_age(chain: Chain) -> None:
    """GET /clusters lists announced loads, registered clients, and silent subscribers."""
    chain.register()
    chain.clock.now_ns += 6_000_000_000
    chain.announce("1", "b", 7)
    (cluster,) = chain.http.get("/clusters").get_json()["clusters"]
    assert (cluster["cluster"], cluster["clients"], cluster["live"]) == ("1", 7, 1)
    chain.clock.now_ns += 3_100_000_000
    chain.announce("1", "c")
    (cluster,) = chain.http.get("/clusters").get_json()["clusters"]
    shown = [
        (
            member["subscriber"],
            member["live"],
            member["health"],
            member["age_s"],
            member["clients"],
            member["registered"],
        )
        for member in cluster["subscribers"]
    ]
    assert shown == [
        ("a", False, "silent", 9.1, 0, 1),
        ("b", True, "late", 3.1, 7, 0),
        ("c", True, "ok", 0.0, 0, 0),
    ]


def test_leaving_subscriber_is_removed_at_once(chain: Chain) -> None:
    """Its tombstone counts before its silence does."""
    chain.bus.writer().send(NAMES.subscribers.name, None, b"1/a")
    until(lambda: chain.http.get("/healthz").get_json()["subscribers_live"] == 0, "0 subscribers are live")
    assert chain.http.post("/clients").status_code == 503


def test_unreadable_records_are_skipped(chain: Chain) -> None:
    """Records of a foreign writer do not stop the registry."""
    writer = chain.bus.writer()
    for topic in (NAMES.clients.name, NAMES.subscribers.name):
        writer.send(topic, b"nonsense", b"x")
        writer.send(topic, b"nonsense")
    split = Announcement("a", "2", "http://x\r\ny", 0, chain.clock())
    writer.send(NAMES.subscribers.name, encode(split), b"2/a")
    chain.announce("1", "b")
    health = chain.http.get("/healthz").get_json()
    assert health.pop("stalled_s") >= 0
    assert health == {"status": "ok", "stage": "registry", "clients": 0, "subscribers_live": 2}
    until(lambda: len(chain.bus.tail(NAMES.dead_letters.name, 9)) == 3, "each is kept as a dead letter")


class DeadWriter:
    """A writer whose Kafka is unreachable."""

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Fail."""
        raise KafkaUnreachableError("Kafka is gone: start it")

    def flush(self, timeout_s: float = 10.0) -> None:
        """Fail."""
        raise KafkaUnreachableError("Kafka is gone: start it")

    def close(self) -> None:
        """Nothing is held."""


class DyingBus(MemoryBus):
    """A bus whose Kafka can become unreachable for new writers."""

    dead = False

    def writer(self) -> Writer:  # type: ignore[override]
        """Return a working writer, or one that fails if `dead`."""
        return DeadWriter() if self.dead else super().writer()


def test_unreachable_kafka_returns_503_and_changes_nothing() -> None:
    """503 with Retry-After for a registration and for a removal."""
    bus, clock = DyingBus(), Clock()
    before = Chain(bus, clock)
    before.announce("1", "a")
    client = before.register()
    before.registrations.close()
    bus.dead = True
    chain = Chain(bus, clock)
    try:
        answer = chain.http.post("/clients")
        assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
        assert "Retry-After" in answer.headers
        path = f"/clients/{client['client_id']}"
        assert chain.http.delete(path, headers=bearer(client)).status_code == 503
        assert chain.http.get("/clients").get_json()["count"] == 1
    finally:
        chain.registrations.close()


def test_concurrent_registrations_all_succeed_and_spread(chain: Chain) -> None:
    """Forty concurrent registrations give forty clients, spread evenly over both subscribers, all in the topic."""
    chain.announce("1", "b")
    app = chain.http.application
    clients: list[dict[str, Any]] = []

    def register() -> None:
        for _ in range(5):
            clients.append(app.test_client().post("/clients").get_json())

    threads = [threading.Thread(target=register) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({client["client_id"] for client in clients}) == 40
    assert sorted(client["subscriber"] for client in clients) == ["a"] * 20 + ["b"] * 20
    assert len(chain.bus.tail(NAMES.clients.name, 99)) == 40


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/clients", 405)])
def test_unknown_path_or_method_returns_a_problem_document(chain: Chain, method: str, path: str, status: int) -> None:
    """Flask's own errors have the same form; 405 names the allowed methods."""
    answer = chain.http.open(path, method=method)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert ("Allow" in answer.headers) is (status == 405)


PAGE = {"Host": "127.0.0.1:8080", "Origin": "http://127.0.0.1:8080"}


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8080", "http://localhost:3000"])
def test_every_answer_to_an_allowed_page_has_cors_headers(origin: str) -> None:
    """Registered, listed, redirected, refused, unknown, removed: the page may read each, and sees the redirect."""
    with started_chain(origins="http://localhost:3000") as chain:
        page = {**PAGE, "Origin": origin}
        registered = chain.http.post("/clients", headers=page)
        path = f"/clients/{registered.get_json()['client_id']}"
        token = {**page, **bearer(registered.get_json())}
        for status, answer in (
            (201, registered),
            (204, chain.http.options(path, headers={**page, "Access-Control-Request-Method": "DELETE"})),
            (200, chain.http.get("/clients", headers=page)),
            (307, chain.http.get(f"{path}/stream", headers=token)),
            (401, chain.http.delete(path, headers={**page, "Cookie": ""})),
            (404, chain.http.get("/clients/", headers=page)),
            (405, chain.http.put(path, headers=page)),
            (204, chain.http.delete(path, headers=token)),
        ):
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == origin
            assert "Location" in answer.headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:3000"])
def test_another_page_registers_removes_and_streams_nothing(chain: Chain, origin: str) -> None:
    """403 with the setting's name before any effect, counted as a refusal; the client is as it was."""
    client = chain.register()
    path = f"/clients/{client['client_id']}"
    other = {**PAGE, **bearer(client), "Origin": origin}
    for method, target in (("POST", "/clients"), ("DELETE", path), ("GET", f"{path}/stream"), ("OPTIONS", path)):
        answer = chain.http.open(target, method=method, headers=other)
        assert (answer.status_code, answer.mimetype) == (403, "application/problem+json")
        assert "setting origins" in answer.get_json()["detail"]
        assert not [name for name, _ in answer.headers if name.startswith("Access-Control-")]
    assert [each["client_id"] for each in chain.http.get("/clients").get_json()["clients"]] == [client["client_id"]]
    assert 'requests_refused_total{status="403"} 4' in chain.http.get("/metrics").text
