"""The registry's pages, with its topics in memory."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from pipeline.bus.base import Record
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import topics
from pipeline.dead_letters import DeadLetters
from pipeline.messages import Announcement, Window, encode
from pipeline.origins import Origins
from pipeline.registry.app import create_app
from pipeline.registry.registrations import Registrations
from pipeline.registry.web import views
from pipeline.registry.web.observer import Observer
from pipeline.registry.web.views import create_pages, earlier, ingest_url, policy, watching_document
from pipeline.settings import Settings
from tests.harness.waiting import until

NAMES = topics(Settings())
URL = "http://127.0.0.1:8080"
STATIC = Path(str(views.__file__)).parent / "static"
FILES = sorted(path for path in STATIC.rglob("*") if path.is_file())


class Chain:
    """A registry with its pages over a MemoryBus."""

    def __init__(self) -> None:
        self.bus = MemoryBus()
        values = Settings()
        self.registrations = Registrations(self.bus, values, pytest.fail)
        self.observer = Observer(self.bus, values, pytest.fail, sample_s=0.01)
        app = create_app(self.registrations, URL, Origins("", "", 8080, ["live.example"]))
        app.register_blueprint(create_pages(self.registrations, self.observer, values))
        self.http: FlaskClient = app.test_client()

    def get(self, path: str, host: str = "127.0.0.1:8080", **headers: str) -> TestResponse:
        """Send a request as a browser at that host does."""
        return self.http.get(path, headers={"Host": host, **headers}, buffered=True)

    def announce(self, subscriber: str, clients: int) -> None:
        """Announce a subscriber of cluster 1 and wait until the registry has read it."""
        announcement = Announcement(subscriber, "1", f"http://{subscriber}", clients, time.time_ns())
        self.bus.writer().send(NAMES.subscribers.name, encode(announcement), f"1/{subscriber}".encode())

        def read() -> bool:
            known = self.registrations.assignments.subscribers()
            return (subscriber, clients) in {(each.subscriber, each.clients) for each in known}

        until(read, "the registry has read it")

    def emit(self, number: int) -> None:
        """Write a window to `emoji-aggregates` and wait until the registry has read it."""
        now_ns = time.time_ns()
        window = Window("e", number, now_ns, now_ns, {}, 5, [])
        self.bus.writer().send(NAMES.aggregates.name, encode(window))
        until(lambda: self.observer.newest_event_id() == f"e:{number}", "the registry has read it")


@pytest.fixture
def chain() -> Iterator[Chain]:
    """A registry without clients and windows."""
    chain = Chain()
    yield chain
    chain.observer.close()
    chain.registrations.close()


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
def test_every_route_has_its_type_and_security_headers(chain: Chain, path: str, kind: str) -> None:
    """The right type, no sniffing, and a policy that allows nothing inline and nothing from other hosts."""
    answer = chain.get(path)
    assert answer.status_code == 200
    assert kind in answer.mimetype
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Vary"] == "Origin"
    directives = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert directives["default-src"] == "'none'"
    assert directives["script-src"] == directives["style-src"] == "'self'"
    assert directives["connect-src"] == "'self' 127.0.0.1:* ws://127.0.0.1:* wss://127.0.0.1:*"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_static_file_names_no_other_host(path: Path) -> None:
    """The pages load nothing from other hosts; the only allowed address is SVG's namespace."""
    text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert re.findall(r"(?:https?:|wss?:|ftp:)?//[\w\[]", re.sub(r"(?m)^\s*//.*$", "", text)) == []
    assert "@import" not in text


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".html"], ids=lambda path: path.name)
def test_html_has_nothing_inline_and_its_links_exist(chain: Chain, path: Path) -> None:
    """The policy would block inline scripts, styles and handlers; a wrong link would break the page."""
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    named = re.findall(r'(?:src|href)="(/[^"]*)"', text)
    assert named
    assert [name for name in named if chain.get(name).status_code != 200] == []


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".js"], ids=lambda path: path.name)
def test_scripts_use_only_existing_files_and_ids(path: Path) -> None:
    """Every import has its file, and every id that a script looks up is in a page."""
    text = path.read_text(encoding="utf-8")
    imported = re.findall(r"from '(\.[^']+)'", text)
    assert [name for name in imported if not (path.parent / name).is_file()] == []
    pages = "".join(file.read_text(encoding="utf-8") for file in FILES if file.suffix == ".html")
    assert [name for name in re.findall(r"byId\('([^']+)'\)", text) if f'id="{name}"' not in pages] == []


