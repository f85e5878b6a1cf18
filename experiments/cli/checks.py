"""What `emostream doctor` checks of a machine: each check returns what it found, and what to do if that is wrong.

A check makes nothing that stays, and starts nothing but `java -version`.
"""

from __future__ import annotations

import importlib.metadata
import os
import resource
import shutil
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from packaging.requirements import Requirement

from pipeline import java, lifecycle, settings
from pipeline.broker.embedded import DEFAULT_HEAP_MB
from pipeline.errors import EmoStreamError, JarsError, JavaError, PortInUseError, SettingError
from pipeline.hosts import local_address
from pipeline.jars import default_cache_dir, kafka_jar_set, spark_jar_set
from pipeline.settings import MB_PER_UNIT, Settings
from pipeline.supervisor import lock_file
from pipeline.supervisor.plan import fixed_ports
from pipeline.supervisor.preconditions import LEAST_FREE_MB, MB, check_ports

PYTHON_MIN = (3, 11)
OTHER_PROCESSES_MB = 768
"""What a chain of the default size needs beside the heaps of Spark and Kafka: nine processes of Python."""
JARS_MB = 300
"""The jars of Kafka and Spark, and as much again while they are resolved."""
DESCRIPTORS_MIN = 1024
LOOPBACK = ("127.0.0.1", "localhost")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class Check:
    """One check: its subject, what was found, and the remedy; a remedy means that something is wrong."""

    name: str
    found: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.remedy

    def facts(self) -> dict[str, Any]:
        """Return the check for JSON."""
        return {**asdict(self), "ok": self.ok}


@dataclass(frozen=True)
class Machine:
    """What the checks are about: the environment as the user has it, and the settings that it gives."""

    env: Mapping[str, str]
    values: Settings


def all_checks(env: Mapping[str, str]) -> list[Check]:
    """Return every check of this machine, in the order in which a start would fail."""
    try:
        given = settings.from_env(env)
        values = settings.build(given)
        values = values.replace(host=local_address(values.host))
        check_ports(values)
        checked = Check("settings", f"{', '.join(given)} set by a variable" if given else "none is set by a variable")
    except SettingError as error:
        values = Settings()
        checked = Check("settings", str(error), "correct or unset that variable; the checks below use the defaults")
    machine = Machine(env, values)
    return [checked, *(check(machine) for check in CHECKS)]


def python(machine: Machine) -> Check:
    """Check the version of this interpreter."""
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < PYTHON_MIN:
        return Check("python", found, f"install Python {'.'.join(map(str, PYTHON_MIN))} or later, and run `make env`")
    return Check("python", f"{found} ({sys.executable})")


def packages(machine: Machine) -> Check:
    """Check that every package that EmoStream needs is installed, in a version that it was made for."""
    wrong, number = [], 0
    for text in importlib.metadata.requires("emostream") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        number += 1
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{needed.name} is missing")
            continue
        if not needed.specifier.contains(version, prereleases=True):
            wrong.append(f"{needed.name} is {version}, not {needed.specifier}")
    if wrong:
        return Check("packages", "; ".join(wrong), "run `make env`, or install the wheel again")
    return Check("packages", f"{number} packages, each in a version that fits")


def java_runtime(machine: Machine) -> Check:
    """Check the Java that people and programs find first, and the one that the chain would use."""
    try:
        used = java.find_java(machine.env)
    except JavaError as error:
        return Check("java", str(error).removesuffix(java.REMEDY).strip().replace("\n", "; "), _one_line(java.REMEDY))
    for variable in ("JAVA_HOME", "PATH"):
        path = next((path for origin, path in java.candidates(machine.env, ()) if origin == variable), None)
        if path is None:
            continue
        try:
            java.examine(path)
        except JavaError as error:
            return Check(
                "java",
                f"the first Java of {variable}, {path}, does not fit: {error}. The chain would use {used.path} "
                f"(Java {used.major}); other programs would not",
                f"export JAVA_HOME={used.home} PATH={used.path.parent}:$PATH",
            )
    return Check("java", f"Java {used.major} ({used.path})")


