"""The browser's routes: the page at `/`, the operator's view at `/ops`, and the little that both ask for."""

from __future__ import annotations

from urllib.parse import urlsplit

import flask

from pipeline.addresses import url_of
from pipeline.messages import Announcement
from pipeline.origins import hostname
from pipeline.registry.app import answer
from pipeline.registry.registrations import Registrations
from pipeline.registry.web import picker
from pipeline.registry.web.alerts import Member
from pipeline.registry.web.observer import Observer
from pipeline.settings import Settings

# So many windows a page that opens has replayed, to have something to show at once.
REPLAYED = 20
# The number watching: no more requests a second than this, whoever watches, and no page more often than that.
WATCHING_PER_S = 100
WATCHING_S = 5
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
# Everything from here, nothing inline; `connect` is where ingest and the subscribers listen.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)


def create_pages(enrolment: Registrations, observer: Observer, values: Settings, registry_url: str) -> flask.Blueprint:
    """Return the routes, to be registered by the registry's application."""
    pages = flask.Blueprint("pages", __name__, static_folder="static", static_url_path="/page")

    @pages.get("/")
    def page() -> flask.Response:
        # The stream's cookie and its origin are those of one host; localhost is another than 127.0.0.1.
        asked, ours = hostname(flask.request.host), urlsplit(registry_url).hostname or ""
        if asked != ours and {asked, ours} <= LOOPBACK:
            return flask.Response(status=302, headers={"Location": f"{registry_url}/", "Cache-Control": "no-store"})
        return pages.send_static_file("index.html")

    @pages.get("/ops")
    def ops() -> flask.Response:
        return pages.send_static_file("ops.html")

    @pages.get("/page/settings.json")
    def settings() -> flask.Response:
        newest = observer.newest_event_id()
        return answer(
            {
                "ingest_url": ingest_url(values, flask.request.scheme, flask.request.host),
                "registry_url": registry_url,
                "trigger_s": values.trigger_s,
                "group_size": values.group_size,
                "after": None if newest is None else earlier(newest, REPLAYED),
                "now_ms": enrolment.clock_ns() // 1_000_000,
            }
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
        with enrolment.lock:
            live = enrolment.roster.live(enrolment.clock_ns())
        return answer(watched(live))

    @pages.get("/ops/data")
    def data() -> flask.Response:
        with enrolment.lock:
            now_ns, roster = enrolment.clock_ns(), enrolment.roster
            members = [Member(said, roster.is_live(said, now_ns)) for said in roster.subscribers()]
        return answer(observer.document(members))

    @pages.after_request
    def guard(response: flask.Response) -> flask.Response:
        response.headers["Content-Security-Policy"] = policy(values, flask.request.host)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    return pages


def ingest_url(values: Settings, scheme: str, host: str) -> str:
    """Return where a page that was reached at `host` reaches ingest."""
    if values.ingest_url:
        return values.ingest_url.rstrip("/")
    return url_of(hostname(host) or values.host, values.ingest_port, scheme)


def policy(values: Settings, host: str) -> str:
    """Return the Content-Security-Policy of a page that was reached at `host`."""
    name = hostname(host)
    # A policy cannot name an IPv6 address (CSP 3, section 2.3.1): then any host will have to do.
    sources = ["'self'", f"{name}:*" if name and ":" not in name else "http: https:"]
    if values.ingest_url:
        ours = urlsplit(values.ingest_url)
        sources.append(f"{ours.scheme}://{ours.netloc}")
    return POLICY.format(connect=" ".join(sources))


def earlier(event_id: str, windows: int) -> str:
    """Return the id of the window so many before `event_id`, or of the epoch's first."""
    epoch, _, number = event_id.rpartition(":")
    return f"{epoch}:{max(0, int(number) - windows)}"


def watched(live: list[Announcement]) -> dict[str, int]:
    """Return what `GET /watching` answers: how many watch, and when to ask again."""
    count = sum(said.clients for said in live)
    return {"watching": count, "again_s": max(WATCHING_S, count // WATCHING_PER_S)}
