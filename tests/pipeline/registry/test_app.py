"""The registry over HTTP, its topics in memory."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from flask.testing import FlaskClient

from pipeline.addresses import SubscriberId
from pipeline.bus.base import Writer
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.errors import KafkaUnreachableError
from pipeline.messages import Announcement, decode_registration, encode
from pipeline.registry.app import create_app, sender
from pipeline.registry.registrations import Registrations
from pipeline.settings import Settings

NAMES = topics(Settings())
URL = "http://registry"


class Clock:
    """A time of day that stands still until it is moved."""

    def __init__(self) -> None:
        self.now_ns = time.time_ns()

    def __call__(self) -> int:
        """Epoch nanoseconds."""
        return self.now_ns


class Chain:
    """One registry over a MemoryBus, and hands to play the subscribers."""

    def __init__(self, bus: MemoryBus, clock: Clock, **settings: object) -> None:
        self.bus, self.clock = bus, clock
        values = Settings().replace(**settings)
        self.enrolment = Registrations(bus, values, pytest.fail, clock)
        app = create_app(self.enrolment, URL, values.registrations_per_address_min, values.proxies)
        self.http: FlaskClient = app.test_client()

    def announce(self, cluster: str, subscriber: str, clients: int = 0, held: tuple[str, ...] = ()) -> None:
        """Announce a subscriber and wait until the registry has heard it."""
        url = f"http://s{cluster}{subscriber}"
        said = Announcement(subscriber, cluster, url, clients, self.clock(), "e:1", held)
        self.bus.writer().send(NAMES.subscribers.name, encode(said), f"{cluster}/{subscriber}".encode())
        until(lambda: said in list(self.enrolment.roster.subscribers()))

    def register(self, **body: str) -> dict[str, Any]:
        """Register a client."""
        answer = self.http.post("/clients", json=body)
        assert answer.status_code == 201, answer.text
        return answer.get_json()


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        threading.Event().wait(0.002)


@pytest.fixture
def chain() -> Iterator[Chain]:
    """A registry with one subscriber, 1/a."""
    with started() as chain:
        yield chain


@contextmanager
def started(**settings: object) -> Iterator[Chain]:
    """A registry with one subscriber, 1/a, and settings of its own."""
    chain = Chain(MemoryBus(), Clock(), **settings)
    chain.announce("1", "a")
    try:
        yield chain
    finally:
        chain.enrolment.close()


def bearer(client: dict[str, Any]) -> dict[str, str]:
    """The header that a client's token goes into."""
    return {"Authorization": f"Bearer {client['token']}"}


def test_registering_gives_a_place_and_a_token_of_which_only_the_digest_is_kept(chain: Chain) -> None:
    """201 with everything a client needs; the topic holds no token."""
    client = chain.register()
    assert (client["cluster"], client["subscriber"]) == ("1", "a")
    assert client["stream_url"] == f"{URL}/clients/{client['client_id']}/stream"
    (record,) = chain.bus.tail(NAMES.clients.name, 9)
    assert record.key == client["client_id"].encode()
    kept = decode_registration(record.value)
    assert kept.token_sha256 == hashlib.sha256(client["token"].encode()).hexdigest()
    assert client["token"].encode() not in (record.value or b"")


def test_the_cookie_is_for_the_clients_own_path_and_for_no_script(chain: Chain) -> None:
    """HttpOnly, SameSite=Strict, scoped to the client."""
    answer = chain.http.post("/clients")
    cookie = answer.headers["Set-Cookie"]
    assert f"Path=/clients/{answer.get_json()['client_id']}" in cookie
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie


def test_a_wanted_cluster_is_given_or_refused(chain: Chain) -> None:
    """A cluster without a live subscriber is 503 with Retry-After, never another one silently."""
    chain.announce("2", "b", 1000)
    assert chain.register(cluster="2")["cluster"] == "2"
    answer = chain.http.post("/clients", json={"cluster": "3"})
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    assert int(answer.headers["Retry-After"]) > 0
    assert "'3'" in answer.get_json()["detail"]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b'{"x":' + b"[" * 4000, "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"cluster": 1}', "application/json", 422),
        (b'{"cluster": "a/b"}', "application/json", 422),
        (b'{"transport": "telegraph"}', "application/json", 422),
        (b"{}", "text/plain", 415),
        (b'"' + b"x" * 5000 + b'"', "application/json", 413),
    ],
)
def test_bad_bodies_are_refused_with_a_problem_document(chain: Chain, body: bytes, kind: str, status: int) -> None:
    """Each kind of bad body has its status, and registers nobody."""
    answer = chain.http.post("/clients", data=body, content_type=kind)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert answer.get_json()["status"] == status
    assert len(chain.enrolment.roster) == 0


