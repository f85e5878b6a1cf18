"""Metrics: what each stage counts, in Prometheus' own form and by its conventions, and the dashboard over it."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from flask.testing import FlaskClient
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse

from pipeline.addresses import SubscriberId
from pipeline.bus.memory import MemoryBus
from pipeline.bus.topics import TopicSpec, topics
from pipeline.errors import KafkaUnreachableError, PortInUseError, SettingError
from pipeline.forwarding import Forwarder
from pipeline.ingest.app import create_app as ingest_app
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.metrics import REASONS, Meters
from pipeline.main_publisher import for_clusters
from pipeline.messages import Announcement, TypeCount, Window, encode
from pipeline.metrics import workers
from pipeline.metrics.exposition import PATH, bare_registry, expose, registry
from pipeline.metrics.server import serving
from pipeline.registry.app import create_app as registry_app
from pipeline.registry.metrics import scrape_targets
from pipeline.registry.registrations import Registrations
from pipeline.settings import Settings
from pipeline.subscriber.fanout import Fanout, Stream
from pipeline.subscriber.metrics import StreamMeters
from pipeline.subscriber.state import Subscriber
from pipeline.supervisor import metrics_ports
from pipeline.supervisor.plan import stages
from pipeline.tokens import Tokens
from spark.metrics import BatchMeters

FOLDER = Path(workers.__file__).parent
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
NAMES = topics(Settings())
GOOD = {"user_id": "fan", "emoji_type": "❤", "timestamp": "2026-11-23T09:30:00Z"}
# What a label may tell apart: never a client, a user or an emoji.
LABELS = {"stage", "cluster", "subscriber", "reason", "status", "transport", "state", "le"}
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
# Nothing here waits so long unless it is broken.
DEADLINE_S = 20.0

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def window(number: int, epoch: str = "e", **changes: Any) -> Window:
    """Return a small window."""
    made = Window(epoch, number, 1, 2, {"emoji-events-0": (number, number)}, 15, [TypeCount("😂", 15, 2)])
    return msgspec.structs.replace(made, **changes)


def scraped(text: bytes) -> Samples:
    """Return every sample of an exposition by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parse(text.decode())
        for sample in family.samples
    }


def at(samples: Samples, name: str, **labels: str) -> float:
    """Return one sample."""
    return samples[name, tuple(sorted(labels.items()))]


class NoSink:
    """A Kafka that takes everything at once."""

    lost = errors = 0

    def write(self, values: object) -> None:
        """Take it."""

    def wait(self, timeout_s: float) -> int:
        """Nothing is outstanding."""
        return 0

    def close(self) -> None:
        """Nothing is held."""


class Ingest:
    """One worker without its thread: a test flushes by hand."""

    def __init__(self, **changes: Any) -> None:
        values = Settings().replace(**changes)
        self.buffer = Buffer(values.buffer_max, wake_at=values.flush_batch)
        self.flusher = Flusher(self.buffer, NoSink, flush_ms=60_000, lead_ms=0, aligned=True)
        self.http: FlaskClient = ingest_app(values, self.buffer, self.flusher).test_client()

    def scrape(self) -> Samples:
        """What /metrics says."""
        return scraped(self.http.get(PATH).data)


def publisher() -> tuple[MemoryBus, Forwarder]:
    """Return a publisher from `in` to `out` and its bus."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("in"), TopicSpec("out"))
    return bus, Forwarder("main-publisher", bus, "in", bus, {"out": for_clusters})


class EventSink:
    """A stream's connection that takes, or does not."""

    def __init__(self, full: bool = False) -> None:
        self.full = full

    def write(self, data: object) -> None:
        """Take it."""

    def is_full(self) -> bool:
        """Whether it takes more."""
        return self.full

    def abort(self) -> None:
        """Nothing to cut."""

    def stuck_s(self, now_s: float) -> float:
        """Never stuck."""
        return 0.0


