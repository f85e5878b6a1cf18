"""The part of the chain that the delivery benchmark needs (Kafka, registry, subscribers), with its CPU and memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import psutil

from experiments.run.chain import clean_environment, ended, last_line
from experiments.units import NS_PER_S
from pipeline import direct_http, lifecycle
from pipeline.broker.embedded import EmbeddedKafka
from pipeline.errors import EmoStreamError
from pipeline.settings import Settings, to_env

START_S = 40.0
STOP_S = 15.0
POLL_S = 0.1


class Stages:
    """Processes of the chain, each started by its own command; all that still run are stopped at the end."""

    def __init__(self, kafka: EmbeddedKafka, scratch: Path) -> None:
        self._scratch = scratch
        self._kafka = kafka
        self.settings = Settings(
            bootstrap_servers=kafka.bootstrap_servers,
            registry_port=lifecycle.claim_port("127.0.0.1", 0, "registry_port"),
            # All clients have one address here.
            registrations_per_address_min=0,
        )
        self.registry = f"http://127.0.0.1:{self.settings.registry_port}"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self._start("registry", "pipeline.registry")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            ended(process, STOP_S)

    def start_subscribers(self, *names: str) -> None:
        """Start the subscribers `cluster/subscriber` and wait until the registry counts them as live."""
        for name in names:
            cluster, subscriber = name.split("/")
            self._start(name, "pipeline.subscriber", "--cluster", cluster, "--subscriber", subscriber)
        self._until(lambda members: all(members.get(name, {}).get("live") for name in names), f"{names} are live")

    def await_clients(self, count: int) -> None:
        """Wait until the live subscribers together hold `count` clients."""
        self._until(
            lambda members: sum(member["clients"] for member in members.values() if member["live"]) == count,
            f"the subscribers hold {count} clients",
        )

    def address(self, name: str) -> str:
        """Return host:port of a subscriber."""
        return str(self._members()[name]["url"]).removeprefix("http://")

    def kill(self, name: str) -> None:
        """End a subscriber with SIGKILL."""
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> None:
        """End a subscriber with SIGTERM."""
        process = self._processes.pop(name)
        process.terminate()
        ended(process, STOP_S)

    def subscriber(self, name: str) -> psutil.Process:
        """Return a subscriber's process."""
        return psutil.Process(self._processes[name].pid)

    def pids(self) -> dict[str, int]:
        """Return the process ids by their names in the figures."""
        pids = {f"subscriber {name}" if "/" in name else name: one.pid for name, one in self._processes.items()}
        return {**pids, "kafka": self._kafka.pid or 0, "benchmark": os.getpid()}

    def _start(self, name: str, module: str, *arguments: str) -> None:
        with self._log(name).open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**clean_environment(), **to_env(self.settings), **lifecycle.as_parent()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # The benchmark handles a Ctrl-C at the terminal.
                process_group=0,
            )

    def _log(self, name: str) -> Path:
        return self._scratch / f"{name.replace('/', '-')}.log"

    def _members(self) -> dict[str, dict[str, Any]]:
        """Return the registry's entry of each subscriber, by name; nothing while it does not answer."""
        try:
            with direct_http.get(f"{self.registry}/clusters", timeout_s=5) as answer:
                clusters = msgspec.json.decode(answer.read())["clusters"]
        except OSError:
            return {}
        return {
            f"{cluster['cluster']}/{member['subscriber']}": member
            for cluster in clusters
            for member in cluster["subscribers"]
        }

    def _until(self, condition: Callable[[Mapping[str, dict[str, Any]]], bool], what: str) -> None:
        deadline_s = time.monotonic() + START_S
        while not condition(members := self._members()):
            for name, process in self._processes.items():
                if process.poll() is not None:
                    raise EmoStreamError(f"{name} ended by itself: {last_line(self._log(name))}")
            if time.monotonic() > deadline_s:
                raise EmoStreamError(
                    f"the wait until {what} took longer than {START_S:g} s; the registry lists {dict(members)}"
                )
            time.sleep(POLL_S)


@contextmanager
def started(scratch: Path) -> Iterator[Stages]:
    """Start Kafka and the registry with the default settings; stop everything at the end."""
    with EmbeddedKafka(scratch / "kafka") as kafka, Stages(kafka, scratch) as stages:
        yield stages


class Meter:
    """Counts the CPU time of processes, their children included, from its making to `cores()`."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._before = {name: (pid, cpu_s(pid)) for name, pid in pids.items()}
        self._begun_ns = time.monotonic_ns()

    def cores(self) -> dict[str, float]:
        """Return the mean number of cores that each used."""
        elapsed_s = (time.monotonic_ns() - self._begun_ns) / NS_PER_S
        return {name: round((cpu_s(pid) - spent_s) / elapsed_s, 3) for name, (pid, spent_s) in self._before.items()}


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process and its children, seconds; this process's own children do not count."""
    whole = psutil.Process(pid)
    children = [] if pid == os.getpid() else whole.children(recursive=True)
    return sum(_own_s(each) for each in (whole, *children))


def _own_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def rss_mb(processes: Iterable[psutil.Process]) -> float:
    """Return the resident memory of processes together, MiB."""
    return sum(process.memory_info().rss for process in processes) / 2**20
