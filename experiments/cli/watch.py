"""`emostream watch`: the live swarm and the most frequent emoji, in a terminal; elsewhere a line for each window.

It is a client as any other: it reconnects when its subscriber is lost, and misses no window.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, get_args

from experiments.cli import running
from experiments.cli.instrument import Make
from pipeline import logs
from pipeline.errors import ClientError
from pipeline.messages import HighWater, Transport, decode_window

if TYPE_CHECKING:
    # They take long to import, and every command of `emostream` imports this module.
    from experiments.cli.views import View
    from pipeline.client import Client


def line(make: Make) -> argparse.ArgumentParser:
    """Add the parser of this command."""
    result = make(
        description="Watch a chain that is up: the swarm and the most frequent emoji of each window. Without a "
        "terminal it prints one line per window. Ctrl-C ends it, with status 0.",
    )
    running.add_options(result, "the registry")
    result.add_argument("--cluster", help="cluster to watch; default: the least loaded one")
    result.add_argument("--transport", choices=get_args(Transport), default="sse", help="default: %(default)s")
    result.add_argument("--windows", type=_number, metavar="N", help="end after N windows; default: at Ctrl-C")
    result.add_argument("--json", action="store_true", help="print each window as a line of JSON")
    return result


def watch(options: argparse.Namespace) -> int:
    """Watch until Ctrl-C, SIGTERM or the last window asked for. Raises ClientError if the chain refuses this client."""
    from experiments.cli import views
    from pipeline.client import Client

    # What happens to the connection is shown, not logged.
    logs.configure("watch", "critical")
    client = Client.register(running.url(options, "registry"), options.cluster, options.transport)
    with views.view(options.json) as view:
        ended = asyncio.run(_watch(client, view, options.windows))
    if not ended:
        raise ClientError("the chain has ended this registration: start `emostream watch` again")
    return 0


async def _watch(client: Client, view: View, windows: int | None) -> bool:
    """Show what the client receives; return False if the chain ended the registration."""
    task = asyncio.current_task()
    assert task is not None
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    drawing = asyncio.create_task(view.keep_drawing())
    drawing.add_done_callback(lambda done: done.cancelled() or not done.exception() or task.cancel())
    # Ctrl-C ends the registration as well, which the end of `async with` does.
    try:
        async with client:
            return await _show(client, view, windows)
    except asyncio.CancelledError:
        return True
    finally:
        drawing.cancel()
        with suppress(asyncio.CancelledError):
            await drawing


async def _show(client: Client, view: View, windows: int | None) -> bool:
    newest, seen = HighWater(), 0
    async for batch in client.received():
        for event in batch.events:
            match event.event:
                case "open":
                    view.opened()
                case "error":
                    view.lost(event.data)
                case "reset":
                    view.missed()
                case "window":
                    window = decode_window(event.data.encode())
                    if newest.is_new(window):
                        newest.raise_to(window)
                        view.show(window)
                        seen += 1
                        if seen == windows:
                            return True
    return False


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1")
    return int(text)