@pytest.fixture
def registrations() -> Iterator[Registrations]:
    """A registry's parts over a bus in memory."""
    made = Registrations(MemoryBus(), Settings(), pytest.fail)
    yield made
    made.close()


@pytest.fixture
def expositions(registrations: Registrations) -> dict[str, bytes]:
    """What a scrape of each kind of stage answers."""
    _, forwarder = publisher()
    subscriber = Subscriber(Settings(), "http://s")
    batches = BatchMeters(NAMES.events.name, 6.0)
    registrations.assignments.apply_announcement(SubscriberId("1", "1"), Announcement("1", "1", "http://s", 0, 2**62))
    return {
        "ingest": Ingest().http.get(PATH).data,
        "spark": expose(registry(batches), "")[0],
        "publisher": expose(registry(forwarder.meters), "")[0],
        "subscriber": expose(registry(subscriber.meters), "")[0],
        "registry": registry_app(registrations, "http://r").test_client().get(PATH).data,
    }


def families(expositions: dict[str, bytes]) -> list[tuple[str, Metric]]:
    """Return every family of every stage."""
    return [(stage, family) for stage, text in expositions.items() for family in parse(text.decode())]


# conventions


def test_every_stage_keeps_the_conventions(expositions: dict[str, bytes]) -> None:
    """Our prefix or the system's, a help text, counters in _total, base units, and labels of few values."""
    for stage, family in families(expositions):
        assert family.name.startswith(("emostream_", "process_")), family.name
        assert family.documentation.endswith("."), family.name
        assert family.type in ("counter", "gauge", "histogram"), family.name
        assert not re.search(r"_(ms|ns|kb|mb|minutes|percent)(_|$)", family.name)
        for sample in family.samples:
            assert (family.type == "counter") is sample.name.endswith("_total"), sample.name
            assert set(sample.labels) <= LABELS, (stage, sample)
            assert not sample.name.endswith("_created")


def test_a_scrape_is_also_open_metrics() -> None:
    """Who asks for OpenMetrics, as Prometheus does, gets it, and it parses by its stricter rules."""
    answer = Ingest().http.get(PATH, headers={"Accept": OPEN_METRICS})
    assert answer.content_type.startswith("application/openmetrics-text")
    assert {family.name for family in open_metrics(answer.text)} >= {"emostream_ingest_reactions_accepted"}


def test_every_stage_tells_what_its_process_costs(expositions: dict[str, bytes]) -> None:
    """CPU, memory and open files; ingest alone does not, whose answer is that of several processes."""
    for stage, text in expositions.items():
        assert (b"process_cpu_seconds_total" in text) is (stage != "ingest"), stage


# the dashboard


def named_in_dashboard() -> dict[str, set[str]]:
    """Return the metrics in each panel's and variable's expressions."""
    found: dict[str, set[str]] = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\b(?:emostream|process)_\w+", target["expr"])
            assert names, target["expr"]
            found.setdefault(panel["title"], set()).update(names)
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            found[variable["name"]] = set(re.findall(r"\bemostream_\w+", variable["definition"]))
    return found


def test_the_dashboard_shows_only_what_there_is(expositions: dict[str, bytes]) -> None:
    """Each metric in its expressions is a sample that some stage exposes."""
    exposed = {sample.name for _, family in families(expositions) for sample in family.samples}
    unknown = {panel: names - exposed for panel, names in named_in_dashboard().items() if names - exposed}
    assert unknown == {}


def test_the_dashboard_shows_all_there_is(expositions: dict[str, bytes]) -> None:
    """Each metric of ours is on it: one that nobody looks at need not be counted."""
    shown = set().union(*named_in_dashboard().values())
    for _, family in families(expositions):
        if family.name.startswith("emostream_"):
            assert {sample.name for sample in family.samples} & shown, family.name


