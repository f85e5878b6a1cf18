"""One frozen `Settings`: defaults, then `EMOSTREAM_*` variables, then command-line options.

Only a `main()` reads it; all other code receives values. Each field has its description (also its `--help` text), its
bounds and its default, so that a setting is defined in one place.
"""

from __future__ import annotations

import argparse
import difflib
import math
import os
import platform
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec
from msgspec import Meta

from pipeline import environment, kafka_security
from pipeline.addresses import CLUSTER_NAME, HOST, HTTP_URL, NAME, PORT, SUBSCRIBER_NAME
from pipeline.errors import SettingError
from pipeline.hosts import WILDCARDS, local_address
from pipeline.origins import Origins, origin_of_url, parse_origins

PREFIX = "EMOSTREAM_"
# These are read before the settings: where the jars are, whether to end with the supervisor, what a restart left out.
NOT_SETTINGS = frozenset({"EMOSTREAM_CACHE_DIR", "EMOSTREAM_PARENT_PID", environment.IGNORED})

SERVERS = rf"^({HOST}:{PORT}(,{HOST}:{PORT})*)?\Z"
URL = rf"^({HTTP_URL})?\Z"
# hdfs://…, s3a://…, file:/…
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
# The file systems in pyspark's own jars on which a checkpoint can be written. No other jar is added for them.
FILE_SYSTEMS = ("file", "hdfs", "webhdfs", "swebhdfs", "viewfs")
A_URL = "http:// or https://, then a host, and at most a port and a path; or leave it empty"
MASTER = r"^(local(\[(\*|[1-9][0-9]*)(,[1-9][0-9]*)?\])?|spark://[^\s,/]+:[0-9]+)\Z"
# Spark itself refuses a smaller heap.
LEAST_MEMORY_MB = 512
MB_PER_UNIT = {"m": 1, "g": 1024}

Port = Annotated[int, Meta(ge=0, le=65535)]


