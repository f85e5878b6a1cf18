"""What the registry shows in a browser, its topics in memory."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.messages import Announcement, Window, encode
from pipeline.registry.app import create_app
from pipeline.registry.registrations import Registrations
from pipeline.registry.web import views
from pipeline.registry.web.observer import Observer
from pipeline.registry.web.views import create_pages, earlier, ingest_url, policy, watched
from pipeline.settings import Settings

NAMES = topics(Settings())
URL = "http://127.0.0.1:8080"
FILES = sorted(Path(str(views.__file__)).parent.joinpath("static").iterdir())


def until(condition: Callable[[], bool]) -> None:
    """Wait for what another thread is about to do."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited 20 s in vain"
        threading.Event().wait(0.002)


class Chain:
    """A registry with its pages over a MemoryBus."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        values = Settings()
        self.enrolment = Registrations(self.bus, values, pytest.fail)
        self.observer = Observer(self.bus, values, pytest.fail, sample_s=0.01)
        app = create_app(self.enrolment, URL)
        app.register_blueprint(create_pages(self.enrolment, self.observer, values, URL))
        self.http: FlaskClient = app.test_client()

    def get(self, path: str, host: str = "127.0.0.1:8080", **headers: str) -> TestResponse:
        """Ask as a browser at that host does."""
        return self.http.get(path, headers={"Host": host, **headers}, buffered=True)

    def announce(self, subscriber: str, clients: int) -> None:
        """Announce a subscriber of cluster 1 and wait until the registry has heard it."""
        said = Announcement(subscriber, "1", f"http://{subscriber}", clients, time.time_ns())
        self.bus.writer().send(NAMES.subscribers.name, encode(said), f"1/{subscriber}".encode())
        until(lambda: said in list(self.enrolment.roster.subscribers()))

    def emit(self, number: int) -> None:
        """Put a window on `emoji-aggregates` and wait until the registry has heard it."""
        now_ns = time.time_ns()
        window = Window("e", number, now_ns, now_ns, {}, 5, [])
        self.bus.writer().send(NAMES.aggregates.name, encode(window))
        until(lambda: self.observer.newest_event_id() == f"e:{number}")


@pytest.fixture
def chain() -> Iterator[Chain]:
    """A registry nobody has used yet."""
    chain = Chain()
    yield chain
    chain.observer.close()
    chain.enrolment.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/ops", "text/html"),
        ("/page/base.css", "text/css"),
        ("/page/main.js", "javascript"),
        ("/page/icon.svg", "image/svg+xml"),
        ("/page/settings.json", "application/json"),
        ("/page/emoji.json", "application/json"),
        ("/watching", "application/json"),
        ("/ops/data", "application/json"),
    ],
)
def test_everything_has_its_type_and_is_guarded(chain: Chain, path: str, kind: str) -> None:
    """The right type, never sniffed, under a policy that lets nothing inline and nothing foreign in."""
    answer = chain.get(path)
    assert answer.status_code == 200
    assert kind in answer.mimetype
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    directives = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert directives["connect-src"] == "'self' 127.0.0.1:*"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_names_another_host(path: Path) -> None:
    """Nothing is fetched from elsewhere; the one address allowed is the name of SVG's namespace."""
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:|wss?:|ftp:)?//[\w\[]", re.sub(r"(?m)^\s*//.*$", "", text)) == []
    assert "@import" not in text


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".html"], ids=lambda path: path.name)
def test_nothing_is_inline_and_every_file_named_is_there(chain: Chain, path: Path) -> None:
    """The policy would block inline scripts, styles and handlers; a wrong name would be a blank page."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    named = re.findall(r'(?:src|href)="(/[^"]*)"', text)
    assert named
    assert [name for name in named if chain.get(name).status_code != 200] == []


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".js"], ids=lambda path: path.name)
def test_scripts_ask_only_for_what_is_there(path: Path) -> None:
    """Every import has its file, and every id that is looked up stands in a page."""
    text = path.read_text(encoding="utf-8")
    assert [name for name in re.findall(r"from '\./([^']+)'", text) if not path.with_name(name).exists()] == []
    pages = "".join(file.read_text(encoding="utf-8") for file in FILES if file.suffix == ".html")
    assert [name for name in re.findall(r"byId\('([^']+)'\)", text) if f'id="{name}"' not in pages] == []


def test_files_are_asked_for_again_and_answered_by_304(chain: Chain) -> None:
    """A new version is seen at once, an old one costs no bytes."""
    first = chain.get("/page/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    assert chain.get("/page/main.js", **{"If-None-Match": first.headers["ETag"]}).status_code == 304
    emoji = chain.get("/page/emoji.json")
    assert "max-age=3600" in emoji.headers["Cache-Control"]
    assert chain.get("/page/emoji.json", **{"If-None-Match": emoji.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/../routes.py", "/page/%2e%2e/routes.py"])
def test_what_is_not_there_is_a_problem_document(chain: Chain, path: str) -> None:
    """Nothing outside the folder is served."""
    answer = chain.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


def test_the_page_moves_to_where_its_cookie_will_be(chain: Chain) -> None:
    """To a browser localhost and 127.0.0.1 are two hosts; a name that may be a proxy's is left alone."""
    answer = chain.get("/", host="localhost:8080")
    assert (answer.status_code, answer.headers["Location"]) == (302, f"{URL}/")
    assert chain.get("/", host="live.example").status_code == 200