def test_unchanged_file_returns_304(chain: Chain) -> None:
    """The browser asks every time, so that a new version is used at once."""
    first = chain.get("/page/main.js")
    assert first.headers["Cache-Control"] == "no-cache"
    assert chain.get("/page/main.js", **{"If-None-Match": first.headers["ETag"]}).status_code == 304
    emoji = chain.get("/page/emoji.json")
    assert "max-age=3600" in emoji.headers["Cache-Control"]
    assert chain.get("/page/emoji.json", **{"If-None-Match": emoji.headers["ETag"]}).status_code == 304


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/../views.py", "/page/%2e%2e/views.py"])
def test_unknown_file_returns_404_as_a_problem_document(chain: Chain, path: str) -> None:
    """Files outside the static folder are not served."""
    answer = chain.get(path)
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


def test_page_may_connect_to_subscribers_of_other_names(chain: Chain) -> None:
    """The page is the same at every name of the machine; its policy has that name and those of the subscribers."""
    chain.announce("a", 1)
    chain.announce("b", 1)
    for host in ("localhost", "127.0.0.1", "live.example"):
        answer = chain.get("/", host=f"{host}:8080")
        assert answer.status_code == 200
        sources = " ".join(["'self'", *(f"{name}:* ws://{name}:* wss://{name}:*" for name in (host, "a", "b"))])
        assert f"connect-src {sources};" in answer.headers["Content-Security-Policy"]


def test_refused_page_is_loaded_and_learns_why(chain: Chain) -> None:
    """Behind a tunnel the page has another port: its scripts load, and POST /clients names the setting."""
    tunnel = {"host": "127.0.0.1:9999", "Origin": "http://127.0.0.1:9999"}
    for path in ("/page/main.js", "/page/ops.js", "/page/settings.json"):
        assert chain.get(path, **tunnel).status_code == 200
    answer = chain.http.post("/clients", headers={"Host": tunnel["host"], "Origin": tunnel["Origin"]})
    assert answer.status_code == 403
    assert "add http://127.0.0.1:9999 to the setting origins" in answer.get_json()["detail"]


def test_every_page_may_run_the_scripts_and_only_those(chain: Chain) -> None:
    """An embed on a page that is not listed loads, to say what to set; it can read no data."""
    evil = {"Origin": "http://evil.example"}
    for path in (f"/page/{path.relative_to(STATIC)}" for path in FILES if path.suffix == ".js"):
        assert chain.get(path, **evil).headers.get_all("Access-Control-Allow-Origin") == ["*"]
    for path in ("/page/settings.json", "/page/emoji.json", "/page/index.html"):
        assert "Access-Control-Allow-Origin" not in chain.get(path, **evil).headers
    own = chain.get("/page/embed.js", Origin="http://127.0.0.1:8080")
    assert own.headers.get_all("Access-Control-Allow-Origin") == ["http://127.0.0.1:8080"]


def test_settings_have_urls_and_the_first_window_to_replay(chain: Chain) -> None:
    """Without windows there is nothing to replay; otherwise the last twenty windows are replayed."""
    document = chain.get("/page/settings.json").get_json()
    assert document["ingest_url"] == "http://127.0.0.1:8000"
    assert (document["trigger_s"], document["group_size"]) == (6.0, 10)
    assert document["after"] is None
    assert abs(document["now_ms"] - time.time() * 1000) < 60_000
    chain.emit(33)
    assert chain.get("/page/settings.json").get_json()["after"] == "e:13"