def described(text: str) -> Meta:
    """Return the annotation with a setting's description."""
    return Meta(description=text)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of the chain. Units stand in the names."""

    bootstrap_servers: Annotated[
        str,
        Meta(
            pattern=SERVERS,
            description="Kafka to use, as host:port[,host:port]; empty: the embedded Kafka",
            extra={"allowed": "host:port[,host:port], or leave it empty"},
        ),
    ] = ""
    kafka_security_file: Annotated[
        str,
        described(
            "file of name=value lines for a Kafka with TLS or passwords: security.protocol, sasl.mechanism, "
            "sasl.username, sasl.password, ssl.ca.location, ssl.certificate.location, ssl.key.location, "
            "ssl.key.password; empty: neither"
        ),
    ] = ""
    kafka_wait_s: Annotated[
        float, Meta(gt=0, le=3600, description="how long a starting stage waits for Kafka to answer, seconds")
    ] = 30.0
    topic_prefix: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9._-]{0,100}\Z",
            description="prefix of every topic's name",
            extra={"allowed": "at most 100 letters, digits, '.', '_' or '-'"},
        ),
    ] = ""
    partitions: Annotated[
        int, Meta(ge=1, le=100, description="partitions of the topic emoji-events when it is created")
    ] = 2
    retention_ms: Annotated[
        int, Meta(ge=60_000, le=10**15, description="how long Kafka keeps records, milliseconds")
    ] = 86_400_000
    retention_bytes: Annotated[
        int,
        Meta(
            ge=16 << 20,
            le=10**15,
            description="most bytes that Kafka keeps of emoji-events, and of every other topic a sixteenth",
        ),
    ] = 8 << 30

    host: Annotated[
        str,
        Meta(
            pattern=r"^[\w.:-]{1,253}\Z",
            description="address, or name, of this machine on which the HTTP stages listen",
            extra={
                "allowed": "an address of this machine without brackets or port, such as 127.0.0.1 or ::1, or its name"
            },
        ),
    ] = "127.0.0.1"
    host_names: Annotated[
        str,
        Meta(
            pattern=rf"^({NAME}(, *{NAME})*)?\Z",
            description="names by which clients call the HTTP stages, separated by commas, beside addresses, names "
            "without a dot, this machine's name and those in the settings for URLs",
            extra={"allowed": "names without scheme and port, separated by commas, such as live.example"},
        ),
    ] = ""
    ingest_port: Annotated[Port, described("port of ingest; 0: a free port")] = 8000
    ingest_workers: Annotated[int, Meta(ge=1, le=64, description="worker processes of ingest")] = 2
    ingest_threads: Annotated[
        int, Meta(ge=0, le=1024, description="request threads per ingest worker; 0: as many as the value of ack needs")
    ] = 0
    ack: Annotated[
        Literal["async", "durable"],
        described("when ingest answers: async (at once) or durable (after Kafka has acknowledged the reactions)"),
    ] = "async"
    flush_ms: Annotated[
        int, Meta(ge=0, le=60_000, description="interval between two flushes from ingest to Kafka, milliseconds")
    ] = 500
    flush_phase: Annotated[
        Literal["aligned", "free"],
        described(
            "when ingest flushes: aligned (just before multiples of flush_ms on the wall clock) or free (flush_ms "
            "after the previous flush)"
        ),
    ] = "aligned"
    flush_lead_ms: Annotated[
        int,
        Meta(
            ge=0, le=10_000, description="how long before a multiple of flush_ms an aligned flush starts, milliseconds"
        ),
    ] = 50
    flush_batch: Annotated[int, Meta(ge=1, description="number of waiting reactions that starts a flush at once")] = (
        20_000
    )
    buffer_max: Annotated[
        int,
        Meta(
            ge=1, le=10**9, description="reactions that one ingest worker buffers; answer 503 when the buffer is full"
        ),
    ] = 200_000
    disk_free_min_mb: Annotated[
        int,
        Meta(
            ge=0,
            le=10**9,
            description="answer 503 while the embedded Kafka's disk has less free space, megabytes; 0: do not look",
        ),
    ] = 64
    kafka_out_s: Annotated[
        float,
        Meta(gt=0, le=3600, description="answer 503 after this many seconds without an acknowledgement from Kafka"),
    ] = 10.0
    body_max_bytes: Annotated[
        # One reaction takes up to 250 bytes.
        int, Meta(ge=256, description="largest request body that ingest accepts, bytes")
    ] = 262_144
    array_max: Annotated[int, Meta(ge=1, description="most reactions that ingest accepts in one request")] = 1_000
    rate_per_user_s: Annotated[
        int,
        Meta(ge=0, le=65_535, description="reactions per second that ingest accepts from one user; 0: no limit"),
    ] = 50
    rate_per_address_s: Annotated[
        int,
        Meta(
            ge=0,
            le=65_535,
            description="reactions per second that ingest accepts from one address, whoever its users are; 0: no limit",
        ),
    ] = 0

    trigger_s: Annotated[
        float, Meta(gt=0, le=3600, description="Spark's trigger interval, which is the length of one window, seconds")
    ] = 6.0
    window_max: Annotated[
        int,
        Meta(ge=1, le=2**31 - 1, description="records that a window covers at most; the others wait for the next"),
    ] = 100_000
    group_size: Annotated[int, Meta(ge=1, le=10**9, description="reactions that one representative stands for")] = 10
    policy: Annotated[
        Literal["ceil", "floor", "carry", "stochastic"],
        described(
            "representatives of a group that is not full: ceil (one), floor (none), carry (none; its reactions "
            "count in the next window) or stochastic (one, with a probability equal to the group's fill level)"
        ),
    ] = "ceil"
    checkpoint_dir: Annotated[str, described("directory of Spark's checkpoint; empty: <run_dir>/checkpoint")] = ""
    spark_master: Annotated[
        str,
        Meta(
            pattern=MASTER,
            description="Spark master to run on: local[N], or spark://host:port on this machine",
            extra={"allowed": "local, local[N], local[*] or spark://host:port"},
        ),
    ] = "local[2]"
    spark_memory: Annotated[
        str,
        Meta(
            pattern=r"^[1-9][0-9]*[mg]\Z",
            description="heap of Spark's driver, such as 512m or 2g",
            extra={"allowed": "a whole number from 1, followed by m or g"},
        ),
    ] = "1g"

    clusters: Annotated[int, Meta(ge=1, le=100, description="number of clusters")] = 2
    subscribers: Annotated[int, Meta(ge=1, le=100, description="number of subscribers per cluster")] = 2
    cluster: Annotated[
        str,
        Meta(
            pattern=CLUSTER_NAME,
            description="name of the cluster; it must not end in -feed",
            extra={"allowed": "1 to 50 letters, digits, '_' or '-' that do not end in -feed"},
        ),
    ] = "1"
    subscriber: Annotated[
        str,
        Meta(
            pattern=SUBSCRIBER_NAME,
            description="name of this subscriber in its cluster",
            extra={"allowed": "1 to 50 letters, digits, '_' or '-'"},
        ),
    ] = "1"
    feed_bootstrap_servers: Annotated[
        str,
        Meta(
            pattern=SERVERS,
            description="Kafka that holds the cluster's feed, as host:port[,host:port]; empty: bootstrap_servers",
            extra={"allowed": "host:port[,host:port], or leave it empty"},
        ),
    ] = ""
    top_n: Annotated[
        int, Meta(ge=0, description="emoji types that a cluster shows, the most frequent first; 0: all")
    ] = 0
    subscriber_port: Annotated[Port, described("port of this subscriber; 0: a free port")] = 0
    subscriber_url: Annotated[
        str,
        Meta(
            pattern=URL,
            description="URL at which clients reach this subscriber; empty: http://<host>:<port>",
            extra={"allowed": A_URL},
        ),
    ] = ""
    client_queue_max: Annotated[
        int, Meta(ge=1, description="windows queued for a slow client; disconnect the client when its queue is full")
    ] = 32
    connections_max: Annotated[int, Meta(ge=1, description="streams per subscriber; answer 503 to any further one")] = (
        20_000
    )
    heartbeat_s: Annotated[
        float, Meta(gt=0, le=3600, description="interval between two heartbeats on a stream, seconds")
    ] = 15.0
    silent_s: Annotated[
        # A subscriber announces itself once a second.
        float,
        Meta(ge=2, le=3600, description="a subscriber is dead after this many seconds without an announcement"),
    ] = 5.0
    registry_port: Annotated[Port, described("port of the registry; 0: a free port")] = 8080
    registry_url: Annotated[
        str,
        Meta(
            pattern=URL,
            description="URL at which clients reach the registry; empty: http://<host>:<port>",
            extra={"allowed": A_URL},
        ),
    ] = ""
    moves_per_s: Annotated[
        int,
        Meta(ge=0, le=10_000, description="clients moved per second to balance the load of the subscribers; 0: none"),
    ] = 50
    clients_max: Annotated[
        int, Meta(ge=1, description="registered clients; answer 503 to any further POST /clients")
    ] = 100_000
    client_idle_s: Annotated[
        float, Meta(ge=300, description="a client's registration ends after this many seconds without a stream")
    ] = 3600.0
    registrations_per_address_min: Annotated[
        int, Meta(ge=0, le=65_535, description="registrations per minute from one address; 0: no limit")
    ] = 10_000
    proxies: Annotated[
        int,
        Meta(
            ge=0,
            le=10,
            description="number of proxies in front of ingest and the registry whose X-Forwarded-For header is trusted",
        ),
    ] = 0
    metrics_port: Annotated[
        Port,
        described(
            "port of /metrics and /healthz of a stage without another server; 0: a free port. `up` gives this "
            "port to Spark and the ports after it to the publishers"
        ),
    ] = 0
    ingest_url: Annotated[
        str,
        Meta(
            pattern=URL,
            description="URL at which the page reaches ingest; empty: ingest_port on the page's own host",
            extra={"allowed": A_URL},
        ),
    ] = ""
    origins: Annotated[
        str,
        described(
            "origins of further web pages that may call ingest, the registry and the subscribers, as "
            "scheme://host[:port], separated by commas; empty: only the registry's own page"
        ),
    ] = ""

    run_dir: Annotated[
        str, Meta(min_length=1, description="directory of Kafka's data, Spark's checkpoint and the logs")
    ] = "run"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        described("least severe level that is logged: debug, info, warning or error"),
    ] = "info"

    @property
    def kafka(self) -> str:
        """Bootstrap servers of the main Kafka; by default, the usual port of an embedded Kafka on this machine."""
        return self.bootstrap_servers or "127.0.0.1:9092"

    @property
    def feed_kafka(self) -> str:
        """Bootstrap servers of the Kafka that holds the cluster's feed."""
        return self.feed_bootstrap_servers or self.kafka

    @property
    def feed_setting(self) -> str:
        """Name of the setting that `feed_kafka` is from."""
        return "feed_bootstrap_servers" if self.feed_bootstrap_servers else "bootstrap_servers"

    def page_rule(self, registry_port: int | None = None) -> Origins:
        """Return which pages and names are allowed; `registry_port` is where the registry listens, if not there."""
        urls = filter(None, (self.ingest_url, self.subscriber_url))
        names = (*self.host_names.replace(" ", "").split(","), *(origin_of_url(url).host for url in urls))
        port = self.registry_port if registry_port is None else registry_port
        return Origins(self.origins, self.registry_url, port, (*names, platform.node()))

    def replace(self, **changes: object) -> Settings:
        """Return a copy with `changes`, which are checked."""
        return build({**msgspec.structs.asdict(self), **changes})


FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}
DEFAULTS = Settings()
REACHING = ("bootstrap_servers", "kafka_security_file", "topic_prefix")
"""The settings that lead to a chain's Kafka and topics; `up` publishes them with its addresses."""


def _metas(name: str) -> list[Meta]:
    return [meta for meta in getattr(FIELDS[name].type, "__metadata__", ()) if isinstance(meta, Meta)]


def _kind(name: str) -> Any:
    kind = FIELDS[name].type
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def _description(name: str) -> str:
    return next((meta.description for meta in reversed(_metas(name)) if meta.description), "")


def _allowed(name: str) -> str:
    """Return what a value of the setting must be, as an instruction."""
    kind = _kind(name)
    if get_origin(kind) is Literal:
        return f"choose one of {', '.join(get_args(kind))}"
    above = least = most = None
    for meta in _metas(name):
        if meta.extra:
            return f"give {meta.extra['allowed']}"
        above = meta.gt if above is None else above
        least = meta.ge if least is None else least
        most = meta.le if most is None else most
    noun = {int: "a whole number", float: "a finite number"}.get(kind, "text that is not empty")
    low = "" if above is None else f" above {above:g}"
    low = low if least is None else f" from {least}"
    high = "" if most is None else f" to {most}" if least is not None else f" and at most {most}"
    return f"give {noun}{low}{high}"


