"""Where the stages of a chain are asked for their metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from pipeline import lifecycle
from pipeline.addresses import SubscriberId, base_url
from pipeline.errors import SettingError
from pipeline.messages import Announcement
from pipeline.metrics.exposition import PATH
from pipeline.settings import Settings
from pipeline.supervisor.plan import Stage

LAST_PORT = 65535


def with_ports(plan: Iterable[Stage], settings: Settings) -> tuple[list[Stage], dict[str, str]]:
    """Give each stage that serves nothing else a port; return the stages, and the address of those by name.

    `metrics_port` is the first one's, and the others follow in order, so that a scrape configuration can name them; 0
    takes free ones. A stage that dies is started on the same port again. Raises PortInUseError, or SettingError when
    there are not so many ports.
    """
    given: list[Stage] = []
    urls: dict[str, str] = {}
    for stage in plan:
        if stage.metered:
            wanted = settings.metrics_port and settings.metrics_port + len(urls)
            if wanted > LAST_PORT:
                raise SettingError(
                    f"metrics_port is {settings.metrics_port} and {stage.name} would need port {wanted}, above "
                    f"{LAST_PORT}: choose a lower one, or 0 for free ones"
                )
            port = lifecycle.claim_port(settings.host, wanted, "metrics_port")
            urls[stage.name] = base_url("", settings.host, port)
            stage = replace(stage, arguments=(*stage.arguments, "--metrics-port", str(port)))
        given.append(stage)
    return given, urls


def addresses(servers: Mapping[str, str], said: Sequence[Announcement]) -> dict[str, str]:
    """Return the address of each stage's metrics: of `servers`, name → URL, and of the subscribers as they `said`."""
    subscribers = {SubscriberId(one.cluster, one.subscriber).stage: one.url for one in said}
    return {name: url + PATH for name, url in {**servers, **subscribers}.items()}