def test_the_dashboard_selects_by_labels_that_are_there(expositions: dict[str, bytes]) -> None:
    """Each label in a legend or grouping is one of those we use."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            used = {word.strip() for words in grouped for word in words.split(",")}
            assert used <= LABELS, target["expr"]
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= used | LABELS


def test_the_dashboard_can_be_imported() -> None:
    """Panels have ids of their own, lie beside and not over each other, and ask the source that is chosen."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert {panel["datasource"]["uid"] for panel in panels if "datasource" in panel} == {"${datasource}"}


def test_the_scrape_configuration_is_that_of_a_chain() -> None:
    """It names the stages of `up` by their ports, with `metrics_port` 9500, and finds subscribers by the registry."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    fixed, found = config["scrape_configs"]
    named = {entry["labels"]["stage"]: entry["targets"] for entry in fixed["static_configs"]}
    settings = Settings()
    first = 9500
    plan = [stage.name for stage in stages(settings, None, "") if stage.metered]
    assert named == {
        "ingest": [f"127.0.0.1:{settings.ingest_port}"],
        "registry": [f"127.0.0.1:{settings.registry_port}"],
        **{name: [f"127.0.0.1:{first + place}"] for place, name in enumerate(plan)},
    }
    assert found["http_sd_configs"][0]["url"] == f"http://127.0.0.1:{settings.registry_port}/targets"
    assert fixed["honor_labels"]
    assert found["honor_labels"]


# ingest


def test_ingest_counts_what_it_accepts_and_what_waits() -> None:
    """Reactions, not requests; what waits is there until its flush is acknowledged, and the flush has its size."""
    stage = Ingest(buffer_max=10)
    assert stage.http.post("/reactions", json=[GOOD] * 3).status_code == 202
    assert stage.http.post("/reactions", json=GOOD).status_code == 202
    seen = stage.scrape()
    assert at(seen, "emostream_ingest_reactions_accepted_total") == 4
    assert at(seen, "emostream_ingest_buffer_reactions") == 4
    assert at(seen, "emostream_ingest_buffer_limit_reactions") == 10
    assert at(seen, "emostream_ingest_flush_seconds_count") == 0
    stage.flusher._flush(NoSink())
    seen = stage.scrape()
    assert at(seen, "emostream_ingest_reactions_accepted_total") == 4
    assert at(seen, "emostream_ingest_buffer_reactions") == 0
    assert at(seen, "emostream_ingest_flush_seconds_count") == 1
    assert at(seen, "emostream_ingest_flush_reactions_sum") == 4


@pytest.mark.parametrize(
    ("reason", "request_"),
    [
        ("not_application_json", {"data": b"{}", "content_type": "text/plain"}),
        ("not_json", {"data": b"{", "content_type": "application/json"}),
        ("not_a_reaction", {"json": {}}),
        ("body_too_large", {"json": [GOOD] * 20}),
        ("array_too_long", {"json": [GOOD] * 6}),
        ("too_many_reactions", {"json": [GOOD] * 5}),
        ("buffer_full", {"json": [{**GOOD, "user_id": str(n)} for n in range(5)]}),
    ],
)
def test_ingest_counts_refusals_by_reason(reason: str, request_: dict[str, Any]) -> None:
    """Each has its own reason, which is at nought before the first, and nothing counts as accepted."""
    stage = Ingest(body_max_bytes=900, array_max=5, rate_per_user_s=4, buffer_max=4)
    name = "emostream_ingest_requests_refused_total"
    before = stage.scrape()
    assert {labels[0][1] for found, labels in before if found == name} == set(REASONS)
    assert stage.http.post("/reactions", **request_).status_code >= 400
    after = stage.scrape()
    assert {key: after[key] - before[key] for key in after if key[0] == name and after[key] != before[key]} == {
        (name, (("reason", reason),)): 1
    }
    assert at(after, "emostream_ingest_reactions_accepted_total") == 0


def test_ingest_tells_how_long_kafka_is_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a flush waits its age is shown, and what is refused for it is counted."""
    stage = Ingest(kafka_out_s=10)
    monkeypatch.setattr(stage.flusher.meters, "_silent_s", lambda: 11.5)
    monkeypatch.setattr(stage.flusher, "silent_s", lambda: 11.5)
    assert stage.http.post("/reactions", json=GOOD).status_code == 503
    seen = stage.scrape()
    assert at(seen, "emostream_ingest_kafka_silence_seconds") == 11.5
    assert at(seen, "emostream_ingest_requests_refused_total", reason="kafka_is_out_of_reach") == 1


