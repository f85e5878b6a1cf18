"""Machines as people have them: settings for other programs, a proxy that refuses, a user without a name or home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.harness.http import Quiet, serving
from tests.harness.paths import REPOSITORY

BUSY = (
    "Another run was active",
    "Only ",
    "The generator fell behind",
    "The generator stalled",
    "The receivers were late",
    "The users were busy",
    # A batch ended long after its window was emitted.
    "Triggers are wrong",
)
"""How the reasons begin that make a run INVALID where other tests run beside it, though its machine is `shared`."""
UNKNOWN_USER = 54_321
"""A user id that no password file has."""


def furnish(home: Path) -> dict[str, str]:
    """Make a home with settings of Jupyter, IPython, matplotlib and Locust; return the variables that lead to them.

    Each of them would change or break an experiment that reads it: the kernel `python3`, for instance, is that of
    another environment, which is not there.
    """
    startup = home / ".ipython" / "profile_default" / "startup" / "00.py"
    texts = {
        startup: "raise SystemExit('a startup file was run')\n",
        home / ".jupyter" / "jupyter_config.json": '{"KernelManager": {"transport": "nonsense"}}',
        home / ".locust.conf": "run-time = 5s\nusers = 1\n",
        home / ".config" / "matplotlib" / "matplotlibrc": "text.usetex: True\naxes.facecolor: black\n",
    }
    argv = ["/opt/conda/bin/python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = json.dumps({"argv": argv, "display_name": "Another", "language": "python"})
    for data, name in (
        (home / ".local" / "share" / "jupyter", "python3"),
        (home / "data", "python3"),
        (home / "data", "ir"),
    ):
        texts[data / "kernels" / name / "kernel.json"] = spec
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return {
        "HOME": str(home),
        "IPYTHONDIR": str(home / ".ipython"),
        "JUPYTER_PATH": str(home / "data"),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "JUPYTER_DEFAULT_PROVISIONER_NAME": "no-such-provisioner",
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "LOCUST_RUN_TIME": "5s",
        "LOCUST_USERS": "1",
        "MPLBACKEND": "no-such-backend",
        "PYTHONSTARTUP": str(startup),
        "PYTHONOPTIMIZE": "1",
        "PYTHONUTF8": "0",
        "LC_ALL": "POSIX",
    }


@contextmanager
def refusing_proxy() -> Iterator[tuple[dict[str, str], list[str]]]:
    """Run a proxy that answers 403; yield the variables that name it, and the list of the requests that it gets."""
    asked: list[str] = []

    class Refusing(Quiet):
        def refuse(self) -> None:
            asked.append(f"{self.command} {self.path}")
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_CONNECT = refuse

    with serving(Refusing) as url:
        names = ("http_proxy", "https_proxy", "all_proxy")
        yield {spelled: url for name in names for spelled in (name, name.upper())}, asked


def checkout(folder: Path) -> Path:
    """Copy what Git has of this repository, as it is now, to `folder`; return it."""
    listed = subprocess.run(
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if not name.startswith(("reports/", "docs/", "tests/")) and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    return folder


def by_unknown_user(command: list[str]) -> list[str]:
    """Return `command` for a user without a name, who may read every file and write only their own. Root may run it."""
    reading = ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    user = [f"--reuid={UNKNOWN_USER}", f"--regid={UNKNOWN_USER}", "--clear-groups"]
    return ["setpriv", *user, *reading, "--bounding-set=-all,+dac_read_search", *command]


def may_become_unknown() -> bool:
    """Return whether a command of `by_unknown_user` can be run here."""
    if os.getuid() != 0 or not shutil.which("setpriv"):
        return False
    return subprocess.run(by_unknown_user(["true"]), capture_output=True, check=False).returncode == 0