def test_settings_say_where_things_are_and_where_to_begin(chain: Chain) -> None:
    """Without windows there is nothing to replay; with them the last twenty are."""
    document = chain.get("/page/settings.json").get_json()
    assert document["ingest_url"] == "http://127.0.0.1:8000"
    assert (document["registry_url"], document["trigger_s"], document["group_size"]) == (URL, 6.0, 10)
    assert document["after"] is None
    assert abs(document["now_ms"] - time.time() * 1000) < 60_000
    chain.emit(33)
    assert chain.get("/page/settings.json").get_json()["after"] == "e:13"


def test_an_epoch_begins_at_its_first_window() -> None:
    """No id of a window before the first."""
    assert earlier("a:b:7", 20) == "a:b:0"


def test_the_watching_are_counted_and_asked_after_at_a_bearable_rate(chain: Chain) -> None:
    """All clients together ask at most a hundred times a second."""
    assert chain.get("/watching").get_json() == {"watching": 0, "again_s": 5}
    chain.announce("a", 3)
    chain.announce("b", 4)
    assert chain.get("/watching").get_json() == {"watching": 7, "again_s": 5}
    assert watched([Announcement("a", "1", "http://a", 5_000, 0)])["again_s"] == 50


@pytest.mark.parametrize(
    ("given", "host", "url", "connect"),
    [
        ("", "10.0.0.7:8080", "http://10.0.0.7:8000", "'self' 10.0.0.7:*"),
        ("", "[::1]:8080", "http://[::1]:8000", "'self' http: https:"),
        (
            "https://in.example:444/x/",
            "live.example",
            "https://in.example:444/x",
            "'self' live.example:* https://in.example:444",
        ),
        ("", "", "http://127.0.0.1:8000", "'self' http: https:"),
    ],
)
def test_ingest_is_where_it_is_said_to_be_or_beside_the_page(given: str, host: str, url: str, connect: str) -> None:
    """`ingest_url`, or the page's own host; the policy lets the page reach exactly that."""
    values = Settings().replace(ingest_url=given)
    assert ingest_url(values, "http", host) == url
    assert f"connect-src {connect};" in policy(values, host)


def test_ops_tells_what_was_heard(chain: Chain) -> None:
    """Windows, Spark's reports, the ends of the events, and the subscribers, in one document."""
    chain.announce("a", 3)
    chain.emit(1)
    chain.bus.ensure(NAMES.events)
    writer = chain.bus.writer()
    for _ in range(9):
        writer.send(NAMES.events.name, b"{}")
    report = {
        "batchId": 1,
        "timestamp": "2026-11-24T20:00:00.000Z",
        "numInputRows": 4,
        "durationMs": {"triggerExecution": 350},
        "sources": [{"endOffset": {"emoji-events": {"0": 4, "1": 0}}}],
    }
    writer.send(NAMES.progress.name, b"nonsense")
    writer.send(NAMES.aggregates.name, None)
    writer.send(NAMES.progress.name, msgspec.json.encode(report))
    until(lambda: chain.get("/ops/data").get_json()["lag"] == 5)
    document = chain.get("/ops/data").get_json()
    assert document["batch"]["newest_s"] == 0.35
    assert [window["id"] for window in document["windows"]] == ["e:1"]
    assert [(held["cluster"], held["subscriber"], held["clients"]) for held in document["subscribers"]] == [
        ("1", "a", 3)
    ]
    assert set(document) == {
        *("now_ms", "trigger_s", "arriving_per_s", "counted_per_s", "lag", "batch", "watching", "malformed"),
        *("windows", "batches", "samples", "subscribers", "alerts"),
    }


def test_a_topic_that_cannot_be_looked_up_is_a_trouble_and_no_end(chain: Chain) -> None:
    """The events topic is not there yet: said, and forgotten when it is."""
    until(lambda: "Kafka cannot be read" in [found["what"] for found in chain.get("/ops/data").get_json()["alerts"]])
    chain.bus.ensure(NAMES.events)
    until(
        lambda: "Kafka cannot be read" not in [found["what"] for found in chain.get("/ops/data").get_json()["alerts"]]
    )