def test_ingest_tells_what_kafka_refused() -> None:
    """Losses and errors of the sink are copied, once each, however often they are looked at."""
    buffer = Buffer(10, 1)
    meters = Meters(buffer, lambda: 0.0)
    sink = NoSink()
    sink.lost, sink.errors = 2, 3
    for _ in range(2):
        meters.refresh(sink)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_ingest_reactions_lost_total") == 2
    assert at(seen, "emostream_ingest_kafka_errors_total") == 3


# Two workers, started as those of ingest are; asked when both have counted, and once more when one is dead.
STAGE_OF_TWO = """
import multiprocessing, os, sys, threading
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.metrics import Meters
from pipeline.metrics import workers
from pipeline.metrics.exposition import bare_registry, expose

class EventSink:
    lost = errors = 0

def work(accepted, waiting, counted):
    workers.join()
    buffer = Buffer(100, 1_000)
    meters = Meters(buffer, lambda: float(waiting))
    buffer.add([b"x"] * accepted)
    buffer.take()
    buffer.done()
    buffer.add([b"x"] * waiting)
    meters.refused("Not JSON")
    meters.flushed(accepted, 0.01)
    meters.refresh(EventSink())
    counted.send(True)
    threading.Event().wait()

class Asked:
    def collect(self):
        return workers.everyones(())

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with workers.together():
        started = []
        for figures in ((5, 2), (7, 3)):
            counted, tell = context.Pipe(duplex=False)
            started.append(context.Process(target=work, args=(*figures, tell), daemon=True))
            started[-1].start()
            counted.recv()
        print(os.environ[workers.FOLDER])
        print(expose(bare_registry(Asked()), "")[0].decode(), end="---")
        started[1].kill()
        started[1].join()
        print(expose(bare_registry(Asked()), "")[0].decode(), end="")
        started[0].kill()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_add_up_and_the_dead_hold_nothing(method: str, tmp_path: Path) -> None:
    """Counters and histograms sum over all workers, the dead included; gauges over the living; the longest silence."""
    program = tmp_path / "stage.py"
    program.write_text(STAGE_OF_TWO)
    ended = subprocess.run(
        [sys.executable, str(program), method],
        env={**os.environ, "PYTHONPATH": str(FOLDER.parents[1]), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    folder, _, said = ended.stdout.partition("\n")
    both, one = (scraped(text.encode()) for text in said.split("---"))
    assert at(both, "emostream_ingest_reactions_accepted_total") == 5 + 2 + 7 + 3
    assert at(both, "emostream_ingest_requests_refused_total", reason="not_json") == 2
    assert at(both, "emostream_ingest_flush_reactions_count") == 2
    assert at(both, "emostream_ingest_flush_reactions_bucket", le="+Inf") == 2
    assert at(both, "emostream_ingest_buffer_reactions") == 5
    assert at(both, "emostream_ingest_buffer_limit_reactions") == 200
    assert at(both, "emostream_ingest_workers") == 2
    assert at(both, "emostream_ingest_kafka_silence_seconds") == 3
    assert at(one, "emostream_ingest_reactions_accepted_total") == 17
    assert at(one, "emostream_ingest_buffer_reactions") == 2
    assert at(one, "emostream_ingest_workers") == 1
    assert at(one, "emostream_ingest_kafka_silence_seconds") == 2
    assert Path(folder).parent == tmp_path
    assert not Path(folder).exists()


# Spark


def report(rows: int, took_ms: int, end: dict[str, int] | None) -> bytes:
    """Return a progress report as Spark writes it, with fields that mean nothing here."""
    offsets = None if end is None else {NAMES.events.name: end}
    return json.dumps(
        {
            "batchId": 3,
            "timestamp": "2027-01-15T08:00:00.000Z",
            "numInputRows": rows,
            "inputRowsPerSecond": 1.5,
            "durationMs": {"addBatch": took_ms - 10, "triggerExecution": took_ms},
            "sources": [{"description": "KafkaV2", "startOffset": None, "endOffset": offsets, "metrics": {}}],
            "sink": {"description": "ForeachBatchSink", "numOutputRows": -1},
        }
    ).encode()


def test_spark_tells_batch_trigger_rows_and_lag() -> None:
    """A batch has its time and rows; the lag is what came after the offsets it read to, over all partitions."""
    bus = MemoryBus()
    bus.ensure(TopicSpec(NAMES.events.name, 2))
    writer = bus.writer()
    for number in range(9):
        writer.send(NAMES.events.name, b"x", key=None if number < 6 else b"k")
    ends = bus.ends(NAMES.events.name)
    meters = BatchMeters(NAMES.events.name, 6.0)
    meters.progress(report(5, 340, {"0": max(0, ends[0] - 3), "1": ends[1]}), bus)
    meters.progress(report(0, 20, {"0": ends[0] - 2, "1": ends[1]}), bus)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_spark_batch_seconds_count") == 1
    assert at(seen, "emostream_spark_batch_seconds_sum") == pytest.approx(0.34)
    assert at(seen, "emostream_spark_rows_total") == 5
    assert at(seen, "emostream_spark_trigger_seconds") == 6
    assert at(seen, "emostream_spark_lag_records") == 2


def test_spark_does_not_make_a_lag_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """While Kafka does not answer the lag is no number, and the batch is counted all the same."""
    bus = MemoryBus()
    bus.ensure(TopicSpec(NAMES.events.name, 1))

    def away(topic: str) -> dict[int, int]:
        raise KafkaUnreachableError("away")

    monkeypatch.setattr(bus, "ends", away)
    meters = BatchMeters(NAMES.events.name, 6.0)
    meters.progress(report(1, 100, {"0": 1}), bus)
    meters.progress(report(0, 100, None), bus)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert str(at(seen, "emostream_spark_lag_records")) == "nan"
    assert at(seen, "emostream_spark_rows_total") == 1


def test_spark_counts_its_windows() -> None:
    """Reactions and what was none, window by window, with the time from the trigger."""
    meters = BatchMeters(NAMES.events.name, 6.0)
    assert meters.health()["status"] == "starting"
    meters.emitted(window(0, malformed=3, trigger_ns=10**18, emitted_ns=10**18 + 250_000_000))
    meters.epoch = "e"
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_spark_reactions_total") == 15
    assert at(seen, "emostream_spark_malformed_total") == 3
    assert at(seen, "emostream_windows_forwarded_total", stage="spark") == 1
    assert at(seen, "emostream_window_latency_seconds_sum", stage="spark") == pytest.approx(0.25)
    assert at(seen, "emostream_window_last_timestamp_seconds", stage="spark") == pytest.approx(1e9 + 0.25)
    assert meters.health() == {"status": "ok", "stage": "spark", "epoch": "e"}


# publishers


def test_a_publisher_counts_forwarded_dropped_and_skipped() -> None:
    """Each window once, whatever the number of outputs; a repeated one and nonsense by their reasons."""
    bus, forwarder = publisher()
    writer = bus.writer()
    for record in (window(0), window(1), window(1)):
        writer.send("in", encode(record))
    writer.send("in", b"nonsense")
    forwarder.step(bus.tail("in", 9))
    seen = scraped(expose(bare_registry(forwarder.meters), "")[0])
    stage = "main-publisher"
    assert at(seen, "emostream_windows_forwarded_total", stage=stage) == 2
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="duplicate") == 1
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="malformed") == 1
    assert at(seen, "emostream_window_latency_seconds_count", stage=stage) == 2


def test_a_window_kafka_did_not_take_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters tell of what is in Kafka."""
    bus, forwarder = publisher()
    bus.writer().send("in", encode(window(0)))
    forwarder.step([])

    def refuse() -> None:
        raise KafkaUnreachableError("away")

    monkeypatch.setattr(forwarder._writer, "flush", refuse)
    with pytest.raises(KafkaUnreachableError):
        forwarder.step(bus.tail("in", 9))
    seen = scraped(expose(bare_registry(forwarder.meters), "")[0])
    assert at(seen, "emostream_windows_forwarded_total", stage="main-publisher") == 0