def test_clients_are_shown_without_their_secrets_and_in_pages(chain: Chain) -> None:
    """GET shows places; `after` and `limit` page through all of them."""
    clients = [chain.register() for _ in range(3)]
    ids = sorted(client["client_id"] for client in clients)
    shown = chain.http.get(f"/clients/{ids[0]}").get_json()
    assert (shown["subscriber"], shown["live"]) == ("a", True)
    page = chain.http.get(f"/clients?limit=1&after={ids[0]}").get_json()
    assert (page["count"], [client["client_id"] for client in page["clients"]]) == (3, [ids[1]])
    assert "sha256" not in chain.http.get("/clients").text
    assert "token" not in shown
    assert chain.http.get("/clients?limit=x").status_code == 422


def test_only_a_clients_own_token_removes_it(chain: Chain) -> None:
    """401 without a token, 403 with another's, 204 with its own, 404 from then on; a tombstone is written."""
    mine, other = chain.register(), chain.register()
    path = f"/clients/{mine['client_id']}"
    assert chain.http.delete(path).status_code == 401
    assert chain.http.delete(f"{path}?token={mine['token']}").status_code == 401
    assert chain.http.delete(path, headers=bearer(other)).status_code == 403
    assert chain.http.delete(path, headers=bearer(mine)).status_code == 204
    assert chain.http.delete(path, headers=bearer(mine)).status_code == 404
    assert chain.http.get(path).status_code == 404
    last = chain.bus.tail(NAMES.clients.name, 1)[0]
    assert (last.key, last.value) == (mine["client_id"].encode(), None)


def test_the_stream_url_leads_to_the_subscriber_that_lives(chain: Chain) -> None:
    """307 to the holder; after 5 s of its silence to another, and the new place is written down."""
    client = chain.register()
    path = f"/clients/{client['client_id']}/stream"
    answer = chain.http.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"http://s1a{path}")
    chain.clock.now_ns += 5_000_000_000
    assert chain.http.get(path).status_code == 503
    chain.announce("1", "b")
    answer = chain.http.get(path)
    assert (answer.status_code, answer.headers["Location"]) == (307, f"http://s1b{path}")
    assert answer.headers["Cache-Control"] == "no-store"
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 9)) == 2)
    assert decode_registration(chain.bus.tail(NAMES.clients.name, 1)[0].value).subscriber == "b"
    assert chain.http.get("/clients/nobody/stream").status_code == 404


def test_every_transport_has_its_path(chain: Chain) -> None:
    """The stream_url is the wanted transport's; each of the three paths leads there, with what was asked behind it."""
    for transport, path in (("sse", "stream"), ("websocket", "socket"), ("poll", "windows")):
        client = chain.register(transport=transport)
        assert (client["transport"], client["stream_url"]) == (transport, f"{URL}/clients/{client['client_id']}/{path}")
        for other in ("stream", "socket", "windows"):
            here = f"/clients/{client['client_id']}/{other}?after=e:7&x=%0d%0a"
            answer = chain.http.get(here)
            assert (answer.status_code, answer.headers["Location"]) == (307, f"http://s1a{here}")
        assert chain.http.get(f"/clients/{client['client_id']}/else").status_code == 404
        assert chain.http.get(f"/clients/nobody/{path}").status_code == 404


def test_a_restarted_registry_knows_what_it_knew(chain: Chain) -> None:
    """Everything is rebuilt from the topics: transports, places that were changed since, and who has gone."""
    kept, moved, removed = chain.register(), chain.register(transport="poll", cluster="1"), chain.register()
    chain.http.delete(f"/clients/{removed['client_id']}", headers=bearer(removed))
    chain.bus.writer().send(NAMES.subscribers.name, None, b"1/a")
    chain.announce("2", "b")
    until(lambda: chain.http.get("/healthz").get_json()["subscribers_live"] == 1)
    assert chain.http.get(f"/clients/{moved['client_id']}/windows").status_code == 307
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 9)) == 5)
    again = Chain(chain.bus, chain.clock)
    try:
        assert again.http.get("/clients").get_json() == chain.http.get("/clients").get_json()
        shown = again.http.get(f"/clients/{moved['client_id']}").get_json()
        assert (shown["cluster"], shown["subscriber"], shown["transport"]) == ("2", "b", "poll")
        again.announce("1", "a")
        assert again.http.get(kept["stream_url"].removeprefix(URL)).headers["Location"].startswith("http://s1a/")
        # It asked for its cluster, but lives where it is.
        assert again.http.get(moved["stream_url"].removeprefix(URL)).headers["Location"].startswith("http://s2b/")
    finally:
        again.enrolment.close()


