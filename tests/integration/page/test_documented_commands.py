"""The commands of the documents that need a chain, as they stand there, page by page, on one that is up."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from experiments.run.chain import Endpoints
from pipeline.settings import DEFAULTS
from tests.harness.documents import commands
from tests.harness.live import react
from tests.harness.paths import REPOSITORY
from tests.test_commands import bin_folder, way

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

WATCHED = """watched() {
    shown=$(mktemp)
    # With job control, so that the command does not ignore the signal.
    set -m
    "$@" > "$shown" &
    set +m
    for _ in $(seq 600); do [ -s "$shown" ] && break; sleep 0.1; done
    kill -INT $!
    wait $!
    cat "$shown"
    rm "$shown"
}"""
SCALED_BACK = "emostream scale --cluster 1 --subscribers 2"
ON_PAGE = [(shown.page, shown.command) for shown in commands() if way(shown.command) == "chain"]
PAGES = list(dict.fromkeys(page for page, _ in ON_PAGE))
# Locust opens a page; these have it run for a moment instead.
LOCUST = {"LOCUST_HEADLESS": "true", "LOCUST_RUN_TIME": "2s", "LOCUST_USERS": "2", "LOCUST_ONLY_SUMMARY": "true"}
# Other chains may run on this machine: only the processes of this one are found.
PGREP = """#!/bin/bash
for pid in $(/usr/bin/env -i PATH=/usr/bin:/bin pgrep "$@"); do
    tr '\\0' '\\n' < /proc/$pid/environ 2> /dev/null | grep -qx "EMOSTREAM_RUN_DIR=$EMOSTREAM_RUN_DIR" && echo $pid
done
exit 0
"""


def script(page: str, endpoints: Endpoints) -> str:
    """The commands of a page as one script, that ends where one fails; each is announced."""
    lines = ["set -eo pipefail", WATCHED]
    for shown, command in ON_PAGE:
        if shown != page:
            continue
        typed = command.replace(f"http://127.0.0.1:{DEFAULTS.ingest_port}", endpoints.ingest)
        typed = typed.replace(f"http://127.0.0.1:{DEFAULTS.registry_port}", endpoints.registry)
        # Ctrl-C, once it has shown something.
        if typed.startswith("emostream watch") and "--windows" not in typed and "|" not in typed:
            typed = f"watched {typed}"
        lines += [f"echo {'#' * 8} >&2", typed]
    return "\n".join(lines)


@contextmanager
def reacting(ingest: str) -> Iterator[None]:
    """Send reactions meanwhile, so that there are windows."""
    ended = threading.Event()

    async def until_ended() -> None:
        stop = asyncio.Event()
        async with aiohttp.ClientSession() as http:
            sending = asyncio.create_task(react(http, ingest, stop))
            await asyncio.to_thread(ended.wait)
            stop.set()
            await sending

    thread = threading.Thread(target=asyncio.run, args=(until_ended(),))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page_run(page: str, two_subscribers: Endpoints, tmp_path: Path) -> None:
    """Each ends with status 0; what each prints beside that other tests check."""
    folder = bin_folder(tmp_path / "bin")
    (folder / "pgrep").write_text(PGREP)
    (folder / "pgrep").chmod(0o755)
    env = {
        **os.environ,
        **LOCUST,
        "PATH": f"{folder}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "EMOSTREAM_RUN_DIR": two_subscribers.run_dir,
    }
    text = script(page, two_subscribers)
    if "emostream scale" in text:
        text += f"\n{SCALED_BACK}"
    with reacting(two_subscribers.ingest):
        done = subprocess.run(
            ["bash", "-c", text], cwd=REPOSITORY, env=env, capture_output=True, text=True, check=False, timeout=200
        )
    assert done.returncode == 0, f"{text}\n\n{done.stdout}\n{done.stderr}"
    assert '"status":4' not in done.stdout.replace('"status":422', "")
