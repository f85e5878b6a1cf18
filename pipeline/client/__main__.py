"""`python -m pipeline.client URL`: prints each window as a line of JSON."""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import get_args

from pipeline import environment, lifecycle, logs
from pipeline.client.client import Client
from pipeline.messages import Transport, encode


async def watch(url: str, cluster: str | None, transport: Transport) -> None:
    """Print every window as a line of JSON until SIGTERM or Ctrl-C, then end the registration."""
    task = asyncio.current_task()
    assert task is not None
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, task.cancel)
    async with Client.register(url, cluster, transport) as client:
        async for window in client:
            print(encode(window).decode(), flush=True)


def main(argv: Sequence[str] | None = None) -> None:
    """`python -m pipeline.client`."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.client", description="Register as a client and print each window as a line of JSON."
    )
    parser.add_argument("url", help="base URL of the registry")
    parser.add_argument("--cluster", help="cluster to watch; default: the least loaded one")
    parser.add_argument("--transport", choices=get_args(Transport), default="sse", help="default: %(default)s")
    options = parser.parse_args(argv)
    logs.configure("client")
    try:
        with suppress(asyncio.CancelledError):
            lifecycle.run_main(
                "pipeline.client", lambda: asyncio.run(watch(options.url, options.cluster, options.transport))
            )
    except BrokenPipeError:
        # The reader of the output has ended.
        logs.let_go()


if __name__ == "__main__":
    environment.restart_without_others()
    main()