def bash(machine: Machine) -> Check:
    """Check bash, which runs the scripts that start Spark: in PATH, or where the system has it."""
    path = os.pathsep.join(filter(None, (machine.env.get("PATH"), os.defpath)))
    found = shutil.which("bash", path=path)
    if found is None:
        return Check("bash", f"no bash in {path}", "install bash: Spark's start scripts need it")
    return Check("bash", found)


def cache(machine: Machine) -> Check:
    """Check the cache of jars: that it can be written, and holds all jars of the pinned versions."""
    try:
        folder = default_cache_dir(machine.env)
        missing = [each.name for each in (kafka_jar_set(), spark_jar_set()) if each.lacking(folder)]
    except JarsError as error:
        return Check("jars", str(error), "set EMOSTREAM_CACHE_DIR to a folder that you can write; run `make env`")
    lacks = f"the jars of {' and '.join(missing)} are not in it" if missing else "it has all jars"
    if reason := _unwritable(folder):
        return Check(
            "jars",
            f"the cache {folder} cannot be written ({reason}), and {lacks}",
            "set EMOSTREAM_CACHE_DIR to a folder that you can write, and run `python -m pipeline.jars`",
        )
    if missing:
        free_mb = shutil.disk_usage(_existing(folder)).free // MB
        room = "" if free_mb >= JARS_MB else f"; its disk has {free_mb} MB left, and {JARS_MB} MB are needed"
        return Check("jars", f"{lacks}: {folder}{room}", "run `python -m pipeline.jars`, which downloads them once")
    return Check("jars", f"all of Kafka and Spark ({folder})")


def ports(machine: Machine) -> Check:
    """Check that the ports of the settings are free, or are used by the chain in the run directory."""
    own = _own_ports(Path(machine.values.run_dir))
    taken = []
    for name, port in fixed_ports(machine.values).items():
        try:
            lifecycle.claim_port(machine.values.host, port, name)
        except PortInUseError:
            if port not in own:
                taken.append((name.partition(" ")[0], port))
        except EmoStreamError as error:
            return Check("ports", str(error), "choose another port")
    if taken:
        found = "; ".join(f"{name} is {port}, on which {_listener(port)} listens" for name, port in taken)
        options = " ".join(f"--{name.replace('_', '-')} 0" for name, _ in taken)
        return Check("ports", found, f"stop it, or choose free ports: `emostream up {options}`")
    words = ", ".join(f"{name} {port}" for name, port in fixed_ports(machine.values).items())
    return Check("ports", f"{words or 'none is fixed'}: {'used by the chain that runs' if own else 'free'}")


def memory(machine: Machine) -> Check:
    """Check the memory that is available, also within a container's limit."""
    spark = machine.values.spark_memory
    needed_mb = int(spark[:-1]) * MB_PER_UNIT[spark[-1]] + DEFAULT_HEAP_MB + OTHER_PROCESSES_MB
    available_mb = psutil.virtual_memory().available // MB
    with_limit = ""
    try:
        limit_mb = int(CGROUP_LIMIT.read_text(encoding="ascii")) // MB
        if limit_mb < psutil.virtual_memory().total // MB:
            available_mb, with_limit = min(available_mb, limit_mb), f" (the container's limit is {limit_mb} MB)"
    except (OSError, ValueError):
        pass
    found = f"{available_mb:,} MB available{with_limit}"
    if available_mb < needed_mb and not _own_ports(Path(machine.values.run_dir)):
        return Check(
            "memory",
            f"{found}, and a chain needs about {needed_mb:,} MB",
            "end other programs, or give less to Spark, at least 512m: `emostream up --spark-memory 512m`",
        )
    return Check("memory", found)


def disk(machine: Machine) -> Check:
    """Check the run directory: that it can be written, and the free space of its disk."""
    folder = Path(machine.values.run_dir).absolute()
    if reason := _unwritable(folder):
        return Check(
            "disk",
            f"run_dir {folder} cannot be written ({reason})",
            "give a folder that you can write: `emostream up --run-dir DIR`, or EMOSTREAM_RUN_DIR",
        )
    free_mb = shutil.disk_usage(_existing(folder)).free // MB
    if free_mb < LEAST_FREE_MB:
        return Check(
            "disk",
            f"run_dir {folder}: its disk has {free_mb} MB left, and {LEAST_FREE_MB} MB are needed",
            "free some, or give another folder: `emostream up --run-dir DIR`",
        )
    return Check("disk", f"{free_mb:,} MB free for run_dir ({folder})")