def build(values: Mapping[str, object]) -> Settings:
    """Return settings with `values`, checked; strings are converted.

    Raises SettingError with the setting, its value and what it should be.
    """
    for name in values:
        if name not in FIELDS:
            raise SettingError(f"setting {name!r} does not exist: remove it, or use one of {', '.join(sorted(FIELDS))}")
    try:
        settings = msgspec.convert(dict(values), Settings, strict=False)
    except msgspec.ValidationError as error:
        name = str(error).partition(" - at `$.")[2].rstrip("`")
        raise refused(name, values.get(name), _allowed(name)) from error
    for name, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise refused(name, value, _allowed(name))
    check_together(settings)
    return settings


def refused(name: str, value: object, remedy: str, with_others: str = "") -> SettingError:
    """Return the error for a value of the setting `name`; `with_others` names the values that it contradicts."""
    seen = re.sub(r"//[^/@]*@", "//***@", repr(value))
    return SettingError(
        f"setting {name} ({PREFIX}{name.upper()}, --{name.replace('_', '-')}) is {seen}{with_others}: "
        f"{remedy}. Meaning of the setting: {_description(name)}"
    )


def check_together(settings: Settings) -> None:
    """Raise SettingError for values that are allowed one by one and cannot work together."""
    given = settings
    if given.flush_phase == "aligned" and 0 < given.flush_ms < given.flush_lead_ms:
        raise refused(
            "flush_lead_ms",
            given.flush_lead_ms,
            "give at most flush_ms, or flush_phase=free",
            f" and flush_ms is {given.flush_ms}",
        )
    if given.array_max > given.buffer_max:
        raise refused(
            "array_max",
            given.array_max,
            "give at most buffer_max: a larger array never fits",
            f" and buffer_max is {given.buffer_max}",
        )
    if 0 < given.rate_per_address_s < given.array_max:
        raise refused(
            "rate_per_address_s",
            given.rate_per_address_s,
            "give at least array_max: a longer array is never accepted",
            f" and array_max is {given.array_max}",
        )
    if not math.isclose(given.trigger_s * 1000, round(given.trigger_s * 1000)) or given.trigger_s < 0.001:
        raise refused("trigger_s", given.trigger_s, "give whole milliseconds, such as 0.5")
    if given.retention_ms < 2 * given.trigger_s * 1000:
        raise refused(
            "retention_ms",
            given.retention_ms,
            "give at least two triggers, or Kafka removes reactions before they are counted",
            f" and trigger_s is {given.trigger_s:g}",
        )
    if int(given.spark_memory[:-1]) * MB_PER_UNIT[given.spark_memory[-1]] < LEAST_MEMORY_MB:
        raise refused("spark_memory", given.spark_memory, f"give at least {LEAST_MEMORY_MB}m, which Spark needs")
    scheme = SCHEME.match(given.checkpoint_dir)
    if scheme is not None and scheme[1].lower() not in FILE_SYSTEMS:
        raise refused(
            "checkpoint_dir",
            given.checkpoint_dir,
            f"give a path or a URL of {', '.join(FILE_SYSTEMS[:-1])} or {FILE_SYSTEMS[-1]}: Spark's own jars have no "
            f"file system for {scheme[1]}",
        )
    for name in ("subscriber_url", "registry_url", "ingest_url"):
        url = getattr(given, name)
        try:
            if url and origin_of_url(url).host in WILDCARDS:
                raise ValueError("give an address or a name that clients can call")
        except ValueError as error:
            raise refused(name, url, str(error)) from error
    try:
        parse_origins(given.origins)
    except ValueError as error:
        raise refused("origins", given.origins, str(error)) from error


