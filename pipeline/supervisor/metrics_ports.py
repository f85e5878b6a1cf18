"""The ports and addresses of the stages' metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pipeline import lifecycle
from pipeline.addresses import SubscriberId
from pipeline.errors import SettingError
from pipeline.hosts import base_url
from pipeline.messages import Announcement
from pipeline.metrics.exposition import PATH
from pipeline.settings import Settings
from pipeline.supervisor.plan import Stage

LAST_PORT = 65535


def with_ports(plan: Iterable[Stage], settings: Settings) -> tuple[list[Stage], dict[str, str]]:
    """Give a metrics port to each stage without a server of its own; return all stages, and those stages' URLs by name.

    The first of them gets `metrics_port` and the others follow in order, so that a scrape configuration can list them;
    0 means free ports. A restarted stage keeps its port. Raises PortInUseError, or SettingError if the ports would
    exceed LAST_PORT.
    """
    given: list[Stage] = []
    urls: dict[str, str] = {}
    for stage in plan:
        if stage.metered:
            number = settings.metrics_port and settings.metrics_port + len(urls)
            if number > LAST_PORT:
                raise SettingError(
                    f"metrics_port is {settings.metrics_port} and {stage.name} would need port {number}, above "
                    f"{LAST_PORT}: choose a lower one, or 0 for free ones"
                )
            port = lifecycle.claim_port(settings.host, number, "metrics_port")
            urls[stage.name] = base_url("", settings.host, port)
            stage = replace(stage, arguments=(*stage.arguments, "--metrics-port", str(port)))
        given.append(stage)
    return given, urls


def addresses(servers: Mapping[str, str], announcements: Sequence[Announcement]) -> dict[str, str]:
    """Return the URL of each stage's metrics, by name: of `servers` (name → URL) and of the announced subscribers."""
    subscribers = {SubscriberId(each.cluster, each.subscriber).stage: each.url for each in announcements}
    return {name: url + PATH for name, url in {**servers, **subscribers}.items()}
