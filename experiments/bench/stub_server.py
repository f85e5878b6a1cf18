"""A server that only answers every request with 202, for measuring the load alone.

It prints its port when it listens, and ends on SIGTERM.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from typing import cast

import uvloop

from experiments.load.http1 import split

ANSWER = b'HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"accepted":1}'


class _Answering(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while (end := split(received)[1]) > 0:
            received = received[end:]
            self._transport.write(ANSWER)
        self._received = received


async def serve(port: int) -> None:
    """Answer on `port` (0: a free one) until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    server = await loop.create_server(_Answering, "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    """`python -m experiments.bench.stub_server`."""
    line = argparse.ArgumentParser(
        prog="python -m experiments.bench.stub_server", description="Answer 202 to everything."
    )
    line.add_argument("--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one")
    uvloop.run(serve(line.parse_args().port))


if __name__ == "__main__":
    main()
