"""Finding a Java: every runtime here is a small script, apart from the last test's."""

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
    """Write home/bin/java, which answers as that version does, and return it."""
    path = home / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"""#!/bin/sh
case "$*" in
  --list-modules) echo '{modules}' ;;
  *) printf '%s\\n' '    java.home = {home}/runtime' 'openjdk version "{version}" 2025-04-15' >&2 ;;
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
def test_a_version_gives_its_major(text: str, major: int) -> None:
    """Old and new numbering, early access builds and the whole output of `java -version` are understood."""
    assert java.parse_major(text) == major


@given(st.integers(9, 999), st.lists(st.integers(0, 999), max_size=3))
def test_since_nine_the_first_number_is_the_major(major: int, rest: list[int]) -> None:
    """Whatever follows the first number of a version does not change its major."""
    assert java.parse_major(".".join(map(str, [major, *rest]))) == major


@pytest.mark.parametrize("text", ["", "no java here", "ea-22"])
def test_text_without_a_version_is_refused(text: str) -> None:
    """Where no version can be read the text is shown instead of a guess."""
    with pytest.raises(ValueError, match="no Java version"):
        java.parse_major(text)


def test_java_home_comes_before_path(tmp_path: Path) -> None:
    """JAVA_HOME wins over a Java on PATH, and the home is the one that the runtime itself names."""
    chosen = fake_java(tmp_path / "home", "21.0.1")
    other = fake_java(tmp_path / "path")
    found = java.find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(other.parent)}, ())
    assert found == java.Java(chosen, 21, tmp_path / "home" / "runtime")


def test_an_old_java_home_gives_way_to_path(tmp_path: Path) -> None:
    """A JAVA_HOME that is too old does not hide a Java that serves."""
    fake_java(tmp_path / "home", "11.0.2")
    serving = fake_java(tmp_path / "path")
    found = java.find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(serving.parent)}, ())
    assert found.path == serving


def test_an_old_java_on_path_does_not_hide_a_later_one(tmp_path: Path) -> None:
    """Every folder on PATH is looked at, and conda's after them, not only the first with a java in it."""
    old = fake_java(tmp_path / "old", "1.8.0_392")
    conda = fake_java(tmp_path / "conda")
    found = java.find_java({"PATH": f"{tmp_path / 'none'}:{old.parent}", "CONDA_PREFIX": str(tmp_path / "conda")}, ())
    assert found.path == conda


def test_usual_places_come_last(tmp_path: Path) -> None:
    """Without any variable a Java in one of the usual places is found."""
    serving = fake_java(tmp_path / "jvm" / "java-17")
    assert java.find_java({}, (str(tmp_path / "jvm" / "*" / "bin" / "java"),)).path == serving


def test_the_message_names_what_was_found_and_every_remedy(tmp_path: Path) -> None:
    """Each Java that was refused is listed with its place and reason, then the ways to install one."""
    old = fake_java(tmp_path / "old", "11.0.2")
    slim = fake_java(tmp_path / "slim", modules="java.base@17")
    env = {"JAVA_HOME": str(tmp_path / "missing"), "PATH": f"{old.parent}:{slim.parent}"}
    with pytest.raises(JavaError) as caught:
        java.find_java(env, ())
    message = str(caught.value)
    assert f"{tmp_path / 'missing'}/bin/java (from JAVA_HOME): no such file" in message
    assert f"{old} (from PATH): Java 11, needed is 17 or later" in message
    assert f"{slim} (from PATH): Java 17 is slimmed down" in message
    assert "jdk.incubator.vector" in message
    assert "apt-get install openjdk-17-jre-headless" in message
    assert "brew install openjdk@17" in message
    assert "conda install -c conda-forge openjdk=17" in message


def test_a_java_that_cannot_run_is_reported(tmp_path: Path) -> None:
    """A stub that exits with an error, as macOS has one, is passed over with its words."""
    stub = tmp_path / "java"
    stub.write_text("#!/bin/sh\necho 'Unable to locate a Java Runtime.' >&2\nexit 1\n")
    stub.chmod(0o755)
    with pytest.raises(JavaError, match="exits with 1: 'Unable to locate a Java"):
        java.find_java({"PATH": str(tmp_path)}, ())


def test_no_java_at_all_is_said(tmp_path: Path) -> None:
    """With nothing to look at, the message says so instead of listing nothing."""
    with pytest.raises(JavaError, match="nothing: JAVA_HOME is not set and no java is on PATH"):
        java.find_java({"PATH": str(tmp_path)}, ())


def test_children_get_the_java_that_was_found(tmp_path: Path) -> None:
    """Spark reads JAVA_HOME: the environment for a child names the runtime found, and keeps the rest."""
    found = java.Java(Path("/jdk/bin/java"), 17, Path("/jdk"))
    env = found.environment({"JAVA_HOME": "/old", "PATH": "/usr/bin", "LANG": "C"})
    assert env == {"JAVA_HOME": "/jdk", "PATH": "/jdk/bin:/usr/bin", "LANG": "C"}


@pytest.mark.parametrize(
    ("release", "user_id", "allowed"),
    [(DEBIAN, 0, True), (MINT, 0, True), (DEBIAN, 1000, False), (FEDORA, 0, False), ("", 0, False)],
)
def test_only_root_on_debian_installs(release: str, user_id: int, allowed: bool) -> None:
    """Software is installed for root on Debian's family, and for nobody else."""
    assert java.can_install(release, user_id) is allowed


def test_apt_tries_the_next_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release without openjdk-17 gets the next full runtime, after one update of the lists."""
    calls = tmp_path / "calls"
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$*" >>{calls}\ncase "$*" in *openjdk-17*) exit 100 ;; esac\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    java.install_with_apt()
    done = [line.split()[0] + " " + line.split()[-1] for line in calls.read_text().splitlines()]
    assert done == ["update -q", "install openjdk-17-jre-headless", "install openjdk-21-jre-headless"]


def test_apt_without_success_gives_the_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When apt-get can install nothing, the error names what was tried and the other ways."""
    apt = tmp_path / "apt-get"
    apt.write_text("#!/bin/sh\nexit 100\n")
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JavaError, match="could install none of openjdk-17-jre-headless"):
        java.install_with_apt()


def test_without_leave_to_install_the_command_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--ensure` for an ordinary user prints the remedies and exits with 1, installing nothing."""

    def nothing_found() -> java.Java:
        raise JavaError(java.REMEDY)

    monkeypatch.setattr(java, "find_java", nothing_found)
    monkeypatch.setattr(java, "can_install", lambda release, user_id: False)
    monkeypatch.setattr(java, "install_with_apt", lambda: pytest.fail("it must not install"))
    assert java.main(["--ensure"]) == 1
    assert "brew install openjdk@17" in capsys.readouterr().err


@pytest.mark.integration
def test_it_runs_before_any_package_is_installed() -> None:
    """The check needs the standard library only: it finds this machine's Java with site-packages left out."""
    command = [sys.executable, "-S", "-m", "pipeline.java", "--ensure"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Java ")
