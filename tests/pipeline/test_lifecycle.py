"""How a stage starts and ends: its port, errors, signals, parent and log."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from pipeline import lifecycle
from pipeline.errors import EmoStreamError, PortInUseError, SettingError
from tests.harness.network import needs_ipv6
from tests.harness.processes import is_gone
from tests.harness.waiting import until

REPOSITORY = Path(__file__).resolve().parents[2]
# No test here waits this long unless something is broken.
DEADLINE_S = 60.0


def python(program: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """Run a program in a separate process."""
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def said(program: str, *arguments: str, **environment: str) -> Iterator[str]:
    """Run a program that prints a line; yield the line, and kill the program at the end."""
    with python(program, *arguments, **environment) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


def test_port_in_use_error_names_setting_address_and_remedy() -> None:
    """The error comes before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUseError) as caught:
            lifecycle.claim_port("127.0.0.1", port, "ingest_port")
    for words in (f"ingest_port is {port}", f"127.0.0.1:{port}", "choose another port"):
        assert words in str(caught.value)


HOLDING = """
import sys, time
from pipeline import lifecycle
print(lifecycle.hold_port("127.0.0.1", int(sys.argv[1]), "ingest_port"), flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names of sockets without a file")
def test_port_is_held_before_anything_listens_on_it() -> None:
    """A second chain that starts at the same moment is refused; after the first one's death the port is free."""
    with python(HOLDING, "0") as first:
        assert first.stdout is not None
        port = int(first.stdout.readline())
        try:
            with pytest.raises(PortInUseError, match=f"ingest_port is {port}, and another chain is about to listen"):
                lifecycle.hold_port("127.0.0.1", port, "ingest_port")
        finally:
            first.kill()
    assert lifecycle.hold_port("127.0.0.1", port, "ingest_port") == port
    for _ in range(2):
        os.close(lifecycle._holders.pop())


STAGE = """
import os, subprocess, sys, time
from pipeline import lifecycle
from pipeline.errors import PortInUseError
port = int(sys.argv[1])
if sys.argv[2:] == ["supervised"]:
    port = lifecycle.hold_port("127.0.0.1", port, "p")
    stage = "from pipeline import lifecycle; print(lifecycle.stage_port('127.0.0.1', %d, 'p'), flush=True)" % port
    subprocess.run([sys.executable, "-c", stage], env={**os.environ, **lifecycle.as_parent()}, check=True)
else:
    try:
        print(lifecycle.stage_port("127.0.0.1", port, "p"), flush=True)
    except PortInUseError as error:
        print(error, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names of sockets without a file")
def test_stages_by_hand_with_a_parent_do_not_share_a_port() -> None:
    """The shell that started both holds no port for them; a supervisor does for its own."""
    parent = {lifecycle.PARENT_PID: str(os.getpid())}
    with said(STAGE, "0", **parent) as port, said(STAGE, port, **parent) as refusal:
        assert f"p is {port}, and another chain is about to listen there" in refusal
    with said(STAGE, port, "supervised") as claimed, said(STAGE, port, **parent) as refusal:
        assert claimed == port
        assert "another chain is about to listen there" in refusal


def test_port_0_returns_a_free_port() -> None:
    """The result can be listened on; another port is returned unchanged."""
    port = lifecycle.claim_port("127.0.0.1", 0, "p")
    assert port > 0
    assert lifecycle.claim_port("127.0.0.1", port, "p") == port


def test_port_of_the_system_is_not_called_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to it, no process that listens there could be found and stopped."""

    def refuse(_: object, __: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lifecycle.socket.socket, "bind", refuse)
    with pytest.raises(SettingError, match="registry_port is 80, which this user may not use: choose a port from 1024"):
        lifecycle.claim_port("127.0.0.1", 80, "registry_port")


@needs_ipv6
@pytest.mark.parametrize("family", ["127.0.0.1", "::1"])
def test_every_address_is_listened_on(family: str) -> None:
    """Those of IPv4 too, which asyncio leaves out: clients get a name that may mean either."""
    with lifecycle.listening("::", 0, "p", 1) as listener:
        socket.create_connection((family, listener.getsockname()[1]), timeout=DEADLINE_S).close()


def test_port_out_of_range_raises_setting_error() -> None:
    """The error names the option and the range."""
    with pytest.raises(SettingError, match="--port is 99999: give 1 to 65535"):
        lifecycle.claim_port("127.0.0.1", 99999, "--port")


def test_emostream_error_exits_with_one_line() -> None:
    """Any other error keeps its traceback."""

    def fail(error: Exception) -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        lifecycle.run_main("stage", lambda: fail(EmoStreamError("port 1 is in use")))
    assert caught.value.code == "stage: port 1 is in use"
    with pytest.raises(ZeroDivisionError):
        lifecycle.run_main("stage", lambda: fail(ZeroDivisionError()))


WAITING = """
from pipeline import lifecycle
stop = lifecycle.stop_event()
stop.is_set()
print("waiting", flush=True)
stop.wait()
print("flushed", flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signal_sets_the_stop_event(signum: signal.Signals) -> None:
    """SIGTERM and SIGINT both set it, so that the code after the wait still runs."""
    with python(WAITING) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signum)
        output, _ = process.communicate(timeout=DEADLINE_S)
        assert (output, process.returncode) == ("flushed\n", 0)


STARTING = """
import subprocess, sys, time
from pipeline import lifecycle

def body():
    stop = lifecycle.stop_event() if sys.argv[1] == "handles signals" else None
    child = subprocess.Popen(["sleep", "600" if stop else "0"], stdout=subprocess.DEVNULL)
    try:
        print(child.pid, flush=True)
        time.sleep(600)
    finally:
        print("closed", flush=True)

