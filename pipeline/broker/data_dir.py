"""The embedded Kafka's data directory: configuration, formatting, and exclusive use."""

from __future__ import annotations

import base64
import enum
import fcntl
import json
import logging
import shutil
import uuid
from pathlib import Path
from typing import IO

import psutil

from pipeline.broker.process import STOP_TIMEOUT_S
from pipeline.errors import BrokerError

LOG_DIR = "kafka-data"
PROPERTIES = "server.properties"
FORMATTING_MARKER = ".formatting"
PID_FILE = "broker.json"
METADATA_FOLDER = "__cluster_metadata-0"
NODE_ID = 1

logger = logging.getLogger(__name__)


class DataState(enum.Enum):
    """A data directory's state: empty, a cluster, formatting was interrupted, or topics without a cluster id."""

    EMPTY = "empty"
    FORMATTED = "formatted"
    HALF_FORMATTED = "half-formatted"
    DAMAGED = "damaged"


def server_properties(port: int, controller_port: int) -> str:
    """Return the configuration of one KRaft node on loopback that starts fast and uses little CPU when idle.

    Both ports may differ from one start to the next: the voters are listed here, not in the metadata log.
    Paths are relative to the data directory, where the JVM runs, so its name needs no escaping.
    """
    properties = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@127.0.0.1:{controller_port}",
        "listeners": f"CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"CLIENT://127.0.0.1:{port}",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": LOG_DIR,
        "message.max.bytes": 4 * 1024 * 1024,
        # A misspelt topic is a bug and must not become a new topic.
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": 0,
        "offsets.topic.num.partitions": 1,
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.num.partitions": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.coordinator.threads": 1,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "background.threads": 4,
        # The cleaner allocates this at once; the default of 128 MB is a quarter of the default heap.
        "log.cleaner.dedupe.buffer.size": 8 * 1024 * 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())


def new_cluster_id() -> str:
    """Return a random cluster id as Kafka writes them: 16 bytes, URL-safe base64, no leading dash."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
        if not text.startswith("-"):
            return text


def cluster_id(data_dir: Path) -> str | None:
    """Return the id that the directory was formatted with, or None if it has none."""
    try:
        text = (data_dir / LOG_DIR / "meta.properties").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    fields = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return fields.get("cluster.id", "").strip() or None


def holds_topics(data_dir: Path) -> bool:
    """Return whether any partition of a topic in the directory has a record."""
    segments = (data_dir / LOG_DIR).glob("*-*/*.log")
    return any(log.stat().st_size > 0 for log in segments if log.parent.name != METADATA_FOLDER)


def data_state(data_dir: Path) -> DataState:
    """Return the directory's state; it need not exist."""
    logs = data_dir / LOG_DIR
    interrupted = (data_dir / FORMATTING_MARKER).exists()
    if not interrupted and cluster_id(data_dir) is not None:
        return DataState.FORMATTED
    if holds_topics(data_dir):
        return DataState.DAMAGED
    if interrupted or (logs.is_dir() and any(logs.iterdir())):
        return DataState.HALF_FORMATTED
    return DataState.EMPTY


def clear_for_formatting(data_dir: Path) -> bool:
    """Make the directory ready for formatting; return False if it is formatted already.

    The remains of an interrupted formatting are removed if they hold no topic's records. Otherwise BrokerError is
    raised: only a person can decide whether those records matter.
    """
    state = data_state(data_dir)
    if state is DataState.FORMATTED:
        return False
    if state is DataState.DAMAGED:
        raise BrokerError(
            f"data directory {data_dir} holds topics, but {LOG_DIR}/meta.properties is missing or has no cluster.id, "
            f"or {FORMATTING_MARKER} shows that formatting was interrupted: restore that file from a copy, delete the "
            "directory, or give another one with --data-dir"
        )
    if state is DataState.HALF_FORMATTED:
        logger.warning("formatting of %s was interrupted: formatting it again", data_dir)
        shutil.rmtree(data_dir / LOG_DIR, ignore_errors=True)
    return True


def own(data_dir: Path) -> IO[str]:
    """Create the directory if it is missing and claim it for this process until the result is closed.

    Raises BrokerError if another process has claimed it, or if it cannot be written.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / ".lock").open("a", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise
    except BlockingIOError:
        remedy = "stop that broker, or give another directory with --data-dir"
        raise BrokerError(f"data directory {data_dir} is used by a running broker: {remedy}") from None
    except OSError as error:
        raise BrokerError(
            f"data directory {data_dir} cannot be used ({error}): give another one with --data-dir"
        ) from error
    return lock


def data_dir_argument(data_dir: Path) -> str:
    """Return the JVM argument that identifies the Kafka of this data directory."""
    return f"-Demostream.data.dir={data_dir}"


def stop_stale_broker(data_dir: Path, timeout_s: float = STOP_TIMEOUT_S) -> int | None:
    """Stop the Kafka that a killed owner left running on this directory; return its process id, or None.

    The recorded process is stopped only if its command line has this directory's argument: the process id may belong
    to another program by now.
    """
    try:
        pid = int(json.loads((data_dir / PID_FILE).read_text(encoding="utf-8"))["pid"])
        process = psutil.Process(pid)
        if data_dir_argument(data_dir) not in process.cmdline():
            return None
        logger.warning("stopping process %d, a Kafka left running on %s", pid, data_dir)
        process.terminate()
        try:
            process.wait(timeout_s)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(timeout_s)
    except (OSError, ValueError, KeyError, TypeError, psutil.NoSuchProcess, psutil.AccessDenied):
        return None
    return pid
