"""Two real chains for the tests that only need one to be up, and a real Chromium for those of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import sync_playwright

from experiments.run import chain
from experiments.run.chain import Endpoints
from tests.harness.http import Quiet, serving
from tests.harness.page import DESK
from tests.harness.paths import CHROMIUM, REPOSITORY

# Few processes: these tests ask whether it works, not how fast it is.
SETTINGS: dict[str, object] = {"ingest_workers": 1}
EMPTY = "<!doctype html><title>Another page</title><link rel=icon href=data:,>"
EMBED = REPOSITORY / "pipeline" / "registry" / "web" / "static" / "embed.html"


@pytest.fixture(scope="session")
def chain_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """The endpoints of a chain that is measured: 2 clusters of 1 subscriber, 1-second windows."""
    settings = {**SETTINGS, "trigger_s": 1.0, "clusters": 2, "subscribers": 1}
    with chain.started(settings, tmp_path_factory.mktemp("chain")) as endpoints:
        yield endpoints


@pytest.fixture(scope="session")
def ready_file(chain_up: Endpoints) -> Path:
    """The ready file of that chain: what `attach` takes."""
    return Path(chain_up.run_dir) / "ready.json"


@pytest.fixture(scope="session")
def other_page() -> Iterator[str]:
    """The address of a page that is not the chain's: an empty one, or the chain's example of an embed.

    That has the query `registry`, the address of the chain, and may have `policy`, its Content-Security-Policy.
    """

    class Page(Quiet):
        def do_GET(self) -> None:
            """Answer (http.server calls this)."""
            query = parse_qs(urlsplit(self.path).query)
            page = EMPTY
            if "registry" in query:
                page = EMBED.read_text(encoding="utf-8").replace('src="', f'src="{query["registry"][0]}')
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            for policy in query.get("policy", ()):
                self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(page.encode())

    with serving(Page) as url:
        yield url


@pytest.fixture(scope="session")
def two_subscribers(tmp_path_factory: pytest.TempPathFactory, other_page: str) -> Iterator[Endpoints]:
    """The endpoints of a chain whose subscribers may be killed: when one dies its clients go to the other.

    It allows `other_page`.
    """
    settings = {**SETTINGS, "trigger_s": 2.0, "clusters": 1, "subscribers": 2, "origins": other_page}
    with chain.started(settings, tmp_path_factory.mktemp("two")) as endpoints:
        yield endpoints


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go."""
    return tmp_path_factory.mktemp("pictures")


# Not for the whole session: while it runs, asyncio.run does not.
@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Debian's Chromium, without a window."""
    with sync_playwright() as driver:
        # As root, as in CI, Chromium has no sandbox to offer.
        started = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """Return a function that opens an address as a new visitor; errors of a page fail the test.

    `script` runs before those of the page.
    """
    contexts: list[Any] = []
    wrong: list[str] = []

    def hear(message: Any) -> None:
        # The browser itself logs each connection that a killed subscriber refuses, and each answer of 4xx or 5xx.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            wrong.append(message.text)

    def open_page(url: str, size: dict[str, int] = DESK, script: str = "", **options: Any) -> Any:
        contexts.append(browser.new_context(viewport=size, **options))
        contexts[-1].on("page", listen)
        contexts[-1].add_init_script(script)
        page = contexts[-1].new_page()
        page.goto(url)
        return page

    def listen(page: Any) -> None:
        page.on("console", hear)
        page.on("pageerror", lambda error: wrong.append(str(error)))

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []
