"""The embedded Kafka: what a data directory is, and the real thing started, killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from pipeline.broker import data_dir as broker_data
from pipeline.broker import process as broker_process
from pipeline.broker.data_dir import DataState
from pipeline.broker.embedded import EmbeddedKafka, main
from pipeline.errors import BrokerError, PortInUseError, SettingError

REPOSITORY = Path(__file__).resolve().parents[3]
META = "version=1\ncluster.id=4L6g3nShT-eMCtK--X86sw\nnode.id=1\n"
GONE_S = 20


def lay_out(data_dir: Path, meta: str | None, marker: bool, topic: bool) -> None:
    """Make a data directory with this meta.properties, marker of an interrupted formatting, and topic."""
    logs = data_dir / broker_data.LOG_DIR
    for folder, written in ((broker_data.METADATA_FOLDER, True), ("emoji-events-0", topic)):
        (logs / folder).mkdir(parents=True)
        (logs / folder / "00000000000000000000.log").write_bytes(b"record" if written else b"")
    if meta is not None:
        (logs / "meta.properties").write_text(meta)
    if marker:
        (data_dir / broker_data.FORMATTING_MARKER).touch()


@pytest.mark.parametrize(
    ("meta", "marker", "topic", "state"),
    [
        (META, False, True, DataState.FORMATTED),
        (META, False, False, DataState.FORMATTED),
        (META, True, False, DataState.HALF_FORMATTED),
        (None, False, False, DataState.HALF_FORMATTED),
        ("", False, False, DataState.HALF_FORMATTED),
        ("version=1\ncluster.id=\n", False, False, DataState.HALF_FORMATTED),
        (None, False, True, DataState.DAMAGED),
        ("version=1\n", False, True, DataState.DAMAGED),
        (META, True, True, DataState.DAMAGED),
    ],
)
def test_the_state_of_a_data_directory(
    tmp_path: Path, meta: str | None, marker: bool, topic: bool, state: DataState
) -> None:
    """A directory is a cluster if it has an id and no marker; records decide whether it may be formatted."""
    lay_out(tmp_path, meta, marker, topic)
    assert broker_data.data_state(tmp_path) is state


def test_a_new_directory_is_empty(tmp_path: Path) -> None:
    """A directory that is not there yet, or has nothing of Kafka's, is to be formatted."""
    assert broker_data.data_state(tmp_path / "none") is DataState.EMPTY
    assert broker_data.clear_for_formatting(tmp_path)


def test_an_interrupted_formatting_is_cleared(tmp_path: Path) -> None:
    """What an interrupted formatting left is removed, so that Kafka's tool finds nothing to stumble over."""
    lay_out(tmp_path, "", True, False)
    assert broker_data.clear_for_formatting(tmp_path)
    assert not (tmp_path / broker_data.LOG_DIR).exists()


