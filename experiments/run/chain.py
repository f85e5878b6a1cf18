"""The chain under measurement: started for the run, or attached to because it is up already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from experiments import environment
from experiments.parameters import PARAMETERS, Parameters
from pipeline import lifecycle
from pipeline.errors import EmoStreamError, SettingError, plain_reason
from pipeline.settings import REACHING, Settings, build, secured, to_env
from pipeline.shell import emostream, path_word

START_TIMEOUT_S = 150.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.1


class Subscriber(msgspec.Struct, frozen=True):
    """A subscriber and the address at which it listens."""

    cluster: str
    subscriber: str
    url: str


class Endpoints(msgspec.Struct, frozen=True):
    """The content of the ready file that `python -m pipeline up` writes."""

    ingest: str
    registry: str
    subscribers: list[Subscriber]
    bootstrap_servers: str
    topic_prefix: str
    run_dir: str
    settings: dict[str, Any]
    pid: int
    ready_s: float
    kafka_security_file: str = ""

    def parameters(self, parameters: Parameters) -> Parameters:
        """Return a run's `parameters` with those that this chain has: a chain that was up keeps its settings."""
        return replace(parameters, **{name: value for name, value in self.settings.items() if name in PARAMETERS})


def attached(ready_file: Path) -> Endpoints:
    """Return the endpoints of a chain that is up, from its `--ready-file`.

    Raises SettingError if the file is missing or unreadable, or if the chain that wrote it has ended.
    """
    try:
        endpoints = msgspec.json.decode(ready_file.read_bytes(), type=Endpoints)
        # Another user's process may not be signalled, and runs.
        with suppress(PermissionError):
            os.kill(endpoints.pid, 0)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingError(
            f"attach is {str(ready_file)!r}, which names no running chain ({plain_reason(error)}): start one with "
            f"`{emostream('up', '--ready-file', path_word(ready_file))}`, or leave attach empty"
        ) from error
    return endpoints


@contextmanager
def started(parameters: Mapping[str, object], run_dir: Path) -> Iterator[Endpoints]:
    """Start a chain with these settings on free ports, yield its endpoints, stop it afterwards.

    Raises EmoStreamError with the chain's last message if it does not become ready.
    """
    settings = build({"ingest_port": 0, "registry_port": 0, **parameters, "run_dir": str(run_dir)})
    run_dir.mkdir(parents=True, exist_ok=True)
    ready_file = run_dir / "ready.json"
    # One that was killed has left it.
    ready_file.unlink(missing_ok=True)
    log_path = run_dir / "up.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "pipeline", "up", "--ready-file", str(ready_file)],
            env={**clean_environment(), **to_env(settings), **lifecycle.as_parent()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # The experiment handles a Ctrl-C at the terminal, and stops the chain when it is ready to.
            start_new_session=True,
        )
    try:
        yield _await_ready(process, ready_file, log_path)
    finally:
        process.send_signal(signal.SIGTERM)
        ended(process, STOP_TIMEOUT_S)


def ended(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Wait for a process that was asked to end; kill it when it does not."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def last_line(log_path: Path) -> str:
    """Return the last line of a process's log."""
    lines = log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "its log is empty"


def settings_of(endpoints: Endpoints) -> Settings:
    """Return the settings that reach a chain's Kafka and topics; its security is in use then.

    Raises SettingError if the chain's file cannot be used here.
    """
    return secured(build({name: getattr(endpoints, name) for name in REACHING}))


def clean_environment() -> dict[str, str]:
    """Return the instrument's environment without the chain's settings: only a run's parameters decide."""
    own = environment.own(os.environ)
    return {name: own[name] for name in own if not name.startswith("EMOSTREAM_") or name == "EMOSTREAM_CACHE_DIR"}


def _await_ready(process: subprocess.Popen[bytes], ready_file: Path, log_path: Path) -> Endpoints:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not ready_file.exists():
        if process.poll() is not None:
            raise EmoStreamError(f"the chain did not start: {last_line(log_path)}")
        if time.monotonic() > deadline_s:
            raise EmoStreamError(f"the chain was not ready within {START_TIMEOUT_S:g} s: see {log_path}")
        time.sleep(POLL_S)
    return msgspec.convert(json.loads(ready_file.read_text(encoding="utf-8")), Endpoints)
