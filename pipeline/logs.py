"""Structured logs on stderr, including the lines of libraries: one JSON object per line, readable on a terminal."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

# Without colours: the words say everything, and NO_COLOR needs no handling.
READABLE = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)


def configure(stage: str, level: str = "info", readable: Processor = READABLE) -> None:
    """Write every log line of this process to stderr: as JSON with the field `stage`, on a terminal by `readable`."""

    def add_stage(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
        event.setdefault("stage", stage)
        return event

    shared: list[Processor] = [
        add_stage,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if sys.stderr is None:
        # The process was started with standard error closed: the chain runs all the same.
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    handler = logging.StreamHandler(sys.stderr)
    rendered: list[Processor] = (
        [readable]
        if sys.stderr.isatty()
        else [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer(ensure_ascii=False)]
    )
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendered],
        )
    )
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level.upper())
    # These log every reconnection attempt and every request.
    for noisy in ("kafka", "py4j", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(max(logging.root.level, logging.WARNING))
    # During a busy start it warns about its own tasks that took 0.1 s.
    logging.getLogger("kafka.net.selector").setLevel(logging.ERROR)
    # It warns about retries while a broker starts. Failures are reported by its callbacks as well.
    logging.getLogger("librdkafka").setLevel(logging.ERROR)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def let_go() -> None:
    """Flush standard output and error; one whose reader or terminal is gone is replaced by nothing.

    Otherwise Python fails at its own flush when the process ends: a message, or the exit status 120.
    """
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; fields are given as keywords: `log.info("flushed", reactions=12)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
