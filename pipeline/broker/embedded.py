"""A real Apache Kafka, one KRaft node on loopback, that lives exactly as long as its owner.

`python -m pipeline.broker` runs one until SIGINT or SIGTERM; in a program it is a context manager:

    with EmbeddedKafka() as kafka:
        KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import IO, NoReturn, Self

from pipeline.broker import data_dir as broker_data
from pipeline.broker import process as broker_process
from pipeline.errors import BrokerError, EmoStreamError, PortInUseError, SettingError
from pipeline.jars import kafka_classpath
from pipeline.java import find_java

DEFAULT_HEAP_MB = 512
MIN_HEAP_MB = 128
READY_TIMEOUT_S = 60.0
POLL_S = 0.05
LOG_FILE = "kafka.log"
# A port that we chose may be taken by somebody else before Kafka binds it.
PORT_ATTEMPTS = 3


class EmbeddedKafka:
    """One Kafka node: `port` 0 chooses a free one, `data_dir` None uses a temporary one, removed at the end.

    A data directory that was used before keeps its cluster and topics, whatever the port is now. It holds
    Kafka's data, its log `kafka.log` and, while it runs, `broker.json` with the process id. Raises
    `SettingError` for a port or heap that cannot be.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        heap_mb: int = DEFAULT_HEAP_MB,
        ready_timeout_s: float = READY_TIMEOUT_S,
    ) -> None:
        if not 0 <= port <= 65535:
            raise SettingError(f"port {port}: give one from 1 to 65535, or 0 to have a free one chosen")
        if heap_mb < MIN_HEAP_MB:
            raise SettingError(f"heap_mb {heap_mb}: give {MIN_HEAP_MB} or more; usual is {DEFAULT_HEAP_MB}")
        self._temporary = data_dir is None
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix="emostream-kafka-"))).resolve()
        self._fixed_port = port
        self._port = port
        self._heap_mb = heap_mb
        self._ready_timeout_s = ready_timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._log_start = 0

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, `127.0.0.1:PORT`; valid once started."""
        return f"{broker_process.HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of Kafka's JVM, or None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def log_path(self) -> Path:
        """Kafka's own log."""
        return self.data_dir / LOG_FILE

    def start(self) -> Self:
        """Start Kafka and return once it answers.

        Raises `PortInUseError`, `JavaError`, `JarsError`, or `BrokerError` with the end of Kafka's log.
        """
        try:
            self._lock = broker_data.own(self.data_dir)
            broker_data.stop_stale_broker(self.data_dir)
            java, classpath = find_java().path, os.pathsep.join(map(str, kafka_classpath()))
            for attempt in range(1, PORT_ATTEMPTS + 1):
                if self._fixed_port:
                    broker_process.check_port(self._fixed_port)
                try:
                    self._launch([str(java), "-cp", classpath, *broker_process.LOGGING_JVM])
                    break
                except PortInUseError:
                    if attempt == PORT_ATTEMPTS:
                        raise
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop Kafka in a controlled way, by force after 15 s; harmless when it is not running."""
        if self._process is not None:
            broker_process.end(self._process)
            self._process = None
            (self.data_dir / broker_data.PID_FILE).unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._temporary:
            shutil.rmtree(self.data_dir, ignore_errors=True)

    def check(self) -> None:
        """Raise `BrokerError` with the end of Kafka's log if it ended by itself."""
        if self._process is not None and (code := self._process.poll()) is not None:
            raise BrokerError(f"Kafka ended by itself with exit code {code}; {self._log_end()}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, java: list[str]) -> None:
        self._port, controller_port = broker_process.choose_ports(self._fixed_port)
        properties = broker_data.server_properties(self._port, controller_port)
        (self.data_dir / broker_data.PROPERTIES).write_text(properties, encoding="ascii")
        if broker_data.clear_for_formatting(self.data_dir):
            self._format(java)
        options = (
            *broker_process.SERVER_JVM,
            f"-Xmx{self._heap_mb}m",
            broker_data.data_dir_argument(self.data_dir),
        )
        self._process = self._spawn([*java, *options, "kafka.Kafka", broker_data.PROPERTIES])
        record = json.dumps({"pid": self._process.pid, "bootstrap_servers": self.bootstrap_servers})
        (self.data_dir / broker_data.PID_FILE).write_text(record + "\n", encoding="utf-8")
        self._wait_until_ready(self._process)

    def _format(self, java: list[str]) -> None:
        marker = self.data_dir / broker_data.FORMATTING_MARKER
        marker.touch()
        arguments = ("-t", broker_data.new_cluster_id(), "-c", broker_data.PROPERTIES)
        process = self._spawn([*java, *broker_process.TOOL_JVM, "kafka.tools.StorageTool", "format", *arguments])
        try:
            code = process.wait(self._ready_timeout_s)
        except subprocess.TimeoutExpired:
            raise BrokerError(f"formatting {self.data_dir} took over {self._ready_timeout_s:g} s") from None
        finally:
            broker_process.end(process)
        if code != 0:
            raise BrokerError(f"formatting {self.data_dir} ended with exit code {code}; {self._log_end()}")
        marker.unlink()

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        self._log_start = self.log_path.stat().st_size if self.log_path.exists() else 0
        return broker_process.spawn(command, self.data_dir, self.log_path)

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._ready_timeout_s
        identity = broker_data.cluster_id(self.data_dir)
        while not broker_process.is_ready(self._port, identity):
            try:
                self.check()
            except BrokerError as error:
                broker_process.end(process)
                self._process = None
                if "Address already in use" in str(error):
                    raise broker_process.port_in_use(self._port) from error
                raise
            if time.monotonic() > deadline:
                raise BrokerError(f"Kafka was not ready after {self._ready_timeout_s:g} s; {self._log_end()}")
            time.sleep(POLL_S)

    def _log_end(self) -> str:
        return broker_process.log_end(self.log_path, self._log_start)


class _StopRequested(BaseException):
    """A signal asked this process to stop."""


def _request_stop(_number: int, _frame: FrameType | None) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise _StopRequested


def run(kafka: EmbeddedKafka, announce: Callable[[str], None], stop_with_parent: bool) -> None:
    """Run `kafka` for ever, or until the parent process ends if `stop_with_parent`.

    `announce` gets a line of JSON once it is ready. Raises what `start` raises, `BrokerError` if Kafka ends.
    """
    parent = os.getppid()
    with kafka:
        facts = {
            "bootstrap_servers": kafka.bootstrap_servers,
            "data_dir": str(kafka.data_dir),
            "pid": kafka.pid,
        }
        announce(json.dumps(facts))
        while not (stop_with_parent and os.getppid() != parent):
            kafka.check()
            time.sleep(4 * POLL_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a broker from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.broker", description="Run a one-node Kafka.")
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; default: a free one")
    parser.add_argument("--data-dir", type=Path, help="kept and reused; default: temporary, removed at the end")
    parser.add_argument("--heap-mb", type=int, default=DEFAULT_HEAP_MB, help="default: %(default)s")
    parser.add_argument("--ready-file", type=Path, help="write the line of JSON here too, once ready")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)
    # While the broker starts, a client's refused connections are expected.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)

    def announce(line: str) -> None:
        if options.ready_file is not None:
            scratch = options.ready_file.with_name(options.ready_file.name + ".new")
            scratch.write_text(line + "\n", encoding="utf-8")
            scratch.replace(options.ready_file)
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _request_stop)
        if options.ready_file is not None:
            options.ready_file.unlink(missing_ok=True)
        kafka = EmbeddedKafka(options.data_dir, port=options.port, heap_mb=options.heap_mb)
        run(kafka, announce, os.environ.get("EMOSTREAM_STOP_WITH_PARENT") == "1")
    except _StopRequested:
        return 0
    except (EmoStreamError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
