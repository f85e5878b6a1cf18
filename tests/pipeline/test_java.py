"""Finding a Java: the runtimes are small scripts, except in the last test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import java
from pipeline.errors import JavaError

REPOSITORY = Path(__file__).resolve().parents[2]
DEBIAN = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n'
MINT = 'ID=linuxmint\nID_LIKE="ubuntu debian"\n'
FEDORA = "ID=fedora\n"


def fake_java(home: Path, version: str = "17.0.15", modules: str = "java.base@17\njdk.incubator.vector@17") -> Path:
    """Write home/bin/java, which answers like that version, and return its path."""
    path = home / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"""#!/bin/sh
case "$*" in
  --list-modules) echo '{modules}' ;;
  *) printf '%s\\n' '    java.home = {home}/runtime' \\
       '    java.runtime.version = {version}+9' 'openjdk version "{version}" 2025-04-15' >&2 ;;
esac
"""
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "major"),
    [
        ("1.8.0_392", 8),
        ("11.0.2", 11),
        ("17.0.15", 17),
        ("21", 21),
        ("22-ea", 22),
        ('openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime', 17),
        ('java version "1.8.0_392"', 8),
        ('    java.version.date = 2025-04-15\nopenjdk version "25" 2025-09-16', 25),
    ],
)
def test_major_version_is_parsed(text: str, major: int) -> None:
    """Old and new numbering, early access builds, and the whole output of `java -version`."""
    assert java.parse_major(text) == major


@given(st.integers(9, 999), st.lists(st.integers(0, 999), max_size=3))
def test_since_java_9_the_first_number_is_the_major(major: int, rest: list[int]) -> None:
    """The other numbers do not change the major version."""
    assert java.parse_major(".".join(map(str, [major, *rest]))) == major


@pytest.mark.parametrize("text", ["", "no java here", "ea-22"])
def test_text_without_a_version_raises_value_error(text: str) -> None:
    """The error shows the text."""
    with pytest.raises(ValueError, match="no Java version"):
        java.parse_major(text)


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    """The home directory is the one that the runtime itself reports."""
    chosen = fake_java(tmp_path / "home", "21.0.1")
    other = fake_java(tmp_path / "path")
    chosen_java = java.find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(other.parent)}, ())
    assert chosen_java == java.Java(chosen, 21, tmp_path / "home" / "runtime", "21.0.1+9")


def test_java_home_that_is_too_old_is_skipped(tmp_path: Path) -> None:
    """A suitable Java on PATH is found."""
    fake_java(tmp_path / "home", "11.0.2")
    suitable = fake_java(tmp_path / "path")
    chosen_java = java.find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(suitable.parent)}, ())
    assert chosen_java.path == suitable


def test_every_folder_on_path_and_conda_are_searched(tmp_path: Path) -> None:
    """Not only the first folder that has a java."""
    old = fake_java(tmp_path / "old", "1.8.0_392")
    conda = fake_java(tmp_path / "conda")
    chosen_java = java.find_java(
        {"PATH": f"{tmp_path / 'none'}:{old.parent}", "CONDA_PREFIX": str(tmp_path / "conda")}, ()
    )
    assert chosen_java.path == conda


def test_usual_locations_are_searched_last(tmp_path: Path) -> None:
    """Without any variable, a Java in a usual location is found."""
    suitable = fake_java(tmp_path / "jvm" / "java-17")
    assert java.find_java({}, (str(tmp_path / "jvm" / "*" / "bin" / "java"),)).path == suitable


def test_error_lists_every_java_with_reason_and_remedies(tmp_path: Path) -> None:
    """Each Java has its path, origin and reason; then come the ways to install one."""
    old = fake_java(tmp_path / "old", "11.0.2")
    slim = fake_java(tmp_path / "slim", modules="java.base@17")
    env = {"JAVA_HOME": str(tmp_path / "missing"), "PATH": f"{old.parent}:{slim.parent}"}
    with pytest.raises(JavaError) as caught:
        java.find_java(env, ())
    message = str(caught.value)
    assert f"{tmp_path / 'missing'}/bin/java (from JAVA_HOME): no such file" in message
    assert f"{old} (from PATH): Java 11, but 17 or later is needed" in message
    assert f"{slim} (from PATH): Java 17 is a reduced runtime" in message
    assert "jdk.incubator.vector" in message
    assert "apt-get install openjdk-17-jre-headless" in message
    assert "brew install openjdk@17" in message
    assert "conda install -c conda-forge openjdk=17" in message


def test_java_that_does_not_run_is_reported(tmp_path: Path) -> None:
    """A stub that exits with an error, like the one of macOS, is quoted."""
    stub = tmp_path / "java"
    stub.write_text("#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2\nexit 1\n")
    stub.chmod(0o755)
    with pytest.raises(JavaError, match="exits with 1: 'Unable to locate a Java"):
        java.find_java({"PATH": str(tmp_path)}, ())


def test_missing_java_is_reported(tmp_path: Path) -> None:
    """The error says so instead of showing an empty list."""
    with pytest.raises(JavaError, match="nothing: JAVA_HOME is not set and PATH has no java"):
        java.find_java({"PATH": str(tmp_path)}, ())


@pytest.mark.parametrize(
    ("release", "user_id", "allowed"),
    [(DEBIAN, 0, True), (MINT, 0, True), (DEBIAN, 1000, False), (FEDORA, 0, False), ("", 0, False)],
)
def test_only_root_on_debian_may_install(release: str, user_id: int, allowed: bool) -> None:
    """Debian-based systems are recognised by /etc/os-release."""
    assert java.can_install(release, user_id) is allowed


def test_install_tries_the_next_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release without openjdk-17 gets the next full runtime, after one update of the package lists."""
    calls = tmp_path / "calls"
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$*" >>{calls}\ncase "$*" in *openjdk-17*) exit 100 ;; esac\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    java.install_with_apt()
    done = [line.split()[0] + " " + line.split()[-1] for line in calls.read_text().splitlines()]
    assert done == ["update -q", "install openjdk-17-jre-headless", "install openjdk-21-jre-headless"]


def test_failed_install_raises_java_error_with_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the packages and the other ways."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JavaError, match="could not install any of openjdk-17-jre-headless"):
        java.install_with_apt()


def test_ensure_without_root_exits_with_1_and_installs_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--ensure` then prints the remedies."""

    def nothing_found() -> java.Java:
        raise JavaError(java.REMEDY)

    monkeypatch.setattr(java, "find_java", nothing_found)
    monkeypatch.setattr(java, "can_install", lambda release, user_id: False)
    monkeypatch.setattr(java, "install_with_apt", lambda: pytest.fail("must not install"))
    assert java.main(["--ensure"]) == 1
    assert "brew install openjdk@17" in capsys.readouterr().err


@pytest.mark.integration
def test_module_runs_without_installed_packages() -> None:
    """It needs only the standard library: it finds this machine's Java without site-packages."""
    command = [sys.executable, "-S", "-m", "pipeline.java", "--ensure"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Java ")
