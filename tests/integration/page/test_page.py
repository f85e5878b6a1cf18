"""The page in a real Chromium on a real chain: what a person sees, and goes on seeing when a subscriber dies.

A picture of each state is left in the run's folder `pictures` below pytest's temporary one, to be looked at.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from experiments.run import chain
from experiments.run.chain import Endpoints
from pipeline.bus.base import Reader
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.messages import Window, decode_window
from tests.harness.builders import reaction
from tests.harness.http import post_status
from tests.harness.live import subscriber_process
from tests.harness.page import PHONE, WINDOW_MS, live, needs_chromium, shows

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), needs_chromium]


@pytest.mark.parametrize("stage", ["ingest", "registry"])
def test_openapi_page_loads_nothing_else_and_follows_the_systems_colours(
    two_subscribers: Endpoints, visit: Callable[..., Any], stage: str
) -> None:
    """Its own policy admits its style; on a phone it is as wide as the screen."""
    url = f"{getattr(two_subscribers, stage)}/docs"
    papers = []
    for colours in ("light", "dark"):
        page = visit(url, PHONE, color_scheme=colours)
        assert page.locator("h1").inner_text().startswith("EmoStream: ")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
        assert page.evaluate("performance.getEntriesByType('resource').length") == 0
        papers.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert papers == ["rgb(255, 255, 255)", "rgb(22, 24, 29)"]


def given_out(aggregates: Reader, total: int) -> list[Window]:
    """The windows that come from Spark, once they hold `total` reactions together."""
    windows: list[Window] = []
    deadline_s = time.monotonic() + WINDOW_MS / 1000
    while sum(window.total for window in windows) < total and time.monotonic() < deadline_s:
        windows += [decode_window(record.value) for record in aggregates.poll(0.5)]
    assert sum(window.total for window in windows) == total
    return windows


def test_a_reaction_of_one_page_is_seen_on_another(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """It is sent by a button, said to be sent, and rises in the other's swarm, bars and ranking."""
    watcher = live(visit(f"{two_subscribers.registry}/"))
    assert watcher.locator("#quiet").is_visible()
    watcher.wait_for_function("() => document.querySelector('#watching').textContent === '1'", timeout=20_000)
    watcher.screenshot(path=pictures / "desk-quiet.png")
    sender = live(visit(f"{two_subscribers.registry}/", PHONE))
    sender.click('#quick [data-emoji="🎉"]')
    sender.wait_for_selector("#sent:has-text('Sent: party popper')")
    shows(watcher, "🎉")
    shows(sender, "🎉")
    assert watcher.locator("#chart li").count() >= 1
    assert watcher.locator("#total").inner_text() == "1"
    watcher.wait_for_function("() => document.querySelector('#watching').textContent === '2'", timeout=20_000)
    watcher.screenshot(path=pictures / "desk-live.png")
    sender.screenshot(path=pictures / "phone-live.png")


def test_localhost_is_led_to_where_the_stream_is(two_subscribers: Endpoints, visit: Callable[..., Any]) -> None:
    """A person who types localhost is connected all the same."""
    live(visit(two_subscribers.registry.replace("127.0.0.1", "localhost") + "/"))