def test_ticks_move_clients_to_a_subscriber_that_came(chain: Chain) -> None:
    """A few a second, written down; who comes back is led to the new place, also by a registry that was restarted."""
    clients = [chain.register() for _ in range(40)]
    ids = tuple(client["client_id"] for client in clients)
    for second in range(13):
        chain.clock.now_ns += 1_000_000_000
        chain.announce("1", "a", 40, ids)
        chain.announce("1", "b")
        chain.enrolment.tick()
        assert chain.enrolment.roster.registered(SubscriberId("1", "b")) == (20 if second >= 10 else 0)
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 99)) == 60)
    moved = [decode_registration(record.value) for record in chain.bus.tail(NAMES.clients.name, 99)[40:]]
    assert {one.subscriber for one in moved} == {"b"}
    location = chain.http.get(f"/clients/{moved[0].client_id}/stream").headers["Location"]
    assert location.startswith("http://s1b/")
    again = Chain(chain.bus, chain.clock)
    try:
        assert again.http.get("/clients").get_json() == chain.http.get("/clients").get_json()
    finally:
        again.enrolment.close()


def test_who_holds_no_stream_for_long_is_forgotten(chain: Chain) -> None:
    """An hour after it was last seen its registration ends, with a tombstone; who is held stays for ever."""
    watching, gone = chain.register(), chain.register()
    for _ in range(59):
        chain.clock.now_ns += 60_000_000_000
        chain.announce("1", "a", 1, (watching["client_id"],))
        chain.enrolment.tick()
    assert len(chain.bus.tail(NAMES.clients.name, 9)) == 2
    chain.clock.now_ns += 60_000_000_001
    chain.enrolment.tick()
    until(lambda: len(chain.bus.tail(NAMES.clients.name, 9)) == 3)
    last = chain.bus.tail(NAMES.clients.name, 1)[0]
    assert (last.key, last.value) == (gone["client_id"].encode(), None)
    assert chain.http.get(f"/clients/{gone['client_id']}/stream").status_code == 404
    assert chain.http.get(f"/clients/{watching['client_id']}").status_code == 200


def test_a_thread_keeps_ticking_until_the_end() -> None:
    """It ends with the registry."""
    with started() as chain:
        thread = threading.Thread(target=chain.enrolment.keep)
        thread.start()
    thread.join(20)
    assert not thread.is_alive()


def test_one_address_registers_so_many_a_minute() -> None:
    """429 with Retry-After beyond it, and nobody is registered; the next minute, or another address, is free."""
    with started(registrations_per_address_min=3) as chain:
        chain.clock.now_ns = 600_000_000_000 - 20_500_000_000
        chain.announce("1", "b")
        answers = [chain.http.post("/clients") for _ in range(50)]
        assert [answer.status_code for answer in answers] == [201] * 3 + [429] * 47
        assert answers[-1].mimetype == "application/problem+json"
        assert answers[-1].headers["Retry-After"] == "21"
        assert "registrations_per_address_min=3" in answers[-1].get_json()["detail"]
        assert len(chain.enrolment.roster) == 3
        other = {"REMOTE_ADDR": "10.0.0.9"}
        assert chain.http.post("/clients", environ_base=other).status_code == 201
        # Whoever names an address himself is not believed: no proxy is known here.
        assert chain.http.post("/clients", headers={"X-Forwarded-For": "10.0.0.10"}).status_code == 429
        assert chain.http.get("/clients").status_code == 200
        chain.clock.now_ns += 21_000_000_000
        chain.announce("1", "b")
        assert chain.http.post("/clients").status_code == 201


def test_behind_a_proxy_the_address_it_names_counts() -> None:
    """The last one in X-Forwarded-For, which the proxy wrote; those before it are the client's own words."""
    with started(registrations_per_address_min=1, proxies=1) as chain:
        statuses = [
            chain.http.post("/clients", headers={"X-Forwarded-For": forwarded}).status_code
            for forwarded in ("10.0.0.1", "10.0.0.2", "1.2.3.4, 10.0.0.1")
        ]
        assert statuses == [201, 201, 429]


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unknown", "unknown"),
        (None, ""),
    ],
)
def test_who_registrations_are_counted_for(address: str | None, counted: str) -> None:
    """IPv6 addresses of one network are one sender: each household has as many as it likes."""
    assert sender(address) == counted


