"""What people enjoy on the page, in a real Chromium on a real chain: own taps, many tabs, the last hour, an embed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from experiments.run.chain import Endpoints
from tests.harness.builders import reaction
from tests.harness.http import post_status
from tests.harness.page import DESK, PHONE, WINDOW_MS, live, needs_chromium, shows
from tests.harness.paths import REPOSITORY
from tests.harness.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600), needs_chromium]

# Notes, for each frame of the swarm, how many sprites of each emoji it draws, and the moments of clicks.
FRAMES = """
window.seen = { taps: [], frames: [] };
const kinds = new WeakMap();
const { fillText } = OffscreenCanvasRenderingContext2D.prototype;
OffscreenCanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  kinds.set(this.canvas, text);
  return fillText.call(this, text, ...rest);
};
const { transferToImageBitmap } = OffscreenCanvas.prototype;
OffscreenCanvas.prototype.transferToImageBitmap = function () {
  const bitmap = transferToImageBitmap.call(this);
  kinds.set(bitmap, kinds.get(this));
  return bitmap;
};
const { clearRect, drawImage } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.clearRect = function (...box) {
  seen.frames.push({ ms: performance.now(), sprites: {} });
  return clearRect.apply(this, box);
};
CanvasRenderingContext2D.prototype.drawImage = function (bitmap, ...place) {
  const { sprites } = seen.frames.at(-1);
  sprites[kinds.get(bitmap)] = (sprites[kinds.get(bitmap)] ?? 0) + 1;
  return drawImage.call(this, bitmap, ...place);
};
addEventListener('click', (event) => seen.taps.push(event.timeStamp), true);
"""
MOST_AT_ONCE = "emoji => Math.max(0, ...seen.frames.map(({ sprites }) => sprites[emoji] ?? 0))"
COUNT_OF = """emoji => [...document.querySelectorAll('#now li')]
  .filter((item) => item.querySelector('.emoji').textContent === emoji).map((item) => item.lastChild.textContent)"""
# The numbers of the windows that the bars stand for.
BARS = "[...document.querySelectorAll('#chart li')].map((item) => Number(item.title.match(/window (\\d+)/)[1]))"


def test_own_tap_is_drawn_before_any_answer_and_shown_once(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """It flies while its request waits; its window comes and adds no sprite to it; another viewer sees one too."""
    emoji = "😮"
    sender = live(visit(f"{two_subscribers.registry}/", PHONE, script=FRAMES))
    watcher = live(visit(f"{two_subscribers.registry}/", script=FRAMES))
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    sender.route("**/reactions", hold)
    sender.click(f'#quick [data-emoji="{emoji}"]')
    sender.wait_for_function("emoji => seen.frames.some(({ sprites }) => sprites[emoji])", arg=emoji)
    assert sender.locator("#sent").inner_text() == ""
    delay_ms = sender.evaluate(
        "emoji => seen.frames.find(({ sprites }) => sprites[emoji]).ms - seen.taps.at(-1)", emoji
    )
    print(f"own tap on screen after {delay_ms:.0f} ms")
    sender.screenshot(path=pictures / "phone-own-tap.png")
    until(lambda: held != [] or sender.wait_for_timeout(10), "the request is sent")
    held[0].continue_()
    for page in (sender, watcher):
        shows(page, emoji)
        assert page.evaluate(COUNT_OF, emoji) == ["1"]
    watcher.wait_for_function(f"emoji => ({MOST_AT_ONCE})(emoji) === 1", arg=emoji)
    # The window's sprites start with its first frame.
    sender.evaluate("() => new Promise((done) => setTimeout(() => requestAnimationFrame(done), 500))")
    assert sender.evaluate(MOST_AT_ONCE, emoji) == 1


def stream_requests(context: Any) -> list[Any]:
    """Return a list that the requests of a visitor's tabs for a stream are added to."""
    requests: list[Any] = []

    def note(request: Any) -> None:
        # The redirect leads to a second one.
        if request.url.endswith("/stream") and request.redirected_from is None:
            requests.append(request)

    context.on("request", note)
    return requests


def react(endpoints: Endpoints, emoji: str) -> None:
    """Send one reaction as another person."""
    assert post_status(f"{endpoints.ingest}/reactions", [reaction("somebody", emoji)]) == 202


def test_ten_tabs_are_live_with_one_stream(two_subscribers: Endpoints, visit: Callable[..., Any]) -> None:
    """All show every window; when the tab that has the stream closes, another goes on, and none has a gap."""
    first = visit("about:blank")
    streams = stream_requests(first.context)
    tabs = [first, *(first.context.new_page() for _ in range(9))]
    for tab in tabs:
        tab.goto(f"{two_subscribers.registry}/")
    for tab in tabs:
        live(tab)
    react(two_subscribers, "🐙")
    for tab in tabs:
        shows(tab, "🐙")
    assert len(streams) == 1
    leader = streams[0].frame.page
    leader.close()
    tabs.remove(leader)
    react(two_subscribers, "🦀")
    for tab in tabs:
        shows(tab, "🦀")
        numbers = tab.evaluate(BARS)
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert tab.locator("#chart li.gap").count() == 0
    assert len(streams) == 2


