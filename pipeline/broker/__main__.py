"""`python -m pipeline.broker`: run the embedded Kafka until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pipeline import environment
from pipeline.broker.embedded import DEFAULT_HEAP_MB, EmbeddedKafka
from pipeline.errors import EmoStreamError
from pipeline.lifecycle import given_parent

CHECK_S = 0.2


class _StopRequested(BaseException):
    """A signal asked this process to stop."""


def _request_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise _StopRequested


def run(kafka: EmbeddedKafka, announce: Callable[[str], None], parent: int | None) -> None:
    """Run `kafka` until this process is stopped, or until its `parent` ends if there is one.

    `announce` gets a line of JSON once Kafka is ready. Raises what `start` raises, and BrokerError if Kafka ends.
    """
    with kafka:
        facts = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "data_dir": str(kafka.data_dir),
            "pid": kafka.pid,
        }
        announce(json.dumps(facts))
        while parent in (None, os.getppid()):
            kafka.check()
            time.sleep(CHECK_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a broker from the command line; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.broker",
        description="Run a one-node Kafka on 127.0.0.1 until Ctrl-C or SIGTERM; print one line of JSON once ready.",
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; default: a free one")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="directory of Kafka's data, kept and used again; default: a temporary one, removed at the end",
    )
    parser.add_argument(
        "--heap-mb", type=int, default=DEFAULT_HEAP_MB, help="heap of Kafka's JVM, MB; default: %(default)s"
    )
    parser.add_argument("--ready-file", type=Path, help="also write the line of JSON to this file")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    # While the broker starts, a client's refused connections are expected.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    environment.log_ignored()

    def announce(line: str) -> None:
        if options.ready_file is not None:
            scratch = options.ready_file.with_name(options.ready_file.name + ".new")
            scratch.write_text(line + "\n", encoding="utf-8")
            scratch.replace(options.ready_file)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _request_stop)
        if options.ready_file is not None:
            options.ready_file.unlink(missing_ok=True)
        kafka = EmbeddedKafka(options.data_dir, port=options.port, heap_mb=options.heap_mb)
        run(kafka, announce, given_parent())
    except _StopRequested:
        return 0
    except (EmoStreamError, OSError) as error:
        sys.stderr.write(f"pipeline.broker: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    environment.restart_without_others()
    sys.exit(main())
