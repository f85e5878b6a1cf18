"""One frozen `Settings`: defaults, then `EMOSTREAM_*` variables, then command-line options.

Only a `main()` reads it; everything below receives values. Each field's description is its `--help` text, its
bounds are its check, so a setting is described in one place.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from pipeline.errors import SettingError

PREFIX = "EMOSTREAM_"
# Read before any setting is: where the jars lie, and whether to die with the supervisor.
NOT_SETTINGS = frozenset({"EMOSTREAM_CACHE_DIR", "EMOSTREAM_STOP_WITH_PARENT"})

Port = Annotated[int, Meta(ge=0, le=65535)]


def described(text: str) -> Meta:
    """Attach a setting's description."""
    return Meta(description=text)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting of the chain. Units stand in the names."""

    bootstrap_servers: Annotated[str, described("Kafka to use, host:port[,host:port]; empty: embedded")] = ""
    kafka_wait_s: Annotated[float, Meta(gt=0, description="how long a starting stage waits for Kafka, seconds")] = 30.0
    topic_prefix: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9._-]{0,100}\Z", description="put before every topic's name")
    ] = ""
    partitions: Annotated[int, Meta(ge=1, le=100, description="partitions of emoji-events")] = 2
    retention_ms: Annotated[int, Meta(ge=60_000, description="how long Kafka keeps records, ms")] = 86_400_000

    host: Annotated[str, described("address the HTTP stages listen on")] = "127.0.0.1"
    ingest_port: Annotated[Port, described("port of ingest; 0 takes a free one")] = 8000
    ingest_workers: Annotated[int, Meta(ge=1, le=64, description="ingest worker processes")] = 2
    ingest_threads: Annotated[
        int, Meta(ge=0, le=1024, description="request threads a worker; 0: 16 for async, 128 for durable")
    ] = 0
    ack: Annotated[Literal["async", "durable"], described("answer at once, or when Kafka has acknowledged")] = "async"
    flush_ms: Annotated[int, Meta(ge=0, le=60_000, description="interval between flushes to Kafka, ms")] = 500
    flush_phase: Annotated[
        Literal["aligned", "free"], described("flush just before wall-clock multiples, or whenever")
    ] = "aligned"
    flush_lead_ms: Annotated[
        int, Meta(ge=0, le=10_000, description="aligned flushes start this long before the grid, ms")
    ] = 50
    flush_batch: Annotated[int, Meta(ge=1, description="flush at once when this many reactions wait")] = 20_000
    buffer_max: Annotated[int, Meta(ge=1, description="reactions a worker holds before it answers 503")] = 200_000
    kafka_out_s: Annotated[
        float, Meta(gt=0, description="answer 503 when Kafka has acknowledged nothing for so long, seconds")
    ] = 10.0
    body_max_bytes: Annotated[int, Meta(ge=64, description="largest request body, bytes")] = 262_144
    array_max: Annotated[int, Meta(ge=1, description="most reactions in one request")] = 1_000
    rate_per_user_s: Annotated[
        int, Meta(ge=0, description="reactions a user may send a second to one worker; 0: no limit")
    ] = 50

    trigger_s: Annotated[float, Meta(gt=0, le=3600, description="Spark's trigger interval: one window, seconds")] = 6.0
    group_size: Annotated[int, Meta(ge=1, description="reactions that one representative stands for")] = 10
    policy: Annotated[
        Literal["ceil", "floor", "carry", "stochastic"],
        described("what becomes of a group that is not full: one, none, counts on in the next window, or one by lot"),
    ] = "ceil"
    checkpoint_dir: Annotated[str, described("Spark's checkpoint; empty: <run_dir>/checkpoint")] = ""
    spark_master: Annotated[str, described("where Spark runs")] = "local[2]"
    spark_memory: Annotated[str, Meta(pattern=r"^[1-9][0-9]*[mg]\Z", description="heap of Spark's driver")] = "1g"

    clusters: Annotated[int, Meta(ge=1, le=100, description="clusters of subscribers")] = 2
    subscribers: Annotated[int, Meta(ge=1, le=100, description="subscribers in each cluster")] = 2
    cluster: Annotated[
        # A cluster "1-feed" would take the feed of cluster 1 for its source.
        str, Meta(pattern=r"^(?!.*-feed\Z)[A-Za-z0-9_-]{1,50}\Z", description="the cluster; no name ends in -feed")
    ] = "1"
    subscriber: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_-]{1,50}\Z", description="this subscriber's name in its cluster")
    ] = "1"
    feed_bootstrap_servers: Annotated[
        str, described("Kafka that holds the cluster's feed; empty: bootstrap_servers")
    ] = ""
    top_n: Annotated[int, Meta(ge=0, description="emoji types a cluster shows, the most frequent first; 0: all")] = 0
    subscriber_port: Annotated[Port, described("port of this subscriber; 0 takes a free one")] = 0
    subscriber_url: Annotated[str, described("how clients reach this subscriber; empty: http://host:port")] = ""
    client_queue_max: Annotated[
        int, Meta(ge=1, description="windows that wait for a slow client before it is cut off")
    ] = 32
    connections_max: Annotated[int, Meta(ge=1, description="streams a subscriber holds; beyond it answers 503")] = (
        20_000
    )
    heartbeat_s: Annotated[float, Meta(gt=0, description="interval between SSE comments, seconds")] = 15.0
    silent_s: Annotated[float, Meta(gt=0, description="a subscriber silent for so long is taken out, seconds")] = 5.0
    registry_port: Annotated[Port, described("port of the registry; 0 takes a free one")] = 8080
    registry_url: Annotated[str, described("how clients reach the registry; empty: http://host:port")] = ""
    moves_per_s: Annotated[
        int, Meta(ge=0, le=10_000, description="clients moved a second to even out subscribers' loads; 0: none")
    ] = 50
    clients_max: Annotated[int, Meta(ge=1, description="clients registered; beyond it POST /clients answers 503")] = (
        100_000
    )
    client_idle_s: Annotated[
        float, Meta(ge=300, description="a client that held no stream for so long is forgotten, seconds")
    ] = 3600.0
    registrations_per_address_min: Annotated[
        int, Meta(ge=0, description="registrations an address may make a minute; 0: no limit")
    ] = 10_000
    proxies: Annotated[
        int, Meta(ge=0, le=10, description="proxies before the registry whose X-Forwarded-For is believed")
    ] = 0
    metrics_port: Annotated[
        Port,
        described(
            "port of /metrics and /healthz where a stage serves nothing else; 0 takes a free one. `up` gives it to "
            "Spark, and those after it to the publishers"
        ),
    ] = 0
    ingest_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[A-Za-z0-9._:\[\]/~%-]+)?\Z",
            description="how the page reaches ingest; empty: at ingest_port of the page's own host",
        ),
    ] = ""

    run_dir: Annotated[str, described("where a run keeps Kafka's data, checkpoints and logs")] = "run"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], described("least severe line logged")] = "info"

    @property
    def kafka(self) -> str:
        """Bootstrap servers of the main Kafka; a stage started by hand finds the embedded one at its port."""
        return self.bootstrap_servers or "127.0.0.1:9092"

    @property
    def feed_kafka(self) -> str:
        """Bootstrap servers of the Kafka that holds the cluster's feed."""
        return self.feed_bootstrap_servers or self.kafka

    def replace(self, **changes: object) -> Settings:
        """Return a copy with `changes`, checked like any other value."""
        return build({**msgspec.structs.asdict(self), **changes})