def from_env(env: Mapping[str, str]) -> dict[str, object]:
    """Return the settings in `EMOSTREAM_*` variables, as strings.

    Raises SettingError for an unknown variable with the prefix: otherwise a typing error would silently leave the
    default in effect.
    """
    values: dict[str, object] = {}
    for key, value in env.items():
        if not key.startswith(PREFIX) or key in NOT_SETTINGS:
            continue
        name = key.removeprefix(PREFIX).lower()
        if name not in FIELDS:
            near = difflib.get_close_matches(name, FIELDS, 1, 0.8)
            raise SettingError(
                f"environment variable {key} is not a setting: unset it, or use "
                + (
                    PREFIX + near[0].upper()
                    if near
                    else "one of " + ", ".join(PREFIX + n.upper() for n in sorted(FIELDS))
                )
            )
        values[name] = value
    return values


def to_env(settings: Settings) -> dict[str, str]:
    """Return the environment variables that pass `settings` to a child process."""
    return {
        PREFIX + name.upper(): str(value)
        for name, value in msgspec.structs.asdict(settings).items()
        if value != FIELDS[name].default
    }


def parser(
    prog: str,
    description: str,
    names: Sequence[str],
    make: Callable[..., argparse.ArgumentParser] = argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Return a command line parser with one option per setting in `names`; `make` may add it to a larger one."""
    result = make(
        prog=prog,
        description=description,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        # Otherwise `up --cluster 3`, which is a setting of one stage, would be read as --clusters.
        allow_abbrev=False,
    )
    for name in names:
        result.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar=_metavar(name),
            default=argparse.SUPPRESS,
            help=f"{_description(name)} (default: {FIELDS[name].default!r})",
        )
    return result


def _metavar(name: str) -> str:
    """Return what `--help` shows for a setting's value: its choices, as argparse writes them."""
    kind = _kind(name)
    return f"{{{','.join(get_args(kind))}}}" if get_origin(kind) is Literal else "X"


def parse(line: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> tuple[Settings, argparse.Namespace]:
    """Parse `argv` with the parser that `parser` made; return the settings and all parsed options."""
    options = line.parse_args(argv)
    return of(options), options


def of(options: argparse.Namespace) -> Settings:
    """Return the settings that parsed options and the environment give. Raises SettingError."""
    given = {name: value for name, value in vars(options).items() if name in FIELDS}
    settings = build({**from_env(os.environ), **given})
    address = local_address(settings.host)
    named = () if settings.host in (address, "localhost") else (settings.host,)
    names = ",".join(filter(None, (settings.host_names, *named)))
    path = settings.kafka_security_file
    if path and not settings.bootstrap_servers:
        raise refused("kafka_security_file", path, "give bootstrap_servers as well: the embedded Kafka is open")
    return secured(settings.replace(host=address, host_names=names))


def secured(settings: Settings) -> Settings:
    """Let all clients of this process use `kafka_security_file`; return the settings with its full path.

    Raises SettingError.
    """
    path = settings.kafka_security_file
    try:
        return settings.replace(kafka_security_file=kafka_security.use(path))
    except ValueError as error:
        raise refused("kafka_security_file", path, str(error)) from error


def main(prog: str, description: str, names: Sequence[str], argv: Sequence[str] | None = None) -> Settings:
    """Return a stage's settings, or print the error and exit. Every stage's `main()` starts with this call."""
    try:
        return parse(parser(f"python -m {prog}", description, names), argv)[0]
    except SettingError as error:
        sys.exit(f"{prog}: {error}")
