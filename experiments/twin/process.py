"""A twin in a process of its own, from its ready file to the truth that it leaves."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from experiments import files
from experiments.run.chain import POLL_S, START_TIMEOUT_S, STOP_TIMEOUT_S, clean_environment, ended, last_line
from experiments.twin.settings import Twin, to_yaml
from pipeline import lifecycle
from pipeline.errors import EmoStreamError

TRUTH = "truth"


@contextmanager
def running(twin: Twin, folder: Path, *, bootstrap_servers: str = "", topic_prefix: str = "") -> Iterator[Path]:
    """Start a twin and yield its ready file; afterwards stop it, and its truth is in `folder`/truth.

    Without `bootstrap_servers` it starts a Kafka of its own. Raises EmoStreamError with its last message if it does not
    become ready, or if it failed later.
    """
    folder.mkdir(parents=True, exist_ok=True)
    ready_file, log_path = folder / "ready.json", folder / "twin.log"
    ready_file.unlink(missing_ok=True)
    files.write_text(folder / "twin.yaml", to_yaml(twin))
    paths = [str(folder / "twin.yaml"), "--ready-file", str(ready_file), "--run-dir", str(folder)]
    kafka = ["--bootstrap-servers", bootstrap_servers, "--topic-prefix", topic_prefix]
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "experiments.twin", *paths, *kafka],
            env={**clean_environment(), **lifecycle.as_parent()},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not ready_file.exists():
            if process.poll() is not None:
                raise EmoStreamError(f"the twin did not start: {last_line(log_path)}")
            if time.monotonic() > deadline_s:
                raise EmoStreamError(f"the twin was not ready within {START_TIMEOUT_S:g} s: see {log_path}")
            time.sleep(POLL_S)
        yield ready_file
    finally:
        process.send_signal(signal.SIGTERM)
        ended(process, STOP_TIMEOUT_S)
    if process.returncode != 0:
        raise EmoStreamError(f"the twin ended with status {process.returncode}: {last_line(log_path)}")
