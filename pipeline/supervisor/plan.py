"""The processes of a chain, and the order in which they stop. No I/O."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.addresses import SubscriberId
from pipeline.settings import Settings


@dataclass(frozen=True)
class Stage:
    """One process: its name, the module that `python -m` runs, its arguments, and its rank in the order of stopping.

    Stages of a lower `rank` stop first: ingest while Kafka still accepts its last flush, Kafka after all others.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    rank: int = 1
    metered: bool = False
    """Whether it serves only metrics, and so needs a port for them."""

    @property
    def command(self) -> list[str]:
        """The command line."""
        return [sys.executable, "-m", self.module, *self.arguments]


def stages(settings: Settings, broker_port: int | None, data_dir: str) -> Sequence[Stage]:
    """Return every process of the chain; `broker_port` None means that an existing Kafka is used."""
    result = []
    if broker_port is not None:
        result.append(Stage("kafka", "pipeline.broker", ("--port", str(broker_port), "--data-dir", data_dir), rank=2))
    result += [
        Stage("spark", "spark.job", metered=True),
        Stage("ingest", "pipeline.ingest", rank=0),
        Stage("registry", "pipeline.registry"),
        Stage("main-publisher", "pipeline.main_publisher", metered=True),
    ]
    for cluster in range(1, settings.clusters + 1):
        result += cluster_stages(str(cluster), settings.subscribers)
    return result


def cluster_stages(cluster: str, subscribers: int) -> list[Stage]:
    """Return the processes of one cluster: its publisher and subscribers 1, 2, …; none for 0 subscribers."""
    if not subscribers:
        return []
    return [
        Stage(f"cluster-publisher-{cluster}", "pipeline.cluster_publisher", ("--cluster", cluster), metered=True),
        *(
            Stage(
                SubscriberId(cluster, str(subscriber)).stage,
                "pipeline.subscriber",
                ("--cluster", cluster, "--subscriber", str(subscriber)),
            )
            for subscriber in range(1, subscribers + 1)
        ),
    ]


def fixed_ports(settings: Settings) -> dict[str, int]:
    """Return the ports that the settings fix, by what they are for: a setting, or a setting and a stage."""
    ports = {name: getattr(settings, name) for name in ("ingest_port", "registry_port", "subscriber_port")}
    metered = [stage.name for stage in stages(settings, None, "") if stage.metered]
    if settings.metrics_port:
        ports |= {f"metrics_port for {name}": settings.metrics_port + n for n, name in enumerate(metered)}
    return {name: port for name, port in ports.items() if port}


def scaled(plan: Sequence[Stage], cluster: str, subscribers: int) -> tuple[list[Stage], list[Stage]]:
    """Return the stages to start and the stages to stop, both in order, so that `cluster` has this many subscribers.

    A new cluster's publisher starts first; with 0 subscribers the publisher stops last.
    """
    wanted = cluster_stages(cluster, subscribers)
    running = [stage for stage in plan if stage.arguments[:2] == ("--cluster", cluster)]
    # Compared by name: the arguments of a running stage include its metrics port.
    start = [stage for stage in wanted if stage.name not in {each.name for each in running}]
    stop = [stage for stage in reversed(running) if stage.name not in {each.name for each in wanted}]
    return start, stop