def test_the_picker_works_by_keyboard_alone(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """Open, search, arrow to one, send it in a skin tone; the focus comes back to where it was."""
    page = live(visit(f"{two_subscribers.registry}/", color_scheme="dark"))
    page.focus("#more")
    page.keyboard.press("Enter")
    page.wait_for_selector("#choices [role=option]")
    page.screenshot(path=pictures / "desk-picker-dark.png")
    page.check('[name=tone][value="4"]')
    page.focus("#search")
    page.keyboard.type("waving ha")
    page.wait_for_selector("#found:has-text('1 found')")
    page.keyboard.press("ArrowDown")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "waving hand"
    page.keyboard.press("Enter")
    page.wait_for_selector("#sent:has-text('Sent: waving hand')")
    assert page.evaluate("document.activeElement.id") == "more"
    shows(page, "👋🏿")
    page.focus("#more")
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    assert page.evaluate("document.querySelector('#picker').open") is False


def test_the_arrows_walk_the_grid(two_subscribers: Endpoints, visit: Callable[..., Any]) -> None:
    """One option is in the order of Tab; the arrows, Home and End move it."""
    page = live(visit(f"{two_subscribers.registry}/"))
    page.click("#more")
    page.wait_for_selector("#choices [role=option]")
    page.focus("#choices [tabindex='0']")
    place = "[...document.querySelectorAll('#choices div')].indexOf(document.activeElement)"
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('#choices')).gridTemplateColumns.split(' ').length"
    )
    for key, expected in (("ArrowRight", 1), ("ArrowDown", 1 + columns), ("ArrowUp", 1), ("ArrowLeft", 0)):
        page.keyboard.press(key)
        assert page.evaluate(place) == expected
    page.keyboard.press("End")
    assert page.evaluate(f"{place} === document.querySelectorAll('#choices div').length - 1")
    assert page.locator("#choices [tabindex='0']").count() == 1


