"""The data directory: its state, what may be cleared, one owner, and a stale broker."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.broker import data_dir as broker_data
from pipeline.broker.data_dir import DataState
from pipeline.errors import BrokerError

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
def test_data_state_by_meta_marker_and_topics(
    tmp_path: Path, meta: str | None, marker: bool, topic: bool, state: DataState
) -> None:
    """A directory is a cluster if it has an id and no marker; otherwise its records decide what it is."""
    lay_out(tmp_path, meta, marker, topic)
    assert broker_data.data_state(tmp_path) is state


def test_missing_directory_is_empty(tmp_path: Path) -> None:
    """A directory that does not exist yet must be formatted."""
    assert broker_data.data_state(tmp_path / "none") is DataState.EMPTY
    assert broker_data.clear_for_formatting(tmp_path)


def test_interrupted_formatting_is_cleared(tmp_path: Path) -> None:
    """Its remains are removed, because Kafka's tool refuses them."""
    lay_out(tmp_path, "", True, False)
    assert broker_data.clear_for_formatting(tmp_path)
    assert not (tmp_path / broker_data.LOG_DIR).exists()


def test_topics_without_cluster_id_are_kept_and_refused(tmp_path: Path) -> None:
    """The records stay; the error names the directory and the remedy."""
    lay_out(tmp_path, None, False, True)
    with pytest.raises(BrokerError, match="restore that file") as caught:
        broker_data.clear_for_formatting(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert broker_data.holds_topics(tmp_path)


@contextmanager
def recorded_process(data_dir: Path, argument: str) -> Iterator[subprocess.Popen[str]]:
    """Run a process with `argument` on its command line, recorded as the directory's broker."""
    program = "print('up', flush=True); input()"
    command = [sys.executable, "-c", program, argument]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (data_dir / broker_data.PID_FILE).write_text(json.dumps({"pid": process.pid}))
        yield process
        process.kill()


def test_stale_broker_is_stopped(tmp_path: Path) -> None:
    """A process left running on this directory is recognised by its command line."""
    with recorded_process(tmp_path, broker_data.data_dir_argument(tmp_path)) as process:
        assert broker_data.stop_stale_broker(tmp_path) == process.pid
        assert process.wait(GONE_S) is not None


@pytest.mark.parametrize("argument", ["something-else", "-Demostream.data.dir=/another/directory"])
def test_other_program_with_recorded_pid_is_not_stopped(tmp_path: Path, argument: str) -> None:
    """The process id was reused, or the process serves another directory."""
    with recorded_process(tmp_path, argument) as process:
        assert broker_data.stop_stale_broker(tmp_path) is None
        assert process.poll() is None


@pytest.mark.parametrize("record", [None, "", "{}", '{"pid": "x"}', '{"pid": 99999999}', "[]"])
def test_unusable_pid_file_is_ignored(tmp_path: Path, record: str | None) -> None:
    """A missing or damaged file, or one of a dead process, means that there is nothing to stop."""
    if record is not None:
        (tmp_path / broker_data.PID_FILE).write_text(record)
    assert broker_data.stop_stale_broker(tmp_path) is None


def test_directory_has_one_owner(tmp_path: Path) -> None:
    """A second claim fails with the directory's name until the first is closed."""
    with broker_data.own(tmp_path), pytest.raises(BrokerError, match="is used by a running broker") as caught:
        broker_data.own(tmp_path)
    assert str(tmp_path) in str(caught.value)
    broker_data.own(tmp_path).close()
