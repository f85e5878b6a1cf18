"""A real Apache Kafka, one KRaft node on loopback, that ends with the process that started it.

It is a context manager:

    with EmbeddedKafka() as kafka:
        KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Self

from pipeline import class_archive
from pipeline.broker import data_dir as broker_data
from pipeline.broker import process as broker_process
from pipeline.errors import BrokerError, PortInUseError, SettingError
from pipeline.jars import kafka_classpath
from pipeline.java import find_java

DEFAULT_HEAP_MB = 512
MIN_HEAP_MB = 128
READY_TIMEOUT_S = 60.0
POLL_S = 0.05
LOG_FILE = "kafka.log"
# Another process may take a chosen port before Kafka binds it.
PORT_ATTEMPTS = 3


class EmbeddedKafka:
    """One Kafka node. `port` 0 means a free port, `data_dir` None a temporary directory, removed at the end.

    A data directory that was used before keeps its cluster and topics, also on another port. It holds Kafka's data,
    its log `kafka.log` and, while Kafka runs, `broker.json` with the process id. Raises SettingError for an invalid
    port or heap.
    """

    def __init__(
        self,
        data_dir: Path | None = None,
        *,
        port: int = 0,
        heap_mb: int = DEFAULT_HEAP_MB,
        ready_timeout_s: float = READY_TIMEOUT_S,
        archive_to: Path | None = None,
    ) -> None:
        """`archive_to` is where Kafka's JVM writes its classes when it ends: see `pipeline.class_archive`."""
        if not 0 <= port <= 65535:
            raise SettingError(f"port is {port}: give 1 to 65535, or 0 for a free port")
        if heap_mb < MIN_HEAP_MB:
            raise SettingError(f"heap_mb is {heap_mb}: give {MIN_HEAP_MB} or more; the default is {DEFAULT_HEAP_MB}")
        self._temporary = data_dir is None
        self.data_dir = (data_dir or Path(tempfile.mkdtemp(prefix="emostream-kafka-"))).resolve()
        self._fixed_port = port
        self._port = port
        self._heap_mb = heap_mb
        self._ready_timeout_s = ready_timeout_s
        self._archive_to = archive_to
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[str] | None = None
        self._log_start = 0

    @property
    def bootstrap_servers(self) -> str:
        """The address for clients, `127.0.0.1:PORT`; valid once started."""
        return f"{broker_process.HOST}:{self._port}"

    @property
    def pid(self) -> int | None:
        """The process id of Kafka's JVM, or None while it does not run."""
        return None if self._process is None else self._process.pid

    @property
    def log_path(self) -> Path:
        """Kafka's own log."""
        return self.data_dir / LOG_FILE

    def start(self) -> Self:
        """Start Kafka and return once it answers.

        Raises PortInUseError, JavaError, JarsError, or BrokerError with the end of Kafka's log.
        """
        try:
            self._lock = broker_data.own(self.data_dir)
            broker_data.stop_stale_broker(self.data_dir)
            java, jars = find_java(), kafka_classpath()
            archive = () if self._archive_to else class_archive.mapped(class_archive.kafka(java, jars))
            classpath = os.pathsep.join(map(str, jars))
            for attempt in range(1, PORT_ATTEMPTS + 1):
                if self._fixed_port:
                    broker_process.check_port(self._fixed_port)
                try:
                    self._launch([str(java.path), *archive, "-cp", classpath, *broker_process.LOGGING_JVM])
                    break
                except PortInUseError:
                    if attempt == PORT_ATTEMPTS:
                        raise
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop Kafka: with SIGTERM, then with SIGKILL after STOP_TIMEOUT_S. Does nothing if it is not running."""
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
        """Raise BrokerError with the end of Kafka's log if Kafka has ended by itself."""
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
            *(class_archive.written(self._archive_to) if self._archive_to else ()),
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
            raise BrokerError(
                f"formatting {self.data_dir} did not end within {self._ready_timeout_s:g} s; {self._log_end()}"
            ) from None
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