def fetch(url: str, method: str = "GET") -> tuple[int, str, bytes]:
    """Return an answer's status, content type and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=DEADLINE_S) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read()


def test_a_stage_without_a_server_gets_one() -> None:
    """Metrics, health with its status, and problem documents for anything else; it is gone with its stage."""
    _, forwarder = publisher()
    health: dict[str, object] = {"status": "starting", "stage": "s"}
    with serving("127.0.0.1", 0, registry(forwarder.meters), lambda: health) as url:
        status, kind, body = fetch(f"{url}{PATH}?x=1")
        assert (status, kind.split(";")[0]) == (200, "text/plain")
        assert ("emostream_windows_forwarded_total", (("stage", "main-publisher"),)) in scraped(body)
        assert fetch(f"{url}/healthz") == (503, "application/json", b'{"status":"starting","stage":"s"}')
        health["status"] = "ok"
        assert fetch(f"{url}/healthz")[0] == 200
        for path, method, wanted in (("/", "GET", 404), (PATH, "POST", 501)):
            status, kind, body = fetch(url + path, method)
            assert (status, kind, json.loads(body)["status"]) == (wanted, "application/problem+json", wanted)
            assert "GET /metrics" in json.loads(body)["detail"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url + PATH, timeout=DEADLINE_S)


def test_a_taken_metrics_port_is_named() -> None:
    """The stage ends with the setting's name before it does anything else."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(PortInUseError, match=f"metrics_port is {port}"),
            serving("127.0.0.1", port, CollectorRegistry(), dict),
        ):
            pass