FIELDS = {field.name: field for field in msgspec.structs.fields(Settings)}


def _description(name: str) -> str:
    kind = FIELDS[name].type
    metas = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]
    return next((meta.description for meta in reversed(metas) if meta.description), "")


def build(values: Mapping[str, object]) -> Settings:
    """Return checked settings; strings are cast.

    Raises SettingError naming the setting, the value seen and what it should be.
    """
    for name in values:
        if name not in FIELDS:
            raise SettingError(f"there is no setting {name!r}: remove it, or use one of {', '.join(sorted(FIELDS))}")
    try:
        settings = msgspec.convert(dict(values), Settings, strict=False)
    except msgspec.ValidationError as error:
        reason, _, where = str(error).partition(" - at `$.")
        name = where.rstrip("`")
        raise SettingError(
            f"setting {name} ({PREFIX}{name.upper()}, --{name.replace('_', '-')}) is {values.get(name)!r}: "
            f"{reason[:1].lower()}{reason[1:]}. It means: {_description(name)}"
        ) from error
    for name, value in msgspec.structs.asdict(settings).items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SettingError(
                f"setting {name} ({PREFIX}{name.upper()}, --{name.replace('_', '-')}) is {values.get(name)!r}: "
                f"give a finite number. It means: {_description(name)}"
            )
    return settings


def from_env(env: Mapping[str, str]) -> dict[str, object]:
    """Return the settings named by `EMOSTREAM_*` variables, uncast.

    Raises SettingError for a variable with the prefix that names no setting: a typing error would otherwise
    silently leave the default in force.
    """
    values: dict[str, object] = {}
    for key, value in env.items():
        if not key.startswith(PREFIX) or key in NOT_SETTINGS:
            continue
        name = key.removeprefix(PREFIX).lower()
        if name not in FIELDS:
            raise SettingError(
                f"environment variable {key} names no setting: unset it, or use one of "
                + ", ".join(PREFIX + known.upper() for known in sorted(FIELDS))
            )
        values[name] = value
    return values


def to_env(settings: Settings) -> dict[str, str]:
    """Return the variables that hand `settings` to a child process."""
    return {
        PREFIX + name.upper(): str(value)
        for name, value in msgspec.structs.asdict(settings).items()
        if value != FIELDS[name].default
    }


def parser(prog: str, description: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """Return a command line with one option for each setting in `names`."""
    result = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name in names:
        result.add_argument(
            f"--{name.replace('_', '-')}",
            dest=name,
            metavar="X",
            default=argparse.SUPPRESS,
            help=f"{_description(name)} (default: {FIELDS[name].default!r})",
        )
    return result


def parse(line: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> tuple[Settings, argparse.Namespace]:
    """Parse a command line made by `parser`; return the settings and the options that are no settings."""
    options = line.parse_args(argv)
    given = {name: value for name, value in vars(options).items() if name in FIELDS}
    return build({**from_env(os.environ), **given}), options


def main(prog: str, description: str, names: Sequence[str], argv: Sequence[str] | None = None) -> Settings:
    """Return a stage's settings, or print the error and exit with 2: what every stage's `main()` begins with."""
    try:
        return parse(parser(prog, description, names), argv)[0]
    except SettingError as error:
        sys.exit(f"{prog}: {error}")
