"""JMeter's home: made of the jars of the committed list, and refused if they are not those."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from experiments.jmeter import home
from experiments.jmeter.load import reason
from pipeline.errors import JarsError
from pipeline.jars import JarSet, cached_jars


def test_list_has_every_module_of_one_version() -> None:
    """The committed list is that of the pinned version, JMeter's dashboard and settings included."""
    listed = {jar.filename for jar in home.jar_set().locked().jars}
    assert {f"ApacheJMeter{name}-{home.VERSION}.jar" for name in ("", "_config", "_core", "_http")} <= listed
    assert {name.split("-")[-1] for name in listed if name.startswith("ApacheJMeter")} == {f"{home.VERSION}.jar"}


def test_another_version_is_refused() -> None:
    """A changed pin needs a new list."""
    other = JarSet("jmeter", home.jar_set().coordinates.replace(home.VERSION, "5.5"), home.LOCK)
    with pytest.raises(JarsError, match=r"jars jmeter are .*:5\.5.*, and .*jars\.json lists .*:5\.6\.3"):
        cached_jars(other)


def test_altered_and_missing_jars_are_refused(tmp_path: Path) -> None:
    """What is downloaded and differs from the list is not used; without a network the error says what to do."""

    def other(jars: object, folder: Path) -> None:
        for jar in home.jar_set().locked().jars:
            (folder / jar.filename).write_bytes(b"not this one")

    with pytest.raises(JarsError, match=r"jars .*ApacheJMeter-.*are not those that .*jmeter/jars\.json lists"):
        cached_jars(home.jar_set(), tmp_path, other)

    def nothing(jars: object, folder: Path) -> None:
        raise OSError("no network")

    with pytest.raises(
        JarsError, match=r"could not be downloaded .*: no network\. This needs a network .* run `make jmeter`"
    ):
        cached_jars(home.jar_set(), tmp_path, nothing)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_home_has_the_layout_that_jmeter_expects(tmp_path: Path) -> None:
    """Its own modules are where it seeks plug-ins, the others beside them, settings and the launcher in bin."""
    cache = tmp_path / "cache"
    cache.mkdir()
    names = [f"ApacheJMeter{name}-{home.VERSION}.jar" for name in ("", "_config", "_core")] + ["groovy-3.0.20.jar"]
    for name in names:
        with zipfile.ZipFile(cache / name, "w") as archive:
            archive.writestr("bin/jmeter.properties" if "_config" in name else "META-INF/MANIFEST.MF", name)
    launcher = home.make_home(tmp_path / "home", [cache / name for name in names])
    made = {path.relative_to(tmp_path / "home").as_posix() for path in (tmp_path / "home").rglob("*")}
    assert launcher == tmp_path / "home" / "bin" / "ApacheJMeter.jar"
    assert not launcher.is_symlink()
    assert made == {
        *("bin", "bin/ApacheJMeter.jar", "bin/jmeter.properties", "lib", "lib/ext", "lib/junit"),
        *(f"lib/ext/ApacheJMeter_core-{home.VERSION}.jar", "lib/groovy-3.0.20.jar"),
    }


@pytest.mark.parametrize(
    ("printed", "why"),
    [
        ("a\nemostream.jmx: users is 'ten'\nTidying up\n", "emostream.jmx: users is 'ten'"),
        ("a\nError: Could not find or load main class\n", "Error: Could not find or load main class"),
        ("", "it printed nothing"),
    ],
)
def test_reason_of_a_failure_is_the_plans_own(tmp_path: Path, printed: str, why: str) -> None:
    """JMeter prints more than that."""
    log = tmp_path / "jmeter.out"
    log.write_text(printed)
    assert reason(log) == why