# subscribers


def streams(queue_max: int = 2) -> tuple[Fanout, StreamMeters]:
    """Return a fan-out and its figures."""
    fanout = Fanout(10, queue_max)
    return fanout, StreamMeters("subscriber-1-2", "1", "2", fanout, Tokens())


def test_a_subscriber_counts_its_streams() -> None:
    """Streams by transport, each window once for each stream, and every end by its reason."""
    fanout, meters = streams()
    gone, slow, twice, again, deleted = (
        Stream("gone", EventSink()),
        Stream("slow", EventSink(full=True)),
        Stream("twice", EventSink()),
        Stream("twice", EventSink(), "websocket"),
        Stream("deleted", EventSink(), "poll"),
    )
    for stream in (gone, slow, twice, again, deleted):
        fanout.join(stream, fanout.head)
    fanout.publish(window(0))
    fanout.leave(gone)
    fanout.end("deleted", "deleted")
    for number in (1, 2):
        fanout.publish(window(number))
    place = {"cluster": "1", "subscriber": "2"}
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_subscriber_windows_sent_total", **place) == 3 + 1 + 1
    assert at(seen, "emostream_subscriber_streams", transport="sse", **place) == 0
    assert at(seen, "emostream_subscriber_streams", transport="websocket", **place) == 1
    assert at(seen, "emostream_subscriber_streams_opened_total", transport="sse", **place) == 3
    ended = {
        dict(labels)["reason"]: count
        for (name, labels), count in seen.items()
        if name == "emostream_subscriber_streams_ended_total"
    }
    assert ended == {"left": 1, "slow": 1, "stuck": 0, "replaced": 1, "deleted": 1, "shutdown": 0}
    assert at(seen, "emostream_subscriber_ring_windows", **place) == 3


