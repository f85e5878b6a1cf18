"""The environment of the chain's processes: what is set there for other programs is left out.

Java, Spark, Hadoop, Python and several libraries read settings from variables that people set for other work. The chain
must not depend on them. What describes the machine stays: PATH, HOME, JAVA_HOME, TMPDIR, TZ, proxies, certificates.

This module imports only the standard library, and nothing slow.
"""

from __future__ import annotations

import logging
import os
import re
import string
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

IGNORED = "EMOSTREAM_IGNORED"
"""Lists, in a process that has restarted itself, the variables that it left out."""

OTHERS = (
    # Options of every JVM, also of IBM's.
    *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "IBM_JAVA_OPTIONS", "OPENJ9_JAVA_OPTIONS", "CLASSPATH"),
    *("SPARK_", "PYSPARK_", "_PYSPARK_", "HADOOP_", "HDFS_", "YARN_", "HIVE_"),
    # With the first, Spark believes that YARN has started it, and takes its folders from the second.
    *("CONTAINER_ID", "LOCAL_DIRS"),
    "LOG4J_CONFIGURATION_FILE",
    # Start scripts of Kafka read these; there is no such script here.
    *("KAFKA_OPTS", "KAFKA_HEAP_OPTS", "KAFKA_JVM_", "KAFKA_GC_", "KAFKA_JMX_", "KAFKA_LOG4J_"),
    # The scripts that start Spark's JVM are run by bash.
    *("BASH_ENV", "BASHOPTS", "CDPATH", "SHELLOPTS"),
    *("FLASK_", "GRANIAN_", "PROMETHEUS_", "prometheus_"),
    # Not the variables of container images, which begin with PYTHON_.
    *(f"PYTHON{letter}" for letter in string.ascii_uppercase),
)
"""The beginnings of the names of variables that do not apply."""
KEPT = frozenset(
    {
        # Where this interpreter has found its modules, a child finds them as well.
        *("PYTHONHOME", "PYTHONPATH", "PYTHONPLATLIBDIR", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PYTHONUSERBASE"),
        # These change no result.
        *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUNBUFFERED", "PYTHONFAULTHANDLER", "PYTHONHASHSEED"),
        # A subscriber sets it, unless it is set.
        "PYTHONMALLOC",
        # Set below.
        "PYTHONUTF8",
    }
)
# Text, names of files and numbers are the same in every process, whatever language the user has.
UTF_8 = {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}

logger = logging.getLogger(__name__)


def own(env: Mapping[str, str]) -> dict[str, str]:
    """Return `env` for a process of the chain."""
    kept = {name: value for name, value in env.items() if not name.startswith(OTHERS) or name in KEPT}
    if "PYTHONPATH" in kept:
        entries = kept["PYTHONPATH"].split(os.pathsep)
        kept["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if not is_spark_distribution(Path(entry)))
    return {**kept, **UTF_8}


def is_spark_distribution(folder: Path) -> bool:
    """Return whether this entry of PYTHONPATH is the pyspark or py4j of another Spark, not an installed package."""
    if re.fullmatch(r"(pyspark|py4j)\b.*\.zip", folder.name):
        return True
    return (folder / "pyspark").is_dir() and not any(folder.glob("pyspark-*.dist-info"))


def restart_without_others(own: Callable[[Mapping[str, str]], dict[str, str]] = own) -> None:
    """Restart this process in its `own` environment, if that differs: many variables are read before any code runs.

    So is the locale: one without UTF-8 is replaced as well.
    Only for `if __name__ == "__main__"`: it repeats the command line of the whole process.
    """
    clean = own(os.environ)
    ignored = sorted(name for name, value in os.environ.items() if clean.get(name) != value and name != "LC_ALL")
    # A variable that comes back, set by a sitecustomize module, must not cause a second restart.
    if (ignored or sys.getfilesystemencoding() != "utf-8") and IGNORED not in os.environ:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**clean, IGNORED: " ".join(ignored)})
    os.environ.update(UTF_8)


def log_ignored() -> None:
    """Log one line with the names of the variables that the restart left out, if there are any."""
    ignored = os.environ.pop(IGNORED, "")
    if ignored:
        logger.warning("ignored environment variables that are set for other programs: %s", ignored)