lifecycle.run_main("stage", body)
"""


@pytest.mark.parametrize(
    ("how", "signum", "status"),
    [("handles signals", signal.SIGTERM, 0), ("handles signals", signal.SIGINT, 0), ("not yet", signal.SIGINT, 130)],
)
def test_stage_that_still_starts_ends_at_once(how: str, signum: signal.Signals, status: int) -> None:
    """It may wait for Kafka for a long time; what it has opened is closed, its children end. No traceback."""
    with python(STARTING, how) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.send_signal(signum)
        try:
            assert process.communicate(timeout=DEADLINE_S) == ("closed\n", "")
        finally:
            process.kill()
    assert process.returncode == status
    until(lambda: is_gone(child), "its child has ended")


WATCHERS = """
import threading
from pipeline import lifecycle
lifecycle.follow_parent()
print([thread.name for thread in threading.enumerate()])
"""

PARENT = """
import os, subprocess, sys
children = [
    subprocess.Popen(
        [sys.executable, "-c", sys.argv[1]],
        env={**os.environ, "EMOSTREAM_PARENT_PID": follows},
        stdout=subprocess.PIPE,
        text=True,
    )
    for follows in ("", str(os.getpid()))
]
for child in children:
    child.stdout.readline()
print(*(child.pid for child in children), flush=True)
children[0].wait()
"""


def test_stage_ends_with_its_parent_only_if_configured() -> None:
    """After the parent is killed, the stage with EMOSTREAM_PARENT_PID ends and the one without does not."""
    with python(PARENT, WAITING) as parent:
        assert parent.stdout is not None
        alone, follower = (psutil.Process(int(pid)) for pid in parent.stdout.readline().split())
        parent.kill()
        parent.wait(DEADLINE_S)
        try:
            follower.wait(DEADLINE_S)
            assert alone.is_running()
        finally:
            for child in (alone, follower):
                if child.is_running():
                    child.kill()


def test_stage_started_by_hand_does_not_watch_its_parent() -> None:
    """By default the process has no thread that watches the parent."""
    with python(WATCHERS, EMOSTREAM_PARENT_PID="") as process:
        output, _ = process.communicate(timeout=DEADLINE_S)
    assert output == "['MainThread']\n"


def test_stage_whose_parent_died_before_it_asked_ends() -> None:
    """A supervisor may be killed while its stages still import: they must not take another process for it."""
    with python("") as parent:
        parent.wait(DEADLINE_S)
    with python(WAITING, EMOSTREAM_PARENT_PID=str(parent.pid)) as stage:
        try:
            stage.wait(DEADLINE_S)
        finally:
            stage.kill()


@pytest.mark.parametrize("text", ["$$", "-1", "1.5", "١", "9" * 19])
def test_parent_that_is_no_process_id_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The error names the variable, its value and the remedy."""
    monkeypatch.setenv(lifecycle.PARENT_PID, text)
    with pytest.raises(SettingError, match=rf"EMOSTREAM_PARENT_PID is {re.escape(repr(text))}: give the id of the"):
        lifecycle.follow_parent()


LOGGING = """
import logging, sys
from pipeline import logs
logs.configure("ingest", sys.argv[1])
log = logs.get("pipeline.test")
log.debug("hidden", detail=1)
log.info("flushed", reactions=12, emoji="\\U0001f602")
logging.getLogger("circus").warning("a library's %s", "line")
try:
    1 / 0
except ZeroDivisionError:
    log.error("failed", exc_info=True)
"""


def test_log_lines_are_json_objects() -> None:
    """Every line, also of a library, is JSON on stderr with stage, level, logger and time."""
    with python(LOGGING, "info") as process:
        output, errors = process.communicate(timeout=DEADLINE_S)
    assert output == ""
    lines = [json.loads(line) for line in errors.splitlines()]
    assert [line["event"] for line in lines] == ["flushed", "a library's line", "failed"]
    assert [line["level"] for line in lines] == ["info", "warning", "error"]
    assert (lines[0]["reactions"], lines[0]["emoji"]) == (12, "😂")
    assert {line["stage"] for line in lines} == {"ingest"}
    assert all(line["timestamp"].endswith("Z") and line["logger"] for line in lines)
    assert "ZeroDivisionError" in json.dumps(lines[2])


def test_log_lines_are_readable_on_a_terminal() -> None:
    """No JSON, and no colour."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", LOGGING, "info"], cwd=REPOSITORY, stderr=theirs) as process:
        process.wait(DEADLINE_S)
    os.close(theirs)
    text = os.read(ours, 65536).decode()
    os.close(ours)
    assert "flushed" in text
    assert "reactions=12" in text
    assert text.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert not {"{", "\x1b"} & set(text)


def test_log_lines_of_threads_name_the_stage() -> None:
    """As those of the main thread do."""
    threaded = LOGGING.replace('log.debug("hidden", detail=1)', "import threading") + (
        "thread = threading.Thread(target=log.info, args=('threaded',))\nthread.start()\nthread.join()\n"
    )
    with python(threaded, "info") as process:
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert json.loads(errors.splitlines()[-1])["stage"] == "ingest"


def test_log_level_hides_less_severe_lines() -> None:
    """`log_level` is the least severe level that is logged."""
    with python(LOGGING, "error") as process:
        _, errors = process.communicate(timeout=DEADLINE_S)
    assert [json.loads(line)["event"] for line in errors.splitlines()] == ["failed"]
