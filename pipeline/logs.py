"""Structured logs: one JSON object per line on stderr, including the lines of libraries."""

from __future__ import annotations

import logging
import sys

import structlog


def configure(stage: str, level: str = "info") -> None:
    """Write every log line of this process to stderr, as JSON with the field `stage`."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.dict_tracebacks,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
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
    structlog.contextvars.bind_contextvars(stage=stage)


def get(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; fields are given as keywords: `log.info("flushed", reactions=12)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
