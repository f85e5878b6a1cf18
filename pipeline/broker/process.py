"""The embedded Kafka as a process: a JVM that ends with its owner, its ports, and whether it answers."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import PortInUseError, SettingError

HOST = "127.0.0.1"
STOP_TIMEOUT_S = 15.0
# The shell turns into Java and keeps its process id. Its watcher reads a pipe that only the owner holds: a
# line means "all is well, go", end of file that the owner is gone, however it died, and Java has to follow.
WATCHED = """exec 3<&0 </dev/null; jvm=$$
(
  read -r line <&3 && exit 0
  kill -TERM $jvm
  i=0; while [ $i -lt 15 ] && kill -0 $jvm; do sleep 1; i=$((i+1)); done
  kill -KILL $jvm
) >/dev/null 2>&1 &
exec "$@" 3<&-
"""

# The serial collector starts sooner and idles at less than half the CPU of G1. Both compilers stay in the
# server: the second one costs 0.4 s of the start and pays off under sustained load.
SERVER_JVM = ("-XX:+UseSerialGC", "-Djava.awt.headless=true")
TOOL_JVM = (*SERVER_JVM, "-XX:TieredStopAtLevel=1", "-Xmx128m")
LOGGING_JVM = (
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)

logger = logging.getLogger(__name__)


def spawn(command: Sequence[str], folder: Path, log: Path) -> subprocess.Popen[bytes]:
    """Start `command` in `folder`, its output appended to `log`; it is stopped when this process ends.

    Pass the result to `end` sooner or later, also when it ended by itself.
    """
    with log.open("ab") as output:
        # A session of its own: Ctrl-C in a terminal reaches the owner, who stops Kafka in good order.
        return subprocess.Popen(
            ["/bin/sh", "-c", WATCHED, "emostream-kafka", *command],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], timeout_s: float = STOP_TIMEOUT_S) -> None:
    """Stop a spawned process and its watcher: with SIGTERM, and with SIGKILL after `timeout_s`."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            logger.warning("Kafka (process %d) did not stop in %g s: killing it", process.pid, timeout_s)
            process.kill()
            process.wait()
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(OSError):
            process.stdin.write(b"\n")
        with contextlib.suppress(OSError):
            process.stdin.close()


def log_end(log: Path, start: int, lines: int = 20) -> str:
    """Return the last lines that were written to `log` after its first `start` bytes, with its name above."""
    with log.open("rb") as handle:
        handle.seek(start)
        text = handle.read().decode("utf-8", errors="replace")
    return "\n".join([f"{log} ends:", *text.splitlines()[-lines:]])


def choose_ports(port: int) -> tuple[int, int]:
    """Return (client port, controller port), free on loopback just now; `port` is kept unless it is 0."""
    with socket.socket() as client, socket.socket() as controller:
        client.bind((HOST, 0))
        controller.bind((HOST, 0))
        return port or client.getsockname()[1], controller.getsockname()[1]


def check_port(port: int) -> None:
    """Raise `PortInUseError` if something listens on loopback's `port`, `SettingError` if it is forbidden."""
    with socket.socket() as probe:
        # As Kafka does: connections that are merely winding down are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_in_use(port) from None
            raise SettingError(f"port {port} cannot be used: {error}; give another with --port") from error


def port_in_use(port: int) -> PortInUseError:
    """Return the error for a port that is taken."""
    remedy = "stop what listens there, or give another port, or 0 to have a free one chosen"
    return PortInUseError(f"port {port} of {HOST} is in use: {remedy}")


def is_ready(port: int, cluster_id: str | None) -> bool:
    """Whether the Kafka on loopback's `port` answers, is the cluster `cluster_id` and has its broker up."""
    try:
        socket.create_connection((HOST, port), timeout=1.0).close()
    except OSError:
        return False
    # Not at the top: the import takes a while, which costs nothing while the JVM starts.
    from kafka import KafkaAdminClient
    from kafka.errors import KafkaError

    try:
        admin = KafkaAdminClient(bootstrap_servers=f"{HOST}:{port}", request_timeout_ms=5000)
        with contextlib.closing(admin):
            cluster = admin.describe_cluster()
    except KafkaError:
        return False
    return bool(cluster["brokers"]) and cluster["cluster_id"] == cluster_id
