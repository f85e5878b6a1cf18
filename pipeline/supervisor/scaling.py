"""Scaling a chain that runs: asking its supervisor, and waiting until the registry sees what was asked for."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import closing
from pathlib import Path
from typing import Any

from circus.client import CircusClient
from circus.exc import CallError

from pipeline import cluster_routes
from pipeline.addresses import SubscriberId
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.settings import Settings
from pipeline.supervisor.lock_file import find

POLL_S = 0.2


def scale(run_dir: Path, cluster: str, subscribers: int, timeout_s: float) -> dict[str, Any]:
    """Give `cluster` of the chain in `run_dir` so many subscribers; 0 removes it, a new name adds it.

    Return what was started and stopped, once the registry sees those that came and none of those that went. Raises
    SettingError when no chain runs there, EmoStreamError when it does not do as asked within `timeout_s`; asking again
    is harmless.
    """
    deadline_s = time.monotonic() + timeout_s
    said = find(run_dir)
    answer = _ask(said["control"], cluster, subscribers, timeout_s)
    prefix = SubscriberId(cluster, "").stage
    went = {name.removeprefix(prefix) for name in answer["stopped"] if name.startswith(prefix)}
    names = topics(Settings(topic_prefix=said["topic_prefix"]))
    with closing(KafkaBus(said["bootstrap_servers"], timeout_s)) as bus:
        if not subscribers:
            cluster_routes.leave(bus, names, cluster)
        # They say so themselves; one that had to be killed could not.
        if went:
            with closing(bus.writer()) as writer:
                for subscriber in went:
                    writer.send(names.subscribers.name, None, SubscriberId(cluster, subscriber).key.encode())
                writer.flush()
    wanted = {str(number) for number in range(1, subscribers + 1)}
    while missing := _missing(said["registry"], cluster, wanted, went):
        if time.monotonic() > deadline_s:
            raise EmoStreamError(
                f"cluster {cluster} is not as asked after {timeout_s:g} s: {missing}; see the logs in "
                f"{said['run_dir']}/logs, or allow more with --timeout-s"
            )
        time.sleep(POLL_S)
    return {"cluster": cluster, "subscribers": subscribers, "started": answer["started"], "stopped": answer["stopped"]}


def _ask(control: str, cluster: str, subscribers: int, timeout_s: float) -> dict[str, Any]:
    """Have the supervisor do it, and wait until it has."""
    client = CircusClient(endpoint=control, timeout=timeout_s)
    try:
        answer: dict[str, Any] = client.send_message("scale", cluster=cluster, subscribers=subscribers, waiting=True)
    except CallError as error:
        raise EmoStreamError(
            f"the chain's supervisor did not answer at {control} within {timeout_s:g} s ({error}): "
            "allow more with --timeout-s"
        ) from error
    finally:
        client.stop()
    if answer["status"] != "ok":
        raise EmoStreamError(f"the chain was not scaled: {answer['reason']}")
    return answer


def _missing(registry: str, cluster: str, wanted: set[str], went: set[str]) -> str:
    """Return what the registry does not see yet; empty when all is as asked."""
    try:
        with urllib.request.urlopen(f"{registry}/clusters", timeout=5) as response:
            clusters = json.load(response)["clusters"]
    except (OSError, ValueError) as error:
        return f"the registry at {registry} does not answer ({error})"
    members = [member for one in clusters if one["cluster"] == cluster for member in one["subscribers"]]
    live = {member["subscriber"] for member in members if member["live"]}
    left = went & {member["subscriber"] for member in members}
    if wanted - live:
        return f"subscriber {', '.join(sorted(wanted - live))} is not live"
    return f"subscriber {', '.join(sorted(left))} is still listed" if left else ""
