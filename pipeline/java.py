"""Finding a Java that can run Kafka and Spark, before anything is downloaded.

This module imports only the standard library, so that `python3 -m pipeline.java --ensure` works before any package is
installed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline import environment
from pipeline.errors import EmoStreamError, JavaError

MIN_MAJOR = 17
# Spark 4 starts its JVM with --add-modules for this module; reduced runtimes do not include it.
REQUIRED_MODULE = "jdk.incubator.vector"
DEBIAN_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless", "default-jre-headless")
PROBE_TIMEOUT_S = 30
REMEDY = """Install a full Java runtime, 17 or later:
  Debian, Ubuntu   apt-get install openjdk-17-jre-headless
  macOS            brew install openjdk@17
  conda            conda install -c conda-forge openjdk=17
or set JAVA_HOME to an installed one."""
USUAL_LOCATIONS = (
    "/usr/lib/jvm/*/bin/java",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home/bin/java",
    "/opt/homebrew/opt/openjdk*/bin/java",
    "/usr/local/opt/openjdk*/bin/java",
)


@dataclass(frozen=True, slots=True)
class Java:
    """A suitable Java runtime: the executable, its major version (17, 21, …), its home directory and whole version."""

    path: Path
    major: int
    home: Path
    version: str = ""


def parse_major(text: str) -> int:
    """Return the major version in `1.8.0_392`, `17.0.15`, `22-ea` or the output of `java -version`.

    Raises ValueError if `text` has no version.
    """
    quoted = re.search(r'version "([^"]+)"', text)
    version = (quoted.group(1) if quoted else text).strip()
    match = re.match(r"(?:1\.)?(\d+)(?![\d])", version)
    if match is None:
        raise ValueError(f"no Java version in {text[:80]!r}")
    return int(match.group(1))


def candidates(env: Mapping[str, str], locations: Sequence[str] = USUAL_LOCATIONS) -> Iterator[tuple[str, Path]]:
    """Yield (origin, executable) in order of preference: JAVA_HOME, PATH, conda, usual locations."""
    if env.get("JAVA_HOME"):
        yield "JAVA_HOME", Path(env["JAVA_HOME"]) / "bin" / "java"
    for folder in env.get("PATH", "").split(os.pathsep):
        if folder and (executable := shutil.which("java", path=folder)):
            yield "PATH", Path(executable)
    if env.get("CONDA_PREFIX"):
        prefix = Path(env["CONDA_PREFIX"])
        yield from (("CONDA_PREFIX", p) for p in (prefix / "lib/jvm/bin/java", prefix / "bin/java") if p.exists())
    for pattern in locations:
        base = Path(pattern)
        paths = Path(base.anchor).glob(str(base.relative_to(base.anchor)))
        yield from (("usual locations", path) for path in sorted(paths))


def examine(path: Path) -> Java:
    """Run the executable `path` and return its Java. Raises JavaError with the reason if it is not suitable."""
    if not path.exists():
        raise JavaError("no such file")
    major, home, version = _about(path)
    if major < MIN_MAJOR:
        raise JavaError(f"Java {major}, but {MIN_MAJOR} or later is needed")
    if not re.search(rf"^{re.escape(REQUIRED_MODULE)}(@|$)", _run(path, "--list-modules"), re.MULTILINE):
        raise JavaError(f"Java {major} is a reduced runtime: Spark needs the module {REQUIRED_MODULE}")
    return Java(path, major, home, version)


def find_java(env: Mapping[str, str] | None = None, locations: Sequence[str] = USUAL_LOCATIONS) -> Java:
    """Return the first suitable Java; `env` defaults to this process's environment.

    Raises JavaError with every Java examined, why it is not suitable, and how to install one.
    """
    refused: dict[Path, str] = {}
    for origin, path in candidates(os.environ if env is None else env, locations):
        if path in refused:
            continue
        try:
            return examine(path)
        except JavaError as error:
            refused[path] = f"  {path} (from {origin}): {error}"
    seen = "\n".join(refused.values()) or "  nothing: JAVA_HOME is not set and PATH has no java"
    raise JavaError(f"Kafka and Spark need Java {MIN_MAJOR} or later. Found:\n{seen}\n{REMEDY}")


def can_install(os_release: str, user_id: int) -> bool:
    """Return whether apt-get may be used: `os_release` (/etc/os-release) is Debian-based and the user is root."""
    fields = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    family = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").split()
    return user_id == 0 and bool({"debian", "ubuntu"} & set(family))


def install_with_apt() -> None:
    """Install the first of `DEBIAN_PACKAGES` that this release has. Raises JavaError if it has none."""
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    # A new machine has no package lists yet. Without a network, the installation below reports the error.
    subprocess.run(["apt-get", "update", "-q"], env=env, check=False, stdout=sys.stderr)
    for package in DEBIAN_PACKAGES:
        command = ["apt-get", "install", "-q", "-y", "--no-install-recommends", package]
        if subprocess.run(command, env=env, check=False, stdout=sys.stderr).returncode == 0:
            return
    raise JavaError(f"apt-get could not install any of {', '.join(DEBIAN_PACKAGES)}; its output is above.\n{REMEDY}")


def ensure_java() -> Java:
    """Return a suitable Java, installing one if this is Debian and the user is root. Raises JavaError otherwise."""
    try:
        return find_java()
    except JavaError as error:
        release = Path("/etc/os-release")
        text = release.read_text(encoding="utf-8") if release.exists() else ""
        if not can_install(text, os.getuid()):
            raise
        sys.stderr.write(f"{error}\nThis system is Debian-based and you are root: installing Java now.\n")
        install_with_apt()
        return find_java()


def _about(path: Path) -> tuple[int, Path, str]:
    """Return the major version, the home directory, and the version with that of the build, as the runtime says it."""
    text = _run(path, "-XshowSettings:properties", "-version")
    try:
        major = parse_major(text)
    except ValueError:
        raise JavaError(f"it does not print its version: {text.strip()[:120]!r}") from None
    home = re.search(r"^\s*java\.home = (.+)$", text, re.MULTILINE)
    version = re.search(r"^\s*java\.runtime\.version = (.+)$", text, re.MULTILINE)
    return (
        major,
        Path(home.group(1).strip()) if home else path.resolve().parent.parent,
        version.group(1).strip() if version else str(major),
    )


def _run(path: Path, *arguments: str) -> str:
    command = [str(path), *arguments]
    try:
        done = subprocess.run(
            command,
            env=environment.own(os.environ),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise JavaError(f"it cannot be run: {error}") from error
    if done.returncode != 0:
        raise JavaError(f"it exits with {done.returncode}: {(done.stderr or done.stdout).strip()[:120]!r}")
    return done.stdout + done.stderr


def main(argv: Sequence[str] | None = None) -> int:
    """Print the suitable Java, or why there is none; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.java", description="Find a Java for Kafka and Spark.")
    parser.add_argument(
        "--ensure",
        action="store_true",
        help="if no Java is suitable, install one with apt-get (Debian-based systems, as root)",
    )
    options = parser.parse_args(argv)
    try:
        java = ensure_java() if options.ensure else find_java()
    except EmoStreamError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"Java {java.major}: {java.path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
