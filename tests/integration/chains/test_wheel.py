"""The built wheel, installed into an empty environment: a chain starts, takes reactions, and shows them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.harness.paths import REPOSITORY
from tests.harness.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

UV = Path(sys.executable).with_name("uv")
SMALL = {
    "EMOSTREAM_INGEST_PORT": "0",
    "EMOSTREAM_REGISTRY_PORT": "0",
    "EMOSTREAM_INGEST_WORKERS": "1",
    "EMOSTREAM_TRIGGER_S": "2",
    "EMOSTREAM_CLUSTERS": "1",
    "EMOSTREAM_SUBSCRIBERS": "1",
}
READY_S = 150.0
ENDED_S = 60.0
# As the documents have them.
UP = "(nohup emostream up > up.json 2> up.log < /dev/null &)"
STOP = "kill $(grep -o '\"pid\": [0-9]*' up.json | grep -o '[0-9]*')"


def run(command: list[str], folder: Path, timeout_s: float = 500.0, **env: str) -> str:
    """Run a command to its end, in `folder` and with nothing of this environment but `env`; return its output."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        command, cwd=folder, env={**kept, **env}, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def processes(run_dir: Path) -> list[psutil.Process]:
    """The processes of the chain in `run_dir`."""
    found = []
    for process in psutil.process_iter():
        try:
            ours = process.environ().get("EMOSTREAM_RUN_DIR") == str(run_dir)
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder outside the checkout with an environment that holds the wheel alone; no process of it is left."""
    run([str(UV), "build", "--quiet", "--wheel", "--out-dir", str(tmp_path / "dist"), str(REPOSITORY)], tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    run([str(UV), "venv", "--quiet", "--python", str(base), ".venv"], tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    lock = REPOSITORY / "requirements.txt"
    run([str(UV), "pip", "install", "--quiet", "--python", str(python), "-c", str(lock), str(wheel)], tmp_path)
    yield tmp_path
    for process in processes(tmp_path / "run"):
        with suppress(psutil.NoSuchProcess):
            process.kill()


def test_wheel_in_an_empty_environment_runs_a_chain(folder: Path) -> None:
    """`emostream up`, `send` and `watch`, typed as the documents say; and what a wheel has beside code is there."""

    def shell(*commands: str) -> str:
        script = "\n".join(["set -e", ". .venv/bin/activate", *commands])
        return run(["bash", "-c", script], folder, EMOSTREAM_RUN_DIR=str(folder / "run"), **SMALL)

    assert shell("emostream --version").startswith("emostream ")
    assert json.loads(shell("emostream doctor --json"))["findings"] == 0
    # The notebook is in the wheel, and its parameters are checked.
    assert "parameter users is 0: give 1 or more" in shell("emostream experiment -p users 0 2>&1 || true")
    assert "belong to an installed package" in shell("emostream lab 2>&1 || true")
    shell(UP)
    printed, said = folder / "up.json", folder / "up.log"

    def ready_or_ended() -> bool:
        # A process that is just being started has no environment yet; one that fails says why.
        ended = said.stat().st_size and not processes(folder / "run")
        return printed.read_text().endswith("\n") or bool(ended)

    until(ready_or_ended, "the chain is ready", READY_S)
    ready = json.loads(printed.read_text() or "null")
    assert ready is not None, said.read_text()
    assert shell("emostream send 😂 🎉") == "accepted: 2\n"
    watched = shell("emostream watch --windows 1 --json & sleep 1; emostream send 🔥 > /dev/null; wait $!")
    assert json.loads(watched)["total"] >= 1
    assert "used by the chain that runs" in shell("emostream doctor")
    shell(STOP)
    until(lambda: not processes(folder / "run"), "every process of the chain has ended", ENDED_S, 0.2)
    assert sorted(path.name for path in folder.iterdir()) == [".venv", "dist", "run", "up.json", "up.log"]
