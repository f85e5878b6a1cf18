"""JMeter itself: its pinned jars in the user's cache, and a JMETER_HOME made of them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

from pipeline.jars import JarSet, lock_jars

VERSION = "5.6.3"
LOCK = Path(__file__).with_name("jars.json")
# The modules that the plan is made of; the others follow from them.
_MODULES = ("", "_config", "_core", "_components", "_functions", "_http", "_java")
_LAUNCHER = f"ApacheJMeter-{VERSION}.jar"
_CONFIG = f"ApacheJMeter_config-{VERSION}.jar"


def jar_set() -> JarSet:
    """Return JMeter's jars."""
    coordinates = "+".join(f"org.apache.jmeter:ApacheJMeter{module}:{VERSION}" for module in _MODULES)
    return JarSet("jmeter", coordinates, LOCK, command="make jmeter")


def make_home(folder: Path, jars: Sequence[Path]) -> Path:
    """Make a JMETER_HOME of `jars` in the new `folder`; return the jar that starts JMeter.

    The jars are linked, which takes neither time nor space. Settings and templates are those of JMeter's own jar.
    """
    for name in ("bin", "lib/ext", "lib/junit"):
        (folder / name).mkdir(parents=True)
    by_name = {jar.name: jar for jar in jars}
    with zipfile.ZipFile(by_name[_CONFIG]) as archive:
        archive.extractall(folder, [name for name in archive.namelist() if name.startswith("bin/")])
    for name, jar in by_name.items():
        if name not in (_LAUNCHER, _CONFIG):
            # JMeter seeks what plans are made of in this folder only.
            own = name.startswith("ApacheJMeter_")
            (folder / "lib" / ("ext" if own else "") / name).symlink_to(jar)
    # JMeter takes the folder above this jar for its home; of a link it would take the cache.
    return Path(shutil.copyfile(by_name[_LAUNCHER], folder / "bin" / "ApacheJMeter.jar"))


def lock() -> None:
    """Resolve JMeter's jars at Maven Central again and write the list of them. `make lock` calls this."""
    lock_jars([jar_set()], LOCK)
