"""The pictures of the documents: the page with a crowd, an embed, a terminal, JMeter's window, and a run's report.

`make pictures` starts a small chain, sends it a seeded crowd, opens the page in Chromium, and writes `docs/images/`.
With Xvfb, xdotool and a Java that has windows it also opens the plan in JMeter and takes its window.
`make pictures RUN=reports/single/runs/<moment>` also takes the report of that run, and its latency by percentile.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from PIL import Image, ImageGrab
from playwright.sync_api import Browser, sync_playwright

from experiments.cli import screen
from experiments.run import chain
from pipeline.messages import TypeCount, Window
from pipeline.units import NS_PER_S

IMAGES = Path(__file__).resolve().parent / "images"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
SETTINGS: dict[str, object] = {"trigger_s": 2.0, "clusters": 1, "subscribers": 1, "ingest_workers": 1}
PAGE = {"width": 960, "height": 700}
EMBED = {"width": 720, "height": 520}
REPORT = {"width": 1000, "height": 900}
JMETER = (1280, 800)
JMETER_START_S = 60.0
# Where its tree is: the line of the plan, the distance of lines, and the handle of a thread group.
JMETER_TREE_Y, JMETER_LINE, JMETER_HANDLE_X = 65, 20, 28
JMETER_FANS, JMETER_VIEWERS, JMETER_BAD_INPUT = 3, 4, 5
WINDOWS = 20
CROWD = {"😂": 9, "❤️": 7, "🎉": 6, "🔥": 5, "👏": 5, "😮": 3, "🥳": 2, "😢": 1, "🙌": 1, "💪": 1}
# The page shows the newest window a moment after its trigger.
SETTLE_S = 1.2
TERMINAL = (96, 24)
TERMINAL_CSS = """
main { position: relative; width: 98ch; height: 33.5em; background: #1d1f21; color: #d8dbde; font: 14px monospace }
main { padding: 0.6em 1ch; box-sizing: border-box }
span { position: absolute; white-space: pre; translate: 1ch 0.6em }
.dim { color: #8b9095 } .magenta { color: #d46cc3 } .green { color: #7fc97f } .bold { font-weight: bold }
"""


def send(ingest: str, lots: random.Random, reactions: int) -> None:
    """Post one array of reactions from a crowd of two hundred."""
    types = lots.choices(list(CROWD), weights=list(CROWD.values()), k=reactions)
    now = datetime.now(UTC).isoformat()
    body = [{"user_id": f"fan-{lots.randrange(200)}", "emoji_type": emoji, "timestamp": now} for emoji in types]
    request = urllib.request.Request(
        f"{ingest}/reactions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


def save(png: bytes, name: str) -> None:
    """Write a screenshot with a palette, which makes it several times smaller."""
    path = IMAGES / f"{name}.png"
    path.write_bytes(png)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size:,} bytes")


def page_pictures(browser: Browser, directory: Path) -> None:
    """Write `page-light.png` and `page-dark.png`, the registry's page while a crowd reacts, and `embed.png`."""
    lots = random.Random(1)
    trigger_s = float(str(SETTINGS["trigger_s"]))
    with chain.started(SETTINGS, directory) as endpoints:
        pages = {}
        for scheme in ("light", "dark"):
            page = browser.new_context(viewport=PAGE, color_scheme=scheme).new_page()
            page.goto(f"{endpoints.registry}/")
            page.wait_for_selector('#connection[data-kind="live"]', timeout=20_000)
            pages[f"page-{scheme}"] = page
        pages["embed"] = browser.new_context(viewport=EMBED, color_scheme="light").new_page()
        pages["embed"].goto(f"{endpoints.registry}/page/embed.html")
        pages["embed"].wait_for_selector("emo-stream >> text=Live", timeout=20_000)
        for step in range(2 * WINDOWS):
            time.sleep(trigger_s / 2 - time.time() % (trigger_s / 2))
            # A goal near the end: the crowd grows fourfold for a few windows.
            send(endpoints.ingest, lots, 320 if step in range(2 * WINDOWS - 7, 2 * WINDOWS - 2) else 60 + 2 * step)
        time.sleep(SETTLE_S)
        for name, page in pages.items():
            save(page.screenshot(), name)


def watch_picture(browser: Browser) -> None:
    """Write `watch.png`: a frame of `emostream watch`, as a terminal of this size shows it."""
    lots = random.Random(1)
    columns, rows = TERMINAL
    state = screen.State()
    state.opened()
    for number in range(WINDOWS):
        size = 900 if number == WINDOWS - 1 else 200 + 20 * number
        counted = Counter(lots.choices(list(CROWD), weights=list(CROWD.values()), k=size))
        counts = [TypeCount(emoji, count, -(-count // 10)) for emoji, count in counted.items()]
        window = Window("", number, number * 2 * NS_PER_S, 0, {}, size, counts, cluster="1")
        state.take(window, 2.0 * number, screen.swarm_room(columns, rows))
    pieces = [
        f'<span class="{piece.style.replace("bold ", "")}" style="left:{piece.column}ch;top:{row * 1.35}em">'
        f"{escape(piece.text)}</span>"
        for row, placed in enumerate(screen.frame(state, 2.0 * WINDOWS - 0.6, columns, rows))
        for piece in placed
    ]
    page = browser.new_context(device_scale_factor=1.5).new_page()
    page.set_content(f"<style>{TERMINAL_CSS}</style><main>{''.join(pieces)}</main>")
    save(page.locator("main").screenshot(), "watch")


def report_pictures(browser: Browser, run_dir: Path) -> None:
    """Write `report.png`, the top of the run's report, and `latency.svg`, its latency by percentile."""
    report = run_dir.resolve() / "report.html"
    if not report.is_file():
        sys.exit(f"pictures: {run_dir} has no report.html: give the directory of a run")
    page = browser.new_context(viewport=REPORT, color_scheme="light").new_page()
    page.goto(report.as_uri())
    save(page.screenshot(), "report")
    shutil.copyfile(run_dir / "summary" / "spectrum.svg", IMAGES / "latency.svg")


def jmeter_picture() -> None:
    """Write `jmeter.png`: the plan in JMeter's own window, on a screen that nobody sees, with the fans selected."""
    width, height = JMETER
    reading, writing = os.pipe()
    screen = subprocess.Popen(
        ["Xvfb", "-displayfd", str(writing), "-screen", "0", f"{width}x{height}x24"],
        pass_fds=[writing],
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    with os.fdopen(reading) as told:
        display = f":{told.readline().strip()}"
    env = {**os.environ, "DISPLAY": display}

    def xdotool(*words: object) -> str:
        done = subprocess.run(["xdotool", *map(str, words)], env=env, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    def settled() -> Image.Image:
        """Return a picture of the screen once it has not changed for four seconds."""
        alike, picture = 0, ImageGrab.grab(xdisplay=display)
        while alike < 8:
            time.sleep(0.5)
            before, picture = picture, ImageGrab.grab(xdisplay=display)
            alike = alike + 1 if picture.tobytes() == before.tobytes() else 0
        return picture

    def click(line: int, x: int) -> None:
        xdotool("mousemove", x, JMETER_TREE_Y + line * JMETER_LINE, "click", 1)
        settled()

    window = subprocess.Popen(
        [sys.executable, "-m", "experiments", "jmeter", "--window"], env=env, stdout=subprocess.DEVNULL
    )
    try:
        deadline_s = time.monotonic() + JMETER_START_S
        while not (found := xdotool("search", "--onlyvisible", "--name", "emostream.jmx").split()):
            if window.poll() is not None or time.monotonic() > deadline_s:
                sys.exit("pictures: JMeter's window did not open: install a Java with windows (Debian: openjdk-17-jre)")
            time.sleep(0.5)
        settled()
        xdotool("windowmove", found[-1], 0, 0, "windowsize", found[-1], width, height)
        settled()
        # From below, so that what unfolds moves no line that is clicked later.
        for line in (JMETER_BAD_INPUT, JMETER_VIEWERS, JMETER_FANS):
            click(line, JMETER_HANDLE_X)
        click(JMETER_FANS, JMETER_HANDLE_X + 60)
        settled().convert("RGB").quantize(256).save(IMAGES / "jmeter.png", optimize=True)
        print(f"{IMAGES / 'jmeter.png'}: {(IMAGES / 'jmeter.png').stat().st_size:,} bytes")
    finally:
        for process in (window, screen):
            process.terminate()
            process.wait(20)


def main() -> None:
    """`python docs/pictures.py [RUN_DIR]`."""
    run_dirs = [Path(word) for word in sys.argv[1:]]
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        sys.exit("pictures: no Chromium found: install it (Debian: apt-get install chromium fonts-noto-color-emoji)")
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as driver:
        # As root Chromium has no sandbox to offer.
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for run_dir in run_dirs:
            report_pictures(browser, run_dir)
        watch_picture(browser)
        page_pictures(browser, Path(scratch) / "chain")
        browser.close()
    if all(map(shutil.which, ("Xvfb", "xdotool"))):
        jmeter_picture()
    else:
        print("no Xvfb or no xdotool: the picture of JMeter's window stays as it is")


if __name__ == "__main__":
    main()