def test_earlier_stops_at_the_first_window() -> None:
    """No id is before window 0 of the epoch."""
    assert earlier("a:b:7", 20) == "a:b:0"


def test_watching_limits_the_rate_of_requests(chain: Chain) -> None:
    """All pages together ask at most a hundred times per second."""
    assert chain.get("/watching").get_json() == {"watching": 0, "registered": 0, "again_s": 5}
    chain.announce("a", 3)
    chain.announce("b", 4)
    chain.http.post("/clients")
    assert chain.get("/watching").get_json() == {"watching": 7, "registered": 1, "again_s": 5}
    assert watching_document([Announcement("a", "1", "http://a", 5_000, 0)], 0).again_s == 50


@pytest.mark.parametrize(
    ("given", "host", "url", "connect"),
    [
        ("", "10.0.0.7:8080", "http://10.0.0.7:8000", "'self' 10.0.0.7:* ws://10.0.0.7:* wss://10.0.0.7:*"),
        ("", "[::1]:8080", "http://[::1]:8000", "'self' http: https: ws: wss:"),
        (
            "https://in.example:444/x/",
            "live.example",
            "https://in.example:444/x",
            "'self' live.example:* ws://live.example:* wss://live.example:* https://in.example:444",
        ),
        ("", "", "http://127.0.0.1:8000", "'self' http: https: ws: wss:"),
    ],
)
def test_ingest_url_is_the_setting_or_the_pages_host(given: str, host: str, url: str, connect: str) -> None:
    """The policy allows the page to connect to exactly that URL."""
    values = Settings().replace(ingest_url=given)
    assert ingest_url(values, "http", host) == url
    assert f"connect-src {connect};" in policy(values, host)


def test_ops_data_has_all_sources(chain: Chain) -> None:
    """Windows, Spark's progress, the lag and the subscribers are in one document; unreadable records are skipped."""
    chain.announce("a", 3)
    chain.emit(1)
    chain.bus.ensure(NAMES.events)
    writer = chain.bus.writer()
    for _ in range(9):
        writer.send(NAMES.events.name, b"{}")
    with closing(DeadLetters(chain.bus, NAMES, "spark")) as letters:
        for offset in (7, 7, 8):
            letters.put(NAMES.events.name, Record(0, offset, 0, None, b"nonsense"), "not a reaction")
    progress = {
        "batchId": 1,
        "timestamp": "2026-11-24T20:00:00.000Z",
        "numInputRows": 4,
        "durationMs": {"triggerExecution": 350},
        "sources": [{"endOffset": {"emoji-events": {"0": 4, "1": 0}}}],
    }
    writer.send(NAMES.progress.name, b"nonsense")
    writer.send(NAMES.aggregates.name, None)
    writer.send(NAMES.progress.name, msgspec.json.encode(progress))
    until(lambda: chain.get("/ops/data").get_json()["lag"] == 5, "the lag is shown")
    until(lambda: chain.get("/ops/data").get_json()["dead_letters"] == 2, "the letters are counted")
    document = chain.get("/ops/data").get_json()
    assert document["batch"]["newest_s"] == 0.35
    assert [window["id"] for window in document["windows"]] == ["e:1"]
    assert [(member["cluster"], member["subscriber"], member["clients"]) for member in document["subscribers"]] == [
        ("1", "a", 3)
    ]
    assert set(document) == {
        *("now_ms", "trigger_s", "arriving_per_s", "counted_per_s", "lag", "batch", "watching", "malformed"),
        "dead_letters",
        *("windows", "batches", "samples", "subscribers", "alerts"),
    }


def test_unreadable_topic_is_an_alert_until_it_can_be_read(chain: Chain) -> None:
    """The events topic does not exist at first; the alert ends when it does."""

    def titles() -> list[str]:
        return [alert["title"] for alert in chain.get("/ops/data").get_json()["alerts"]]

    until(lambda: "Kafka cannot be read" in titles(), "the alert is raised")
    chain.bus.ensure(NAMES.events)
    until(lambda: "Kafka cannot be read" not in titles(), "the alert is cleared")
