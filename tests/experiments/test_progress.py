"""Progress: lines where standard error is no terminal, a bar where it is."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
import termios
import time
from types import SimpleNamespace

import pytest

from experiments import progress as module
from experiments.progress import Progress
from tests.harness.paths import REPOSITORY
from tests.harness.waiting import until

LINE = re.compile(r"\d\d:\d\d:\d\d (.*)")


def written(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines on standard error, without the time of day that each begins with."""
    lines = [LINE.fullmatch(line) for line in capsys.readouterr().err.splitlines()]
    assert all(lines)
    return [line[1] for line in lines if line]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass."""
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1.0, strftime=time.strftime))


@pytest.mark.usefixtures("at_once")
def test_each_activity_is_a_line_with_what_is_done_and_left(capsys: pytest.CaptureFixture[str]) -> None:
    """A step of the same activity is no line of its own, and nothing returns to the begin of a line."""
    with Progress(200) as progress:
        progress.begin("starting", 50)
        progress.at("measuring", 50)
        for done_s in range(51, 149):
            progress.at("measuring", done_s)
        progress.at("waiting", 150)
        progress.begin("writing", 10)
        progress.note("a line of its own")
        progress.begin("writing", 50)
    assert written(capsys) == [
        "starting: 0 %, 00:00 so far, about 03:20 left",
        "measuring: 25 %, 00:00 so far, about 02:30 left",
        "waiting: 75 %, 00:00 so far, about 00:50 left",
        "writing: 75 %, 00:00 so far, about 00:50 left",
        "a line of its own",
        # More than was planned.
        "writing: 76 %, 00:00 so far, about 00:50 left",
        "done after 00:00",
    ]


def test_line_repeats_while_an_activity_lasts(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every ten seconds; the part done grows with the time, but not beyond what the activity should take."""
    monkeypatch.setattr(module, "LINE_S", 0.05)
    lines: list[str] = []

    def seen() -> list[str]:
        lines.extend(written(capsys))
        return lines

    with Progress(0.4) as progress:
        progress.begin("starting", 0.2)
        until(lambda: len(seen()) > 8, "there are many lines")
    done = [int(re.search(r"(\d+) %", line)[1]) for line in lines]  # type: ignore[index]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 50


@pytest.mark.usefixtures("at_once")
def test_failure_leaves_the_last_word_to_the_error(capsys: pytest.CaptureFixture[str]) -> None:
    """It is not done."""

    def divide(progress: Progress) -> float:
        with progress:
            progress.begin("dividing", 10)
            return 1 / 0

    with pytest.raises(ZeroDivisionError):
        divide(Progress(10))
    assert written(capsys) == ["dividing: 0 %, 00:00 so far, about 00:10 left"]


PROGRAM = """
from experiments.progress import Progress
with Progress(100) as progress:
    progress.begin("starting", 10)
    progress.at("measuring", 50)
    progress.note("a line that stays")
"""


def on_a_terminal() -> str:
    """Return what PROGRAM shows if its standard error is a terminal, 100 characters wide."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 100))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], cwd=REPOSITORY, stderr=theirs) as process:
        process.wait(30)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    return shown


def test_terminal_shows_a_bar() -> None:
    """One line that is written again and again, up to the whole; a note stays above it."""
    shown = on_a_terminal()
    assert "measuring" in shown
    assert "50 %" in shown
    assert "about 00:50 left" in shown
    assert "a line that stays\r\n" in shown
    last = shown.rpartition("a line that stays\r\n")[2]
    assert last.count("\n") == 1
    assert "100 %" in last
    assert "█" in last


def test_kernel_shows_what_fits_the_stream_that_its_errors_go_to() -> None:
    """A kernel's own standard error is never a terminal."""
    line = [sys.executable, "-c", PROGRAM]

    def shown() -> str:
        return subprocess.run(line, cwd=REPOSITORY, capture_output=True, check=True).stderr.decode()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            """Say that it is one."""
            return True

    with module.shown_by(Terminal()):
        assert "\r" in shown()
        with module.shown_by(io.StringIO()):
            assert "\r" not in shown()
        assert "\r" in shown()
    assert "\r" not in shown()
