"""Finding stages that hang: their processes live, and answer nobody, or say that they do not go on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import NamedTuple
from urllib.error import HTTPError

from pipeline import direct_http, logs
from pipeline.turns import STALLED_S

log = logs.get(__name__)

PROBE_S = 5.0
HUNG_S = 60.0
"""A stage hangs if no probe has found it going on for this long. One that is busy, or stopped for a while, does not."""
MISSED_MIN = 2
"""Probes that a stage that hangs has missed. After the whole machine was suspended, the first may come too early."""
KAFKA = "kafka"
KAFKA_HUNG_S = 180.0
"""Kafka is given longer: all stages outlive its silence, and after its death it reads its logs again."""
HEALTH_MAX_BYTES = 65_536


class Heard(NamedTuple):
    """When a stage last went on, and how many probes have found since then that it did not."""

    last_s: float
    missed: int


class Liveness:
    """Asks every stage in `urls()` (name → URL) for its health, and calls `replace(name)` for each that hangs.

    Any answer is one, whatever its status: a stage that says that it is not well does not hang. Its `stalled_s` says
    how long its loops have not come round, seconds. That counts only from when Kafka last did not answer, as
    `kafka_answers()` says: many a loop waits for Kafka. Kafka itself is replaced while `own_kafka()`: it is a stage of
    this chain, and was ready.
    """

    def __init__(
        self,
        urls: Callable[[], Mapping[str, str]],
        replace: Callable[[str], None],
        kafka_answers: Callable[[], bool],
        own_kafka: Callable[[], bool],
    ) -> None:
        self._urls = urls
        self._replace = replace
        self._kafka_answers = kafka_answers
        self._own_kafka = own_kafka
        self._kafka_away_s = float("-inf")
        self._heard: dict[str, Heard] = {}

    def watch(self, stop: threading.Event) -> None:
        """Probe until `stop`. For a daemon thread: an answer may be long in coming."""
        while not stop.wait(PROBE_S):
            self.probe()

    def probe(self) -> None:
        """Ask each stage once."""
        urls = self._urls()
        names = [*urls, *([KAFKA] if self._own_kafka() else [])]
        now_s = time.monotonic()
        # One that is not asked now, because it starts, begins again.
        self._heard = {name: self._heard.get(name, Heard(now_s, 0)) for name in names}
        kafka_answers = self._kafka_answers()
        if not kafka_answers:
            self._kafka_away_s = time.monotonic()
        if KAFKA in self._heard:
            self._judge(KAFKA, kafka_answers, KAFKA_HUNG_S)
        for name, url in urls.items():
            self._judge(name, self._goes_on(url), HUNG_S)

    def _goes_on(self, url: str) -> bool:
        stalled_s = _stalled_s(url)
        return stalled_s is not None and min(stalled_s, time.monotonic() - self._kafka_away_s) <= STALLED_S

    def _judge(self, name: str, goes_on: bool, hung_s: float) -> None:
        if goes_on:
            self._heard[name] = Heard(time.monotonic(), 0)
            return
        last_s, missed = self._heard[name]
        self._heard[name] = Heard(last_s, missed + 1)
        silent_s = time.monotonic() - last_s
        if silent_s > hung_s and missed + 1 >= MISSED_MIN:
            log.warning("hangs", name=name, silent_s=round(silent_s, 1))
            del self._heard[name]
            self._replace(name)


def _stalled_s(url: str) -> float | None:
    """Return how long the loops of the stage at `url` have not come round, seconds; None without an answer.

    0 for an answer that does not say it.
    """
    try:
        try:
            with direct_http.get(f"{url}/healthz", PROBE_S) as answer:
                body = answer.read(HEALTH_MAX_BYTES)
        except HTTPError as error:
            with error:
                body = error.read(HEALTH_MAX_BYTES)
    except (OSError, HTTPException):
        return None
    except ValueError:
        # A subscriber's URL comes from Kafka, where others may write: what cannot be asked is not judged.
        return 0.0
    try:
        return float(json.loads(body)["stalled_s"])
    except (ValueError, TypeError, LookupError, RecursionError):
        return 0.0
