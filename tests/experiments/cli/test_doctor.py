"""`emostream doctor`: each thing that can be wrong is one finding with a remedy, and a good machine has none."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.cli import checks, doctor
from experiments.cli.checks import Check, Machine
from pipeline import java
from pipeline.settings import Settings
from pipeline.supervisor.lock_file import LockFile
from tests.harness.processes import module, taken_port
from tests.harness.terminal import in_terminal

# On a Debian machine.
JAVA = 'openjdk version "{0}.0.2"'


def stub_java(folder: Path, major: int) -> Path:
    """A `java` that says it is of this version, and has every module."""
    folder.mkdir(parents=True)
    path = folder / "java"
    path.write_text(f"#!/bin/sh\necho '{JAVA.format(major)}' >&2\necho {java.REQUIRED_MODULE}@{major}\n")
    path.chmod(0o755)
    return path


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    """This process's environment, with a run directory and free ports, so that nothing else on the machine counts."""
    given = {"EMOSTREAM_RUN_DIR": str(tmp_path / "run"), "EMOSTREAM_INGEST_PORT": "0", "EMOSTREAM_REGISTRY_PORT": "0"}
    return {**os.environ, **given, **changes}


def asked(env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    """Run `emostream doctor`."""
    command = module("experiments.cli", "doctor", *options)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=240)


def findings(env: dict[str, str]) -> list[Check]:
    """What is wrong on a machine with this environment."""
    return [check for check in checks.all_checks(env) if not check.ok]


def test_four_things_are_four_findings_with_four_remedies(tmp_path: Path) -> None:
    """Java 11 first in PATH, a proxy, ingest's port taken, and a cache that root cannot write either."""
    stub_java(tmp_path / "bin", 11)
    (tmp_path / "file").write_text("")
    with taken_port() as port:
        env = environment(
            tmp_path,
            PATH=f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
            HTTP_PROXY="http://user:secret@proxy.example:3128",
            EMOSTREAM_INGEST_PORT=str(port),
            EMOSTREAM_CACHE_DIR=str(tmp_path / "file" / "cache"),
        )
        env.pop("JAVA_HOME", None)
        text, answer = asked(env), asked(env, "--json")
    wrong = [
        Check(each["name"], each["found"], each["remedy"])
        for each in json.loads(answer.stdout)["checks"]
        if not each["ok"]
    ]
    assert [check.name for check in wrong] == ["java", "jars", "ports", "proxies"]
    assert json.loads(answer.stdout)["findings"] == 4
    found = {check.name: check for check in wrong}
    assert f"{tmp_path}/bin/java, does not fit: Java 11, but 17 or later is needed" in found["java"].found
    assert "export JAVA_HOME=" in found["java"].remedy
    assert f"ingest_port is {port}, on which " in found["ports"].found
    assert "emostream up --ingest-port 0" in found["ports"].remedy
    assert found["proxies"].found.startswith("HTTP_PROXY sends curl, JMeter and others to a proxy")
    assert "127.0.0.1,localhost" in found["proxies"].remedy
    assert "cannot be written" in found["jars"].found
    assert "EMOSTREAM_CACHE_DIR" in found["jars"].remedy
    assert text.returncode == answer.returncode == 1
    assert text.stdout.count("FIX ") == text.stdout.count("do: ") == 4
    assert text.stdout.splitlines()[-1] == "4 findings: java, jars, ports, proxies"
    assert "secret" not in text.stdout + answer.stdout


def test_good_machine_has_no_finding(tmp_path: Path) -> None:
    """Status 0, and nothing was made."""
    done = asked(environment(tmp_path))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert done.stdout.splitlines()[-1] == "No problems found."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_are_for_a_terminal(tmp_path: Path, no_color: str, coloured: bool) -> None:
    """And not for one with NO_COLOR."""
    changes = {name: value for name, value in environment(tmp_path).items() if name.startswith("EMOSTREAM_")}
    with in_terminal(module("experiments.cli", "doctor"), NO_COLOR=no_color, **changes) as terminal:
        assert terminal.ended() == 0
    assert ("\x1b[32m" in terminal.shown or "\x1b[1;32m" in terminal.shown) is coloured


def machine(env: dict[str, str] | None = None, **values: Any) -> Machine:
    """A machine with this environment and these settings."""
    return Machine(env or {}, Settings(**values))


@pytest.mark.parametrize(
    ("env", "wrong"),
    [
        ({"http_proxy": "http://p:1"}, True),
        ({"ALL_PROXY": "socks5://p:1"}, True),
        ({"http_proxy": "http://p:1", "no_proxy": "127.0.0.1"}, True),
        ({"http_proxy": "http://p:1", "no_proxy": "localhost, 127.0.0.1"}, False),
        ({"http_proxy": "http://p:1", "NO_PROXY": "*"}, False),
        ({"HTTP_PROXY": ""}, False),
        ({"https_proxy": "http://p:1"}, False),
    ],
)
def test_proxy_for_this_machine_is_found(env: dict[str, str], wrong: bool) -> None:
    """One for downloads over https does no harm."""
    assert checks.proxies(machine(env)).ok is not wrong


@pytest.mark.parametrize(
    ("env", "wrong"),
    [
        ({}, False),
        ({"LANG": "C"}, False),
        ({"LANG": "de_DE.utf8"}, False),
        ({"LANG": "de_DE.ISO-8859-1"}, True),
        ({"LANG": "C.UTF-8", "LC_ALL": "de_DE.ISO-8859-15@euro"}, True),
    ],
)
def test_locale_without_emoji_is_found(env: dict[str, str], wrong: bool) -> None:
    """Python and the chain use UTF-8 where no encoding is named."""
    assert checks.locale(machine(env)).ok is not wrong


