"""The browser's routes: the page at `/`, the operator's view at `/ops`, and the documents that both fetch."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

import flask

from pipeline.addresses import url_of
from pipeline.flask_answers import problem_response, uncached_json
from pipeline.http_messages import PageSettings, Watching
from pipeline.messages import Announcement
from pipeline.origins import hostname
from pipeline.problems import BLANK, Refusal
from pipeline.registry.registrations import Registrations
from pipeline.registry.web import picker
from pipeline.registry.web.alerts import Member
from pipeline.registry.web.observer import Observer
from pipeline.settings import Settings

# A page that opens gets this number of past windows, to show something at once.
REPLAYED = 20
# All pages together ask for the number of viewers at most this often per second, and each page at most every 5 s.
WATCHING_PER_S = 100
WATCHING_S = 5
# Everything comes from this host, nothing is inline; `connect` lists the hosts of ingest and the subscribers.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


def create_pages(registrations: Registrations, observer: Observer, values: Settings) -> flask.Blueprint:
    """Return the routes; the registry's application registers them."""
    pages = flask.Blueprint("pages", __name__, static_folder="static", static_url_path="/page")

    @pages.get("/")
    def page() -> flask.Response:
        return pages.send_static_file("index.html")

    @pages.get("/ops")
    def ops() -> flask.Response:
        return pages.send_static_file("ops.html")

    @pages.get("/page/settings.json")
    def settings() -> flask.Response:
        newest = observer.newest_event_id()
        return uncached_json(
            PageSettings(
                ingest_url=ingest_url(values, flask.request.scheme, flask.request.host),
                trigger_s=values.trigger_s,
                group_size=values.group_size,
                after=None if newest is None else earlier(newest, REPLAYED),
                now_ms=registrations.wall_ns() // 1_000_000,
            )
        )

    @pages.get("/page/emoji.json")
    def emoji() -> flask.Response:
        response = flask.Response(picker.document(), content_type="application/json")
        response.cache_control.max_age = 3600
        response.add_etag()
        response.make_conditional(flask.request)
        return response

    @pages.get("/watching")
    def watching() -> flask.Response:
        with registrations.lock:
            live = registrations.assignments.live(registrations.clock_ns())
            registered = len(registrations.assignments)
        return uncached_json(watching_document(live, registered))

    @pages.get("/ops/data")
    def data() -> flask.Response:
        with registrations.lock:
            now_ns, assignments = registrations.clock_ns(), registrations.assignments
            members = [
                Member(announcement, assignments.is_live(announcement, now_ns), now_ns - announcement.announced_ns)
                for announcement in assignments.subscribers()
            ]
        return uncached_json(observer.document(members))

    @pages.after_request
    def guard(response: flask.Response) -> flask.Response:
        with registrations.lock:
            urls = [announcement.url for announcement in registrations.assignments.subscribers()]
        if response.status_code == 412:
            # werkzeug leaves the whole file in it.
            response.close()
            response = problem_response(
                Refusal(
                    412,
                    "Precondition Failed",
                    "If-Match does not name the current version: send the ETag of a new answer, or no If-Match",
                    problem_type=BLANK,
                )
            )
        response.headers["Content-Security-Policy"] = policy(values, flask.request.host, urls)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        # A browser keeps some of these; a page of another origin must not get one without its CORS headers.
        response.vary.add("Origin")
        return response

    return pages


def ingest_url(values: Settings, scheme: str, host: str) -> str:
    """Return the URL of ingest for a page that was opened at `host`."""
    if values.ingest_url:
        return values.ingest_url.rstrip("/")
    return url_of(hostname(host) or values.host, values.ingest_port, scheme)


def policy(values: Settings, host: str, subscriber_urls: Iterable[str] = ()) -> str:
    """Return the Content-Security-Policy of a page that was opened at `host`.

    A page connects to ingest, and to the subscribers by HTTP or WebSocket: these may have another name than `host`, and
    one that starts later has another port.
    """
    names = dict.fromkeys((hostname(host), *(urlsplit(url).hostname or "" for url in subscriber_urls)))
    sources = ["'self'"]
    if all(name and ":" not in name for name in names):
        # A host without a scheme means http and https only.
        sources += [f"{scheme}{name}:*" for name in names for scheme in ("", "ws://", "wss://")]
    else:
        # A policy cannot name an IPv6 address (CSP 3, section 2.3.1): then it allows any host.
        sources += ["http:", "https:", "ws:", "wss:"]
    if values.ingest_url:
        ingest = urlsplit(values.ingest_url)
        sources.append(f"{ingest.scheme}://{ingest.netloc}")
    return POLICY.format(connect=" ".join(sources))


def earlier(event_id: str, windows: int) -> str:
    """Return the id of the window that is `windows` before `event_id`, or of the epoch's first window."""
    epoch, _, number = event_id.rpartition(":")
    return f"{epoch}:{max(0, int(number) - windows)}"


def watching_document(live: list[Announcement], registered: int) -> Watching:
    """Return the document of `GET /watching`: open streams, registered clients, and the time until the next request."""
    count = sum(announcement.clients for announcement in live)
    return Watching(count, registered, max(WATCHING_S, count // WATCHING_PER_S))