def descriptors(machine: Machine) -> Check:
    """Check how many files and sockets a process may open; a subscriber raises its own limit to the hard one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = "no limit" if hard == resource.RLIM_INFINITY else f"{hard:,} per process"
    if hard != resource.RLIM_INFINITY and hard < DESCRIPTORS_MIN:
        return Check(
            "descriptors",
            f"{found}, of which each client of a subscriber takes one",
            f"raise the hard limit to {DESCRIPTORS_MIN} or more: /etc/security/limits.conf, or `ulimit -Hn` as root",
        )
    return Check("descriptors", found)


def proxies(machine: Machine) -> Check:
    """Check that programs reach this machine's own addresses without a proxy. The chain itself always does."""
    named = {name.lower(): value for name, value in machine.env.items() if value}
    used = [f"{scheme}_proxy" for scheme in ("http", "all") if f"{scheme}_proxy" in named]
    asked = [host for host in LOOPBACK if not _bypassed(host, named.get("no_proxy", ""))]
    if used and asked:
        names = [name for name in machine.env if name.lower() in used and machine.env[name]]
        # A proxy's URL may have a password: only the variables are named.
        return Check(
            "proxies",
            f"{', '.join(sorted(names))} sends curl, JMeter and others to a proxy, also for {' and '.join(asked)}",
            'export no_proxy="${no_proxy:+$no_proxy,}127.0.0.1,localhost" NO_PROXY="$no_proxy"',
        )
    return Check("proxies", "none for this machine's own addresses")


def locale(machine: Machine) -> Check:
    """Check that the terminal's encoding has emoji; without a locale Python uses UTF-8."""
    name = next((value for key in ("LC_ALL", "LC_CTYPE", "LANG") if (value := machine.env.get(key))), "")
    encoding = name.partition(".")[2].partition("@")[0]
    if encoding and encoding.lower().replace("-", "") != "utf8":
        return Check("locale", f"{name}, which has no emoji; the chain itself uses UTF-8", "export LC_ALL=C.UTF-8")
    return Check("locale", name or "not set: UTF-8 is used")


CHECKS: tuple[Callable[[Machine], Check], ...] = (
    *(python, packages, java_runtime, bash, cache, ports, memory, disk, descriptors, proxies, locale),
)


def _one_line(remedy: str) -> str:
    """Return Java's remedy, which is a table, as one line."""
    lines = [" ".join(line.split()) for line in remedy.splitlines()]
    return " ".join([lines[0], "; ".join(lines[1:])])


def _existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that is there."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _unwritable(folder: Path) -> str:
    """Return why nothing can be written in `folder`, which may be missing; empty if something can.

    It is tried: `os.access` says yes to root on a read-only disk.
    """
    try:
        existing = _existing(folder)
        if not existing.is_dir():
            return f"{existing} is not a folder"
        with tempfile.TemporaryFile(dir=existing):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def _own_ports(run_dir: Path) -> set[int]:
    """Return the ports of the chain that runs in `run_dir`; none if no chain runs there."""
    try:
        addresses = lock_file.find(run_dir)
    except (SettingError, ValueError, OSError):
        return set()
    urls = [addresses["ingest"], addresses["registry"], addresses["local"]["registry"]]
    urls += addresses["metrics"].values()
    urls += [each["url"] for each in addresses["subscribers"]]
    return {urlsplit(url).port or 0 for url in urls}


def _listener(port: int) -> str:
    """Return the process that listens on a port, if this user may know it."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.pid and connection.laddr[1:2] == (port,):
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
    except psutil.Error:
        pass
    return "another process"


def _bypassed(host: str, no_proxy: str) -> bool:
    """Return whether a program that reads no_proxy asks `host` directly."""
    return bool(urllib.request.proxy_bypass_environment(host, {"no": no_proxy}))  # type: ignore[attr-defined]