def test_a_window_caught_up_with_is_sent_as_well() -> None:
    """What a stream gets from the ring counts like what it gets at once."""
    fanout, meters = streams(queue_max=5)
    for number in range(4):
        fanout.publish(window(number))
    fanout.join(Stream("x", EventSink()), 1)
    seen = scraped(expose(bare_registry(meters), "")[0])
    assert at(seen, "emostream_subscriber_windows_sent_total", cluster="1", subscriber="2") == 3


def test_a_subscribers_history_is_not_measured() -> None:
    """What the feed held before the subscriber began says nothing of how quick it is."""
    bus = MemoryBus()
    bus.ensure(TopicSpec("feed"))
    for number in range(3):
        bus.writer().send("feed", encode(window(number)))
    subscriber = Subscriber(Settings(), "http://s")
    subscriber.take_feed(bus.tail("feed", 2), 1, live=False)
    bus.writer().send("feed", encode(window(3)))
    bus.writer().send("feed", b"nonsense")
    subscriber.take_feed(bus.tail("feed", 3), 1)
    seen = scraped(expose(bare_registry(subscriber.meters), "")[0])
    stage = "subscriber-1-1"
    assert at(seen, "emostream_windows_forwarded_total", stage=stage) == 1
    assert at(seen, "emostream_window_latency_seconds_count", stage=stage) == 1
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="duplicate") == 1
    assert at(seen, "emostream_windows_dropped_total", stage=stage, reason="malformed") == 1
    assert at(seen, "emostream_subscriber_fanout_seconds_count", cluster="1", subscriber="1") == 1
    assert at(seen, "emostream_subscriber_ring_windows", cluster="1", subscriber="1") == 3


async def _refused_over_http() -> Samples:
    """Ask a subscriber's application for what it has, and for what it has not."""
    _, meters = streams()
    app = web.Application()
    meters.attach(app, streams_max=7)
    async with TestClient(TestServer(app)) as client:
        assert (await client.get("/nothing")).status == 404
        assert (await client.post(PATH)).status == 405
        answer = await client.get(PATH)
        assert answer.content_type == "text/plain"
        return scraped(await answer.read())


def test_a_subscriber_counts_what_it_refuses() -> None:
    """By status; the cap on streams stands beside the streams."""
    seen = asyncio.run(_refused_over_http())
    place = {"cluster": "1", "subscriber": "2"}
    assert at(seen, "emostream_subscriber_requests_refused_total", status="404", **place) == 1
    assert at(seen, "emostream_subscriber_requests_refused_total", status="405", **place) == 1
    assert at(seen, "emostream_subscriber_requests_refused_total", status="503", **place) == 0
    assert at(seen, "emostream_subscriber_streams_limit", **place) == 7


# the registry


def announce(registrations: Registrations, subscriber: str, announced_ns: int) -> None:
    """Have the registry hear a subscriber of cluster 1."""
    said = Announcement(subscriber, "1", f"http://host:81{subscriber}/base", 0, announced_ns)
    with registrations.lock:
        registrations.assignments.apply_announcement(SubscriberId("1", subscriber), said)