# Playwright shows all tabs at once: this hides one as a browser does, and notes what it starts meanwhile.
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event('visibilitychange'));
}"""
COSTS = """
window.costs = [];
for (const name of ['setTimeout', 'setInterval', 'requestAnimationFrame', 'fetch']) {
  const original = window[name];
  window[name] = function (callback, ...rest) {
    if (document.hidden) costs.push(name);
    const counted = function (...given) {
      if (document.hidden) costs.push(`${name} runs`);
      return callback.apply(this, given);
    };
    return original.call(window, typeof callback === 'function' ? counted : callback, ...rest);
  };
}
"""


@pytest.mark.parametrize("others", [0, 1])
def test_hidden_tab_costs_nothing_and_catches_up_without_a_gap(
    two_subscribers: Endpoints, visit: Callable[..., Any], others: int
) -> None:
    """It starts no request, timer or frame, and has no stream. Shown again it has every window.

    These come from the subscriber, or from another tab that is live meanwhile.
    """
    tab = live(visit(f"{two_subscribers.registry}/", script=COSTS))
    streams = stream_requests(tab.context)
    reference = live(visit(f"{two_subscribers.registry}/"))
    for _ in range(others):
        other = tab.context.new_page()
        other.goto(f"{two_subscribers.registry}/")
        live(other)
    react(two_subscribers, "🦩")
    shows(tab, "🦩")
    tab.evaluate(HIDE, True)
    tab.evaluate("costs.length = 0")
    for emoji in ("🦔", "🐢"):
        react(two_subscribers, emoji)
        shows(reference, emoji)
    assert tab.evaluate("costs") == []
    assert tab.locator("#now .emoji").all_inner_texts() == ["🦩"]
    tab.evaluate(HIDE, False)
    shows(tab, "🐢")
    missed = tab.evaluate(BARS)
    assert missed == list(range(missed[0], missed[0] + len(missed)))
    assert missed[-1] == reference.evaluate(BARS)[-1]
    assert len(missed) >= 3
    assert len(streams) == 1
    assert tab.locator("#chart li.gap").count() == 0


def test_last_hour_is_a_strip_to_scrub_through_by_keyboard(
    two_subscribers: Endpoints, visit: Callable[..., Any], pictures: Path
) -> None:
    """It has every window that the API gives; the arrows show one after another, and End is live again."""
    page = live(visit(f"{two_subscribers.registry}/"))
    for emoji in ("🍇", "🍉"):
        react(two_subscribers, emoji)
        shows(page, emoji)
    newest = page.evaluate(BARS)[-1]
    page.focus("#replay-open")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.activeElement.id === 'replay-at'")
    shown = page.evaluate("document.querySelector('#replay-at').max")
    assert int(shown) >= newest - 1
    page.keyboard.press("ArrowLeft")
    shows(page, "🍇")
    assert "replay of" in page.locator("#age").inner_text()
    assert "1 reaction, most 🍇" in page.locator("#replay-at").get_attribute("aria-valuetext")
    # A new window does not take the stage from a past one.
    react(two_subscribers, "🍓")
    page.wait_for_function("most => Number(document.querySelector('#replay-at').max) > most", arg=int(shown))
    assert page.locator("#now .emoji").all_inner_texts() == ["🍇"]
    page.screenshot(path=pictures / "desk-replay.png")
    page.keyboard.press("End")
    shows(page, "🍓")
    assert page.locator("#age").inner_text().endswith("ago")
    page.click("#replay-close")
    assert page.evaluate("document.activeElement.id") == "replay-open"


def policy_of_the_documents(endpoints: Endpoints) -> str:
    """Return the Content-Security-Policy that docs/embed.md gives, with the addresses of a chain."""
    text = (REPOSITORY / "docs" / "embed.md").read_text(encoding="utf-8")
    policy = text.partition("Content-Security-Policy: ")[2].partition("\n```")[0]
    assert "http://127.0.0.1:8080" in policy
    return policy.replace("\n", " ").replace("http://127.0.0.1:8080", endpoints.registry)


def test_embed_on_a_listed_page_shows_the_swarm_and_reacts(
    two_subscribers: Endpoints, visit: Callable[..., Any], other_page: str, pictures: Path
) -> None:
    """Also where the page's own Content-Security-Policy allows only what the documents say."""
    query = {"registry": two_subscribers.registry, "policy": policy_of_the_documents(two_subscribers)}
    page = visit(f"{other_page}/?{urlencode(query)}", script=FRAMES, color_scheme="dark")
    page.wait_for_selector("emo-stream >> text=Live", timeout=20_000)
    watcher = live(visit(f"{two_subscribers.registry}/"))
    page.click("emo-stream >> button:has-text('🎉')")
    page.wait_for_selector("emo-stream >> text=Sent")
    shows(watcher, "🎉")
    page.wait_for_selector("emo-stream >> li:has-text('🎉 1')", timeout=WINDOW_MS)
    assert page.evaluate(MOST_AT_ONCE, "🎉") == 1
    page.screenshot(path=pictures / "embed-dark.png")


def test_embed_on_an_unlisted_page_fails_closed_and_says_what_to_set(
    two_subscribers: Endpoints, browser: Any, other_page: str, pictures: Path
) -> None:
    """It registers nothing, its buttons do nothing, and the element and the console name the origin and the setting."""
    origin = other_page.replace("127.0.0.1", "localhost")
    posts, errors = [], []
    with closing(browser.new_context(viewport=DESK)) as context:
        page = context.new_page()
        page.on("request", lambda request: request.method != "GET" and posts.append(request.url))
        page.on("console", lambda message: message.type == "error" and errors.append(message.text))
        page.goto(f"{origin}/?{urlencode({'registry': two_subscribers.registry})}")
        page.wait_for_selector("emo-stream >> [role=alert]")
        said = page.locator("emo-stream >> [role=alert]").inner_text()
        page.screenshot(path=pictures / "embed-refused.png")
        assert page.locator("emo-stream >> button:enabled").count() == 0
    assert f"add {origin} to the setting origins" in said
    assert [error for error in errors if said in error] == [f"<emo-stream>: {said}"]
    assert posts == []