def test_no_more_clients_than_clients_max() -> None:
    """503 with Retry-After beyond it; whoever leaves makes room."""
    with started(clients_max=2) as chain:
        first = chain.register()
        chain.register()
        answer = chain.http.post("/clients")
        assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
        assert int(answer.headers["Retry-After"]) > 0
        assert "clients_max=2" in answer.get_json()["detail"]
        chain.http.delete(f"/clients/{first['client_id']}", headers=bearer(first))
        assert chain.http.post("/clients").status_code == 201


def test_two_registries_follow_each_other(chain: Chain) -> None:
    """A client of one is soon known to the other, and so is its removal."""
    other = Chain(chain.bus, chain.clock)
    try:
        client = other.register()
        path = f"/clients/{client['client_id']}"
        until(lambda: chain.http.get(path).status_code == 200)
        other.http.delete(path, headers=bearer(client))
        until(lambda: chain.http.get(path).status_code == 404)
    finally:
        other.enrolment.close()


def test_clusters_show_load_life_and_age(chain: Chain) -> None:
    """GET /clusters sums up what the subscribers said, who is registered with them, and who fell silent."""
    chain.register()
    chain.clock.now_ns += 6_000_000_000
    chain.announce("1", "b", 7)
    (cluster,) = chain.http.get("/clusters").get_json()["clusters"]
    assert (cluster["cluster"], cluster["clients"], cluster["live"]) == ("1", 7, 1)
    chain.clock.now_ns += 3_100_000_000
    chain.announce("1", "c")
    (cluster,) = chain.http.get("/clusters").get_json()["clusters"]
    shown = [
        (held["subscriber"], held["live"], held["health"], held["age_s"], held["clients"], held["registered"])
        for held in cluster["subscribers"]
    ]
    assert shown == [
        ("a", False, "silent", 9.1, 0, 1),
        ("b", True, "late", 3.1, 7, 0),
        ("c", True, "ok", 0.0, 0, 0),
    ]


def test_a_subscriber_that_leaves_is_taken_out_at_once(chain: Chain) -> None:
    """Its tombstone counts before its silence would."""
    chain.bus.writer().send(NAMES.subscribers.name, None, b"1/a")
    until(lambda: chain.http.get("/healthz").get_json()["subscribers_live"] == 0)
    assert chain.http.post("/clients").status_code == 503


def test_records_that_are_no_messages_are_passed_over(chain: Chain) -> None:
    """A foreign writer does not stop the registry."""
    writer = chain.bus.writer()
    for topic in (NAMES.clients.name, NAMES.subscribers.name):
        writer.send(topic, b"nonsense", b"x")
        writer.send(topic, b"nonsense")
    chain.announce("1", "b")
    assert chain.http.get("/healthz").get_json() == {
        "status": "ok", "stage": "registry", "clients": 0, "subscribers_live": 2,
    }  # fmt: skip


class DeadWriter:
    """A writer whose Kafka is gone."""

    def send(self, topic: str, value: bytes | None, key: bytes | None = None) -> None:
        """Refuse."""
        raise KafkaUnreachableError("Kafka is gone: start it")

    def flush(self, timeout_s: float = 10.0) -> None:
        """Refuse."""
        raise KafkaUnreachableError("Kafka is gone: start it")

    def close(self) -> None:
        """Nothing is held."""


class DyingBus(MemoryBus):
    """A bus that can lose its Kafka before anything connects to write."""

    dead = False

    def writer(self) -> Writer:  # type: ignore[override]
        """Return a writer that works, or none that does."""
        return DeadWriter() if self.dead else super().writer()


def test_without_kafka_nobody_is_registered_or_removed() -> None:
    """503 with Retry-After; what was registered still is, what was not is not."""
    bus, clock = DyingBus(), Clock()
    before = Chain(bus, clock)
    before.announce("1", "a")
    client = before.register()
    before.enrolment.close()
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
        chain.enrolment.close()


def test_many_at_once_are_all_registered_and_spread(chain: Chain) -> None:
    """Forty concurrent registrations give forty clients, evenly over both subscribers, all in the topic."""
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
def test_what_is_not_served_is_a_problem_document(chain: Chain, method: str, path: str, status: int) -> None:
    """Flask's own refusals speak the same language."""
    answer = chain.http.open(path, method=method)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
