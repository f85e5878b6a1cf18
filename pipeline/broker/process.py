"""The embedded Kafka's process: a JVM that ends with its owner, its ports, and whether it is ready."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline import environment
from pipeline.errors import PortInUseError, SettingError

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 15.0
# The shell becomes Java and keeps its process id. The watcher reads a pipe that only the owner holds: a line means
# that Java has been stopped, end of file that the owner is dead, and then the watcher stops Java.
WATCHED = f"""exec 3<&0 </dev/null; jvm=$$
(
  read -r line <&3 && exit 0
  kill -TERM $jvm
  i=0; while [ $i -lt {STOP_TIMEOUT_S:g} ] && kill -0 $jvm; do sleep 1; i=$((i+1)); done
  kill -KILL $jvm
) >/dev/null 2>&1 &
exec "$@" 3<&-
"""

# The serial collector starts faster than G1 and uses less than half its CPU when idle. Only the fast compiler (C1): at
# 4,500 records per second in batches of 500 ms, Kafka costs 6 to 7 microseconds of CPU per record from the start, with
# both compilers 13, and 8 after two minutes; its first 30 quiet seconds cost 2.3 s of CPU instead of 4.6 s. The cost:
# at 8,000 single records per second it stays at 19 microseconds, where both compilers reach 12 after a minute.
SERVER_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true")
TOOL_JVM = (*SERVER_JVM, "-Xmx128m")
LOGGING_JVM = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

logger = logging.getLogger(__name__)


def spawn(command: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `command` in `folder` with its output appended to `log`; it is stopped when this process ends.

    Pass the result to `end` at the end, even if the process ended by itself.
    """
    with log.open("ab") as output:
        # A separate session: Ctrl-C in a terminal reaches the owner only, which then stops Kafka properly.
        return subprocess.Popen(
            ["/bin/sh", "-c", WATCHED, "emostream-kafka", *command],
            cwd=folder,
            env=environment.own(os.environ),
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Stop a spawned process and its watcher: with SIGTERM, then with SIGKILL after `timeout_s`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("Kafka (process %d) did not stop within %g s: killing it", process.pid, timeout_s)
            process.kill()
            process.wait()
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(OSError):
            process.stdin.write(b"\n")
        with contextlib.suppress(OSError):
            process.stdin.close()


def log_end(log: Path, start: int, lines: int = 20) -> str:
    """Return the name of `log` and the last lines after its first `start` bytes."""
    with log.open("rb") as handle:
        handle.seek(start)
        text = handle.read().decode("utf-8", errors="replace")
    return "\n".join([f"{log} ends:", *text.splitlines()[-lines:]])


def choose_ports(port: int) -> tuple[int, int]:
    """Return (client port, controller port), both free on loopback; the client port is `port` unless that is 0."""
    with socket.socket() as client, socket.socket() as controller:
        client.bind((HOST, 0))
        controller.bind((HOST, 0))
        return port or client.getsockname()[1], controller.getsockname()[1]


def check_port(port: int) -> None:
    """Raise PortInUseError if something listens on loopback's `port`, SettingError if it cannot be bound."""
    with socket.socket() as probe:
        # As Kafka does: connections that are closing must not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_in_use(port) from None
            raise SettingError(f"port {port} cannot be used ({error}): give another one with --port") from error


def port_in_use(port: int) -> PortInUseError:
    """Return the error for a port in use."""
    remedy = "stop the process that listens there, or give another port, or 0 for a free one"
    return PortInUseError(f"port {port} of {HOST} is in use: {remedy}")


def is_ready(port: int, cluster_id: str | None) -> bool:
    """Return whether Kafka answers on loopback's `port`, has this cluster id and a running broker."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    # Imported here because it is slow, and the JVM is starting meanwhile.
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(bootstrap_servers=f"{HOST}:{port}", request_timeout_ms=5000)
        with contextlib.closing(admin):
            cluster = admin.describe_cluster()
    except KafkaError:
        return False
    return bool(cluster["brokers"]) and cluster["cluster_id"] == cluster_id