def test_the_registry_counts_who_comes_moves_and_goes(registrations: Registrations) -> None:
    """Registrations, moves and removals as they happen; clients and subscribers as they stand."""
    http = registry_app(registrations, "http://r").test_client()
    assert http.post("/clients").status_code == 503
    announce(registrations, "1", registrations.clock_ns())
    clients = [http.post("/clients").get_json() for _ in range(2)]
    announce(registrations, "1", 0)
    announce(registrations, "2", registrations.clock_ns())
    assert http.get(f"/clients/{clients[0]['client_id']}/stream").status_code == 307
    gone = clients[1]
    headers = {"Authorization": f"Bearer {gone['token']}"}
    assert http.delete(f"/clients/{gone['client_id']}", headers=headers).status_code == 204
    seen = scraped(http.get(PATH).data)
    assert at(seen, "emostream_registry_registrations_total") == 2
    assert at(seen, "emostream_registry_moves_total") == 1
    assert at(seen, "emostream_registry_removals_total") == 1
    assert at(seen, "emostream_registry_clients", cluster="1") == 1
    assert at(seen, "emostream_registry_subscribers", cluster="1", state="live") == 1
    assert at(seen, "emostream_registry_subscribers", cluster="1", state="silent") == 1
    assert at(seen, "emostream_registry_requests_refused_total", status="503") == 1
    assert at(seen, "emostream_registry_journal_records") == 0


def test_the_registry_names_the_subscribers_to_scrape(registrations: Registrations) -> None:
    """Live ones alone, with scheme, path and name, in the form of Prometheus' HTTP service discovery."""
    http = registry_app(registrations, "http://r").test_client()
    assert http.get("/targets").get_json() == []
    announce(registrations, "1", registrations.clock_ns())
    announce(registrations, "2", 0)
    answer = http.get("/targets")
    assert answer.content_type == "application/json"
    labels = {"__scheme__": "http", "__metrics_path__": "/base/metrics", "stage": "subscriber-1-1"}
    assert answer.get_json() == [{"targets": ["host:811"], "labels": labels}]
    assert scrape_targets([]) == []


# the supervisor


def test_a_chains_metrics_are_on_ports_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark has the first, the publishers those after it, as arguments of their own; others have none."""
    monkeypatch.setattr(metrics_ports.lifecycle, "claim_port", lambda host, port, setting: port or 7)
    settings = Settings(clusters=2, metrics_port=9500)
    plan, urls = metrics_ports.with_ports(stages(settings, 1, ""), settings)
    assert urls == {
        "spark": "http://127.0.0.1:9500",
        "main-publisher": "http://127.0.0.1:9501",
        "cluster-publisher-1": "http://127.0.0.1:9502",
        "cluster-publisher-2": "http://127.0.0.1:9503",
    }
    given = {stage.name: stage.arguments for stage in plan}
    assert given["cluster-publisher-2"] == ("--cluster", "2", "--metrics-port", "9503")
    assert all(("--metrics-port" in arguments) is (name in urls) for name, arguments in given.items())
    assert len(plan) == len(stages(settings, 1, ""))
    assert set(metrics_ports.with_ports(stages(settings, 1, ""), Settings())[1].values()) == {"http://127.0.0.1:7"}


def test_too_few_ports_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first port so high that the last stage would have none is refused with the remedy."""
    monkeypatch.setattr(metrics_ports.lifecycle, "claim_port", lambda host, port, setting: port)
    settings = Settings(metrics_port=65535)
    with pytest.raises(SettingError, match=r"metrics_port is 65535 and main-publisher would need port 65536.*or 0"):
        metrics_ports.with_ports(stages(settings, None, ""), settings)


def test_up_says_where_every_stage_is_asked() -> None:
    """Its line has each stage's address, the subscribers' as they announced them."""
    said = [Announcement("2", "1", "http://s:8102", 0, 1)]
    assert metrics_ports.addresses({"ingest": "http://i:8000"}, said) == {
        "ingest": "http://i:8000/metrics",
        "subscriber-1-2": "http://s:8102/metrics",
    }


MODULES = ("pipeline.main_publisher", "pipeline.cluster_publisher", "spark.job")


@pytest.mark.parametrize("module", MODULES)
def test_a_stage_without_a_server_takes_the_port(module: str) -> None:
    """Its command line has the port and the address it listens on."""
    assert {"host", "metrics_port"} <= set(importlib.import_module(module).OPTIONS)
