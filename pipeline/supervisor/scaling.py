"""Scaling a running chain: ask its supervisor, then wait until the registry shows the result."""

from __future__ import annotations

import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from circus.client import CircusClient
from circus.exc import CallError

from pipeline import cluster_routes, direct_http
from pipeline.addresses import SubscriberId
from pipeline.bus.kafka import KafkaBus
from pipeline.bus.topics import topics
from pipeline.errors import EmoStreamError
from pipeline.supervisor.lock_file import find, reaching

POLL_S = 0.2


def scale(run_dir: Path, cluster: str, subscribers: int, timeout_s: float) -> dict[str, Any]:
    """Set the number of `cluster`'s subscribers in the chain in `run_dir`; 0 removes the cluster, a new name adds one.

    Return the stages started and stopped, once the registry lists all new subscribers and none of the removed ones.
    Raises SettingError if no chain runs there, EmoStreamError if this takes longer than `timeout_s`. Calling it again
    with the same arguments does no harm.
    """
    deadline_s = time.monotonic() + timeout_s
    running = find(run_dir)
    answer = _ask(running["control"], cluster, subscribers, timeout_s)
    prefix = SubscriberId(cluster, "").stage
    removed = {name.removeprefix(prefix) for name in answer["stopped"] if name.startswith(prefix)}
    values = reaching(running)
    names = topics(values)
    with closing(KafkaBus(values.kafka, timeout_s)) as bus:
        if not subscribers:
            cluster_routes.leave(bus, names, cluster)
        # A subscriber withdraws its announcement itself, but not if it had to be killed.
        if removed:
            with closing(bus.writer()) as writer:
                for subscriber in removed:
                    writer.send(names.subscribers.name, None, SubscriberId(cluster, subscriber).key.encode())
                writer.flush()
    expected = {str(number) for number in range(1, subscribers + 1)}
    while missing := _missing(running["local"]["registry"], cluster, expected, removed):
        if time.monotonic() > deadline_s:
            raise EmoStreamError(
                f"cluster {cluster} does not have {subscribers} subscribers after {timeout_s:g} s, {missing}: "
                f"see the logs in {running['run_dir']}/logs, or allow more time with --timeout-s"
            )
        time.sleep(POLL_S)
    return {"cluster": cluster, "subscribers": subscribers, "started": answer["started"], "stopped": answer["stopped"]}


def _ask(control: str, cluster: str, subscribers: int, timeout_s: float) -> dict[str, Any]:
    """Ask the supervisor to scale, and wait for its answer."""
    client = CircusClient(endpoint=control, timeout=timeout_s)
    try:
        answer: dict[str, Any] = client.send_message("scale", cluster=cluster, subscribers=subscribers, waiting=True)
    except CallError as error:
        raise EmoStreamError(
            f"the chain's supervisor did not answer at {control} within {timeout_s:g} s ({error}): "
            "allow more time with --timeout-s"
        ) from error
    finally:
        client.stop()
    if answer["status"] != "ok":
        raise EmoStreamError(f"the chain was not scaled: {answer['reason']}")
    return answer


def _missing(registry: str, cluster: str, expected: set[str], removed: set[str]) -> str:
    """Return how the registry differs from what was asked for; empty if it does not."""
    try:
        with direct_http.get(f"{registry}/clusters", timeout_s=5) as response:
            clusters = json.load(response)["clusters"]
    except (OSError, ValueError) as error:
        return f"the registry at {registry} does not answer ({error})"
    members = [member for each in clusters if each["cluster"] == cluster for member in each["subscribers"]]
    live = {member["subscriber"] for member in members if member["live"]}
    listed = removed & {member["subscriber"] for member in members}
    if expected - live:
        return f"subscriber {', '.join(sorted(expected - live))} is not live"
    return f"subscriber {', '.join(sorted(listed))} is still listed" if listed else ""