def test_a_crowd_is_shown_in_its_proportions(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """The ranking is that of the newest window, and nothing is missing; the pictures are to be looked at."""
    pages = [live(visit(f"{two_subscribers.registry}/", color_scheme=scheme)) for scheme in ("light", "dark")]
    sent = {"😂": 400, "❤️": 250, "🔥": 120, "👏": 60, "🎉": 25, "😢": 4}
    crowd = [reaction(f"fan-{number}", emoji) for emoji, count in sent.items() for number in range(count)]
    topic = topics(chain.settings_of(two_subscribers)).aggregates.name
    with (
        closing(KafkaBus(two_subscribers.bootstrap_servers)) as bus,
        closing(bus.reader(topic, bus.ends(topic))) as aggregates,
    ):
        assert post_status(f"{two_subscribers.ingest}/reactions", crowd) == 202
        windows = given_out(aggregates, sum(sent.values()))
    counted: Counter[str] = Counter()
    for window in windows:
        counted.update({reaction.emoji_type: reaction.count for reaction in window.reactions})
    assert counted == sent
    # A trigger may fall into the flush: then the crowd is in two windows, and the page shows the second.
    newest = {reaction.emoji_type: reaction.count for reaction in windows[-1].reactions}
    for page in pages:
        page.wait_for_function(
            "total => document.querySelector('#total').textContent === total",
            arg=str(windows[-1].total),
            timeout=WINDOW_MS,
        )
        seen = page.evaluate("[...document.querySelectorAll('#now .emoji')].map(it => it.textContent)")
        assert seen == sorted(newest, key=lambda emoji: newest[emoji], reverse=True)
    for page, scheme in zip(pages, ("light", "dark"), strict=True):
        page.wait_for_timeout(1_500)
        page.screenshot(path=pictures / f"desk-crowd-{scheme}.png")


def test_whoever_wants_no_motion_gets_a_tally(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """No sprite flies, the numbers are the same; the motion can be asked for."""
    page = live(visit(f"{two_subscribers.registry}/", PHONE, reduced_motion="reduce"))
    page.click('#quick [data-emoji="🔥"]')
    shows(page, "🔥")
    page.wait_for_selector("#tally:has-text('🔥')")
    assert page.locator("#swarm").is_hidden()
    page.screenshot(path=pictures / "phone-calm.png")
    page.click("#calm")
    assert page.locator("#swarm").is_visible()
    assert page.locator("#tally").is_hidden()


def test_a_killed_subscriber_costs_no_window_and_no_reload(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """The page says that it lost its connection, comes back by itself elsewhere, and its bars have no gap."""
    page = visit("about:blank")
    with page.expect_response(lambda answer: answer.url.endswith("/clients") and answer.status == 201) as registered:
        page.goto(f"{two_subscribers.registry}/")
    live(page)
    page.evaluate("document.body.dataset.mark = 'same document'")
    process = subscriber_process(two_subscribers, registered.value.json()["subscriber"])
    os.kill(process.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    page.wait_for_selector('#connection:not([data-kind="live"])', timeout=10_000)
    assert page.locator("#quiet").is_hidden()
    page.screenshot(path=pictures / "desk-lost.png")
    page.click('#quick [data-emoji="😮"]')
    live(page)
    print(f"connected again after {time.monotonic() - killed_s:.1f} s")
    shows(page, "😮")
    page.screenshot(path=pictures / "desk-again.png")
    assert page.evaluate("document.body.dataset.mark") == "same document"
    assert page.locator("#chart li.gap").count() == 0


# A page that has an API of its own: it registers, reacts, streams, and leaves.
OTHER_PAGE = """async ({ registry, ingest, transport }) => {
  const json = { 'Content-Type': 'application/json' };
  const post = (url, headers, body) => fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })
    .catch((error) => ({ status: error.name }));
  const reaction = { user_id: 'elsewhere', emoji_type: '🦄', timestamp: new Date().toISOString() };
  const reacted = await post(`${ingest}/reactions`, json, reaction);
  const refused = await post(`${ingest}/reactions`, json, {});
  const registered = await post(`${registry}/clients`, json, { transport });
  const seen = { reacted: reacted.status, refused: refused.status, registered: registered.status };
  if (registered.status !== 201) return seen;
  const client = await registered.json();
  const token = { Authorization: `Bearer ${client.token}` };
  const isSeen = (text) => text.includes('🦄');
  if (transport === 'sse') {
    const stream = await fetch(client.stream_url, { headers: { ...token, 'Last-Event-ID': 'earliest' } });
    let text = '';
    for await (const chunk of stream.body.pipeThrough(new TextDecoderStream())) if (isSeen((text += chunk))) break;
    seen.streamed = [stream.status, stream.redirected, isSeen(text)];
  } else {
    const ticket = await post(`${client.tickets_url}?after=earliest`, token);
    const socket = new WebSocket((await ticket.json()).url);
    seen.streamed = await new Promise((resolve) => {
      socket.onmessage = ({ data }) => isSeen(data) && resolve([200, false, true]);
      socket.onclose = ({ code, reason }) => resolve([code, reason]);
    });
  }
  seen.where = registered.headers.get('Location').startsWith(registry);
  seen.left = (await fetch(`${registry}/clients/${client.client_id}`, { method: 'DELETE', headers: token })).status;
  return seen;
}"""


@pytest.mark.parametrize("transport", ["sse", "websocket"])
def test_listed_page_of_another_origin_reacts_and_streams(
    two_subscribers: Endpoints, visit: Callable[..., Any], other_page: str, transport: str
) -> None:
    """It reads every answer, a refusal and a redirect included; after the redirect its browser sends Origin null."""
    page = visit(other_page)
    seen = page.evaluate(
        OTHER_PAGE,
        {"registry": two_subscribers.registry, "ingest": two_subscribers.ingest, "transport": transport},
    )
    streamed = [200, transport == "sse", True]
    assert seen == {"reacted": 202, "refused": 422, "registered": 201, "streamed": streamed, "where": True, "left": 204}


def test_page_of_an_unlisted_origin_is_blocked_with_a_reason(
    two_subscribers: Endpoints, browser: Any, other_page: str
) -> None:
    """The same page at another name of the machine: the browser blocks it, and the server's answer says what to set."""
    origin = other_page.replace("127.0.0.1", "localhost")
    answers = []
    with closing(browser.new_context()) as context:
        page = context.new_page()
        page.on("response", lambda answer: answers.append((answer.request.method, answer.url, answer.status)))
        page.goto(origin)
        chain_addresses = {"registry": two_subscribers.registry, "ingest": two_subscribers.ingest}
        seen = page.evaluate(OTHER_PAGE, {**chain_addresses, "transport": "sse"})
    assert seen == {"reacted": "TypeError", "refused": "TypeError", "registered": "TypeError"}
    for url in (f"{two_subscribers.ingest}/reactions", f"{two_subscribers.registry}/clients"):
        request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json", "Origin": origin})
        with pytest.raises(urllib.error.HTTPError) as raised:
            urllib.request.urlopen(request)
        with raised.value as refused:
            assert refused.code == 403
            assert f"add {origin} to the setting origins" in json.load(refused)["detail"]


@pytest.mark.parametrize("name", ["localhost", socket.gethostname()])
def test_page_is_live_at_every_name_of_the_machine(
    two_subscribers: Endpoints, visit: Callable[..., Any], name: str
) -> None:
    """The subscribers have another name than the page: the ticket of the redirect opens the stream."""
    address = two_subscribers.registry.replace("127.0.0.1", name)
    try:
        socket.create_connection((name, int(address.rpartition(":")[2])), timeout=5).close()
    except OSError:
        pytest.skip(f"{name} does not lead to 127.0.0.1 here")
    page = live(visit(f"{address}/"))
    page.click('#quick [data-emoji="👏"]')
    page.wait_for_selector("#sent:has-text('Sent: clapping hands')")
    assert page.url == f"{address}/"


# Six streams at each subscriber: as many connections as a browser opens to one server.
TAKE_ALL = """async (subscribers) => {
  window.streams = Object.fromEntries(subscribers.map((name) => [name, []]));
  while (Object.values(streams).some((open) => open.length < 6)) {
    const client = await (await fetch('/clients', { method: 'POST' })).json();
    if (streams[client.subscriber].length === 6) continue;
    const control = new AbortController();
    await fetch(`/clients/${client.client_id}/stream`, { signal: control.signal });
    streams[client.subscriber].push(control);
  }
}"""
NO_WEBSOCKETS = """window.WebSocket = class {
  constructor() { setTimeout(() => this.onclose({ code: 1006, reason: '' })); }
  close() {}
}"""


def test_page_is_live_when_the_browser_has_no_connection_left(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """A browser opens six connections to one server, so a seventh tab takes a WebSocket, and shows every window.

    Without WebSockets it says what to do, and connects by itself when another tab closes.
    """
    other = visit(f"{two_subscribers.registry}/ops")
    other.evaluate(TAKE_ALL, [each.subscriber for each in two_subscribers.subscribers])
    page = other.context.new_page()
    page.goto(f"{two_subscribers.registry}/")
    live(page).click('#quick [data-emoji="😢"]')
    shows(page, "😢")
    # Otherwise the next tab would share its stream.
    page.close()

    page = other.context.new_page()
    page.add_init_script(NO_WEBSOCKETS)
    page.goto(f"{two_subscribers.registry}/")
    page.wait_for_selector("#notice:has-text('close one of them')", timeout=20_000)
    assert page.locator("#connection").get_attribute("data-kind") != "live"
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.screenshot(path=pictures / f"desk-crowded-{scheme}.png")
    other.evaluate("() => Object.values(streams).forEach((open) => open[0].abort())")
    live(page)
    assert page.locator("#notice").is_hidden()


def test_ingest_that_is_away_is_said_in_words(two_subscribers: Endpoints, visit: Callable[..., Any]) -> None:
    """No answer, a refusal with its wait, and a limit: each has its sentence."""
    page = live(visit(f"{two_subscribers.registry}/"))
    answers = iter(
        [
            (429, {"Retry-After": "1"}, "{}"),
            (503, {"Retry-After": "5"}, "{}"),
            (422, {}, '{"errors": [{"detail": "that is not one emoji"}]}'),
        ]
    )

    def refuse(route: Any) -> None:
        status, headers, body = next(answers)
        allowed = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
        route.fulfill(status=status, headers={**headers, **allowed}, body=body)

    page.route("**/reactions", refuse)
    for words in ("You send reactions too fast", "Try again in 5 seconds", "cannot be counted: that is not one emoji"):
        page.click('#quick [data-emoji="👏"]')
        page.wait_for_selector(f'#sent.refused:has-text("{words}")')
    page.unroute("**/reactions")
    page.route("**/reactions", lambda route: route.abort())
    page.click('#quick [data-emoji="👏"]')
    page.wait_for_selector('#sent.refused:has-text("there is no answer")')


def test_page_at_an_address_that_is_not_allowed_says_what_to_set(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """The registry's own words stand on the page until it is connected."""
    page = visit("about:blank")
    detail = "Origin is 'http://127.0.0.1:9999': add it to the setting origins"
    page.route(
        "**/clients",
        lambda route: route.fulfill(status=403, content_type="application/problem+json", json={"detail": detail}),
    )
    page.goto(f"{two_subscribers.registry}/")
    page.wait_for_selector(f'#notice:has-text("{detail}")')
    page.wait_for_selector('#connection:has-text("Not allowed here")')
    page.screenshot(path=pictures / "desk-not-allowed.png")
    page.unroute("**/clients")
    live(page)
    assert page.locator("#notice").is_hidden()


def test_the_operators_view_shows_the_chain(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """Figures, subscribers and no alert, from the registry and from ingest itself."""
    page = visit(f"{two_subscribers.registry}/ops")
    page.wait_for_selector('#state[data-kind="live"]')
    page.wait_for_selector("#ingest:has-text('OK')")
    page.wait_for_function("() => document.querySelectorAll('#subscribers tr').length === 2")
    page.wait_for_function("() => document.querySelector('#lag').textContent !== '–'", timeout=20_000)
    page.wait_for_function("() => document.querySelectorAll('#batch-chart rect').length > 0", timeout=20_000)
    page.screenshot(path=pictures / "ops.png", full_page=True)


def test_two_thousand_sprites_fly_and_the_frame_rate_is_told(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """The pool fills and empties; how fast the frames come is printed, since a machine without a GPU draws by CPU."""
    page = live(visit(f"{two_subscribers.registry}/"))
    measured = page.evaluate(
        """async () => {
          const { Swarm, SPRITES_MAX } = await import('/page/live/swarm.js');
          const canvas = document.querySelector('#swarm');
          const swarm = new Swarm(canvas);
          const kinds = ['😂', '❤️', '👏', '🎉', '🔥', '😮', '😢', '👍'];
          const crowd = kinds.map((emoji_type) => ({ emoji_type, representatives: 2000 }));
          swarm.show(crowd, 6);
          setTimeout(() => swarm.show(crowd, 6), 6000);
          const frames = [];
          let most = 0;
          await new Promise((done) => {
            let last = performance.now();
            const began = last;
            const tick = (now) => {
              if (swarm.count > 0.9 * SPRITES_MAX) frames.push(now - last);
              most = Math.max(most, swarm.count);
              last = now;
              if (now - began < 12000) requestAnimationFrame(tick); else done();
            };
            requestAnimationFrame(tick);
          });
          frames.sort((a, b) => a - b);
          const at = (share) => frames[Math.floor(frames.length * share)];
          return { most, frames: frames.length, p50: at(0.5), p95: at(0.95) };
        }"""
    )
    page.screenshot(path=pictures / "desk-two-thousand.png")
    print(f"at most {measured['most']} sprites; a frame took {measured['p50']:.1f} ms, p95 {measured['p95']:.1f} ms")
    assert measured["most"] > 1_900
    assert measured["frames"] > 10


STREAMS = [
    (["id: a:1\ndata: x\n\n"], [["a:1", "message", "x"]]),
    (
        ["\ufeffevent: window\r", "\ndata: 1\r\n", "data:2\r\rdata: 3\n", "\n"],
        [["", "window", "1\n2"], ["", "message", "3"]],
    ),
    ([": beat\n\n", "retry: 50\n\n", "data: never ended\n"], []),
    (["id: 1\n\nid: a\0b\ndata\n\n"], [["1", "message", ""]]),
]


@pytest.mark.parametrize(("chunks", "events"), STREAMS)
def test_the_pages_parser_follows_the_standard(
    two_subscribers: Endpoints, visit: Callable[..., Any], chunks: list[str], events: list[list[str]]
) -> None:
    """Chunks cut anywhere, every line end, comments, a byte order mark, an id with NUL."""
    page = visit(f"{two_subscribers.registry}/ops")
    parsed = page.evaluate(
        """async (chunks) => {
          const { SseParser } = await import('/page/live/sse.js');
          const parser = new SseParser();
          return chunks.flatMap((chunk) => parser.feed(chunk)).map(({ id, type, data }) => [id, type, data]);
        }""",
        chunks,
    )
    assert parsed == events
