"""What JMeter's plan says without a chain, carried out by the real JMeter."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from experiments.jmeter import run
from experiments.jmeter.home import make_home

# The first one on a machine downloads JMeter, while every other process of the tests starts.
pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["-Jusers=ten"], "emostream.jmx: users is 'ten': give a whole number from 0"),
        (["-Jusers=1"], "emostream.jmx: not true: ingest is up (http://127.0.0.1:"),
    ],
)
def test_plan_alone_says_what_is_wrong(tmp_path: Path, words: list[str], why: str) -> None:
    """For those who start it with a JMeter of their own: one line, and an exit status that is not 0."""
    jmeter = run.found()
    launcher = make_home(tmp_path / "home", jmeter.jars)
    with socket.socket() as silent:
        # Nobody else can listen there.
        silent.bind(("127.0.0.1", 0))
        command = jmeter.command(launcher, "-n", "-j", "jmeter.log", f"-Jingest_port={silent.getsockname()[1]}", *words)
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 1
    assert why in ended.stderr
    assert "Tidying up" not in ended.stdout