def test_java_home_that_does_not_fit_is_found(tmp_path: Path) -> None:
    """Though the one in PATH does."""
    stub_java(tmp_path / "old" / "bin", 8)
    good = stub_java(tmp_path / "good" / "bin", 21)
    env = {"JAVA_HOME": str(tmp_path / "old"), "PATH": str(good.parent)}
    check = checks.java_runtime(machine(env))
    assert "the first Java of JAVA_HOME" in check.found
    assert f"would use {good} (Java 21)" in check.found
    assert checks.java_runtime(machine({"PATH": str(good.parent)})).ok


def test_machine_without_java_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The remedy is how to install one, in one line."""
    monkeypatch.setattr(java, "find_java", lambda env: (_ for _ in ()).throw(checks.JavaError(f"none\n{java.REMEDY}")))
    check = checks.java_runtime(machine())
    assert check.found == "none"
    assert "apt-get install openjdk-17-jre-headless; macOS brew" in check.remedy
    assert "\n" not in check.remedy


def test_bash_that_is_missing_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark cannot start without it. It is looked for where the system has its commands, too."""
    assert checks.bash(machine({"PATH": str(tmp_path)})).ok
    monkeypatch.setattr(checks.os, "defpath", str(tmp_path))
    assert "install bash" in checks.bash(machine({"PATH": str(tmp_path)})).remedy


def test_jars_that_are_missing_are_found(tmp_path: Path) -> None:
    """The cache can be written, so the remedy is to fill it."""
    check = checks.cache(machine({"EMOSTREAM_CACHE_DIR": str(tmp_path / "cache")}))
    assert "are not in it" in check.found
    assert "python -m pipeline.jars" in check.remedy
    assert list(tmp_path.iterdir()) == []


def test_cache_without_a_home_is_found() -> None:
    """A container's user sets EMOSTREAM_CACHE_DIR."""
    check = checks.cache(machine({"EMOSTREAM_CACHE_DIR": "~nobody-of-that-name/cache"}))
    assert "has no home directory" in check.found
    assert not check.ok


def test_setting_that_cannot_be_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistyped variable; and ports that are the same."""
    monkeypatch.setattr(checks, "CHECKS", ())
    wrong = findings(environment(tmp_path, EMOSTREAM_TRIGER_S="2"))
    assert "EMOSTREAM_TRIGER_S is not a setting" in wrong[0].found
    wrong = findings(environment(tmp_path, EMOSTREAM_INGEST_PORT="8123", EMOSTREAM_REGISTRY_PORT="8123"))
    assert "ingest_port" in wrong[0].found
    assert "registry_port is 8123" in wrong[0].found


def test_ports_of_the_chain_that_runs_are_no_finding(tmp_path: Path) -> None:
    """It is found by its run directory."""
    with taken_port() as port, taken_port() as other, LockFile(tmp_path) as lock:
        url = f"http://127.0.0.1:{port}"
        published = {"ingest": url, "registry": url, "local": {"registry": url}, "subscribers": [], "metrics": {}}
        lock.publish(json.dumps(published))
        values = {"run_dir": str(tmp_path), "registry_port": 0}
        assert checks.ports(machine(ingest_port=port, **values)).ok
        assert not checks.ports(machine(ingest_port=other, **values)).ok


def test_run_directory_that_cannot_be_written_is_found(tmp_path: Path) -> None:
    """By trying: below a file, not even root can."""
    (tmp_path / "file").write_text("")
    check = checks.disk(machine(run_dir=str(tmp_path / "file" / "run")))
    assert "is not a folder" in check.found
    assert "--run-dir" in check.remedy


def test_too_little_of_anything_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Memory, a container's limit of it, disk, open files, and an old Python."""
    values = machine(run_dir=str(tmp_path))
    few = SimpleNamespace(available=1000 * checks.MB, total=64_000 * checks.MB)
    monkeypatch.setattr(checks, "CGROUP_LIMIT", tmp_path / "max")
    monkeypatch.setattr(checks.psutil, "virtual_memory", lambda: few)
    assert "1,000 MB available, and a chain needs about" in checks.memory(values).found
    few.available = few.total
    assert checks.memory(values).ok
    (tmp_path / "max").write_text(f"{512 * checks.MB}\n")
    assert "the container's limit is 512 MB" in checks.memory(values).found
    (tmp_path / "max").write_text("max\n")
    assert checks.memory(values).ok
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * checks.MB))
    assert "5 MB left, and 100 MB are needed" in checks.disk(values).found
    monkeypatch.setattr(checks.resource, "getrlimit", lambda number: (256, 256))
    assert not checks.descriptors(values).ok
    monkeypatch.setattr(checks.resource, "getrlimit", lambda number: (256, checks.resource.RLIM_INFINITY))
    assert checks.descriptors(values).ok
    monkeypatch.setattr(checks.sys, "version_info", (3, 10, 1))
    assert "install Python 3.11 or later" in checks.python(values).remedy


def test_package_that_does_not_fit_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing, or of a version outside the range; an extra's package is not needed."""
    needed = ["psutil>=9000", "no-such-package-here", 'apache-airflow==1 ; extra == "airflow"', "flask"]
    monkeypatch.setattr(checks.importlib.metadata, "requires", lambda name: needed)
    check = checks.packages(machine())
    assert "no-such-package-here is missing" in check.found
    assert "not >=9000" in check.found
    assert "airflow" not in check.found
    assert "flask" not in check.found


def test_status_is_the_documented_one() -> None:
    """docs/command-line.md says 1."""
    assert doctor.FINDINGS == 1