def test_topics_are_never_cleared(tmp_path: Path) -> None:
    """Records without an identity are left alone, and the error says which directory and what to do."""
    lay_out(tmp_path, None, False, True)
    with pytest.raises(BrokerError, match="restore that file") as caught:
        broker_data.clear_for_formatting(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert broker_data.holds_topics(tmp_path)


@contextmanager
def recorded_process(data_dir: Path, argument: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process with the argument on its command line, recorded as the directory's broker."""
    program = "print('up', flush=True); input()"
    command = [sys.executable, "-c", program, argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (data_dir / broker_data.PID_FILE).write_text(json.dumps({"pid": process.pid}))
        yield process
        process.kill()


def test_a_stale_broker_is_stopped(tmp_path: Path) -> None:
    """A process left behind on this directory, known by its command line, is stopped."""
    with recorded_process(tmp_path, broker_data.data_dir_argument(tmp_path)) as process:
        assert broker_data.stop_stale_broker(tmp_path) == process.pid
        assert process.wait(GONE_S) is not None


@pytest.mark.parametrize("argument", ["something-else", "-Demostream.data.dir=/another/directory"])
def test_another_program_with_that_number_is_left_alone(tmp_path: Path, argument: str) -> None:
    """A process that merely got the recorded number, or serves another directory, is not touched."""
    with recorded_process(tmp_path, argument) as process:
        assert broker_data.stop_stale_broker(tmp_path) is None
        assert process.poll() is None


@pytest.mark.parametrize("record", [None, "", "{}", '{"pid": "x"}', '{"pid": 99999999}', "[]"])
def test_a_useless_record_is_ignored(tmp_path: Path, record: str | None) -> None:
    """No record, a broken one, or one of a process that is gone, means that there is nothing to stop."""
    if record is not None:
        (tmp_path / broker_data.PID_FILE).write_text(record)
    assert broker_data.stop_stale_broker(tmp_path) is None


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """A second claim of a directory fails with its name until the first is given up."""
    with broker_data.own(tmp_path), pytest.raises(BrokerError, match="a running broker uses") as caught:
        broker_data.own(tmp_path)
    assert str(tmp_path) in str(caught.value)
    broker_data.own(tmp_path).close()


@pytest.mark.parametrize(
    ("options", "culprit"),
    [({"port": 70000}, "port 70000"), ({"port": -1}, "port -1"), ({"heap_mb": 1}, "heap_mb 1")],
)
def test_impossible_settings_are_refused(tmp_path: Path, options: dict[str, int], culprit: str) -> None:
    """A port or heap that cannot be is named before anything starts."""
    with pytest.raises(SettingError, match=culprit):
        EmbeddedKafka(tmp_path, **options)


def test_a_port_in_use_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command exits with 1 and names the port that something else listens on."""
    with socket.socket() as taken:
        taken.bind((broker_process.HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError):
            broker_process.check_port(port)
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        try:
            assert main(["--data-dir", str(tmp_path / "kafka"), "--port", str(port)]) == 1
        finally:
            for number, handler in zip((signal.SIGINT, signal.SIGTERM), handlers, strict=True):
                signal.signal(number, handler)
    assert f"port {port} of 127.0.0.1 is in use" in capsys.readouterr().err


def test_a_watched_process_that_ends_by_itself_leaves_no_watcher(tmp_path: Path) -> None:
    """The watcher of a command that is done goes when `end` is called, and the exit code is the command's."""
    process = broker_process.spawn(["/bin/sh", "-c", "echo done; exit 7"], tmp_path, tmp_path / "log")
    assert process.wait(GONE_S) == 7
    watchers = [p for p in psutil.process_iter(["cmdline"]) if "emostream-kafka" in (p.info["cmdline"] or [])]
    ours = [p for p in watchers if p.cwd() == str(tmp_path)]
    broker_process.end(process)
    assert psutil.wait_procs(ours, GONE_S)[1] == []
    assert (tmp_path / "log").read_text() == "done\n"


def write(servers: str, topic: str, values: list[bytes]) -> None:
    """Make the topic and send the values to it."""
    with closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    with closing(KafkaProducer(bootstrap_servers=servers, max_request_size=4 << 20)) as producer:
        for value in values:
            producer.send(topic, value).get(GONE_S)


def read(servers: str, topic: str, count: int) -> list[bytes]:
    """Return the first `count` values of the topic."""
    options = {"bootstrap_servers": servers, "auto_offset_reset": "earliest", "group_id": None}
    with closing(KafkaConsumer(topic, **options)) as consumer:
        return [next(consumer).value for _ in range(count)]


@contextmanager
def command(
    *arguments: str, wrap: Callable[[list[str]], list[str]] = list
) -> Iterator[tuple[subprocess.Popen[str], dict]]:
    """Run the command until it is ready; yield its process and what it announced."""
    line = [sys.executable, "-m", "pipeline.broker", *arguments]
    env = {**os.environ, "EMOSTREAM_STOP_WITH_PARENT": "1"}
    with subprocess.Popen(wrap(line), cwd=REPOSITORY, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def assert_gone(pids: list[int]) -> None:
    """Fail if one of the processes is there after a while."""
    processes = [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]
    assert psutil.wait_procs(processes, GONE_S)[1] == []


@pytest.mark.integration
def test_a_restart_on_other_ports_keeps_topics_and_identity(tmp_path: Path) -> None:
    """What was written is read after a start on another port, in a directory with an awkward name."""
    folder = tmp_path / "a b,c=ü"
    with EmbeddedKafka(folder) as kafka:
        first, identity = kafka.bootstrap_servers, broker_data.cluster_id(folder)
        write(first, "kept", [b"one", b"two"])
    assert kafka.pid is None
    with EmbeddedKafka(folder) as kafka:
        assert kafka.bootstrap_servers != first
        assert read(kafka.bootstrap_servers, "kept", 2) == [b"one", b"two"]
        assert broker_data.cluster_id(folder) == identity
        with pytest.raises(BrokerError, match="a running broker uses"):
            EmbeddedKafka(folder).start()
        assert read(kafka.bootstrap_servers, "kept", 2) == [b"one", b"two"]


@pytest.mark.integration
def test_sigterm_ends_the_command_and_kafka(tmp_path: Path) -> None:
    """The ready file says what was printed; SIGTERM stops Kafka in good order, and the exit code is 0."""
    lay_out(tmp_path / "kafka", "", True, False)
    ready = tmp_path / "ready.json"
    with command("--data-dir", str(tmp_path / "kafka"), "--ready-file", str(ready)) as (process, about):
        assert json.loads(ready.read_text()) == about
        assert about["data_dir"] == str(tmp_path / "kafka")
        write(about["bootstrap_servers"], "reformatted", [b"one"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(GONE_S) == 0
        assert_gone([about["pid"]])
    assert not (tmp_path / "kafka" / broker_data.PID_FILE).exists()
    assert "shutdown" in (tmp_path / "kafka" / "kafka.log").read_text()


@pytest.mark.integration
def test_kafka_dies_with_a_killed_owner(tmp_path: Path) -> None:
    """SIGKILL of the command, which no handler sees, takes the JVM and its watcher along."""
    with command("--data-dir", str(tmp_path)) as (process, about):
        family = [child.pid for child in psutil.Process(process.pid).children(recursive=True)]
        assert about["pid"] in family
        process.kill()
        process.wait()
        assert_gone(family)


@pytest.mark.integration
def test_the_command_follows_its_parent() -> None:
    """With EMOSTREAM_STOP_WITH_PARENT=1 the command stops when its parent is killed, and tidies up."""

    def in_a_shell(line: list[str]) -> list[str]:
        return [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])", *line]

    with command(wrap=in_a_shell) as (parent, about):
        family = [child.pid for child in psutil.Process(parent.pid).children(recursive=True)]
        assert about["pid"] in family
        parent.kill()
        assert_gone(family)
    assert not Path(about["data_dir"]).exists()


@pytest.mark.integration
def test_a_kafka_that_dies_is_reported(tmp_path: Path) -> None:
    """When the JVM is killed from outside, the command ends with 1 instead of waiting for ever."""
    with command("--data-dir", str(tmp_path)) as (process, about):
        os.kill(about["pid"], signal.SIGKILL)
        assert process.wait(GONE_S) == 1


@pytest.mark.integration
def test_a_kafka_that_cannot_start_shows_its_log(tmp_path: Path) -> None:
    """A start that fails raises with the end of Kafka's log: here, another node's data directory."""
    lay_out(tmp_path, META.replace("node.id=1", "node.id=2"), False, False)
    with pytest.raises(BrokerError, match=r"exit code 1; .*kafka\.log ends:\n") as caught:
        EmbeddedKafka(tmp_path).start()
    assert "node.id" in str(caught.value) or "node id" in str(caught.value)
    broker_data.own(tmp_path).close()


@pytest.mark.integration
def test_the_shared_broker_serves(broker: EmbeddedKafka) -> None:
    """The fixture that other tests use takes and gives records, of up to 4 MB."""
    large = os.urandom(3 << 20)
    write(broker.bootstrap_servers, "shared", [b"one", large])
    assert read(broker.bootstrap_servers, "shared", 2) == [b"one", large]
