"""A Spark session tuned for small, fast micro-batches on one machine."""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pyspark
from pyspark import SparkConf, SparkContext
from pyspark.sql import SparkSession

from pipeline import environment

# Only the fast compiler (C1): on two cores, a warm micro-batch of 200 reactions costs 0.28 s of CPU instead of 0.44 s,
# and reaches that speed after 1 minute instead of 15. The cost is a lower rate when a large backlog is counted:
# 130,000 reactions per second instead of 250,000 (with one task for each of two partitions).
JAVA_OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
LOOPBACK = "127.0.0.1"


def shipped_jars() -> list[Path]:
    """Return the jars that pyspark brings."""
    return sorted(Path(pyspark.__file__).parent.joinpath("jars").glob("*.jar"))


def use_own_environment(java_home: str | None) -> None:
    """Give this process, and the JVM that pyspark will start from it, an environment without other programs' settings.

    The installed pyspark is used, with no configuration files, on loopback: then this machine's name need not resolve.
    """
    own = {
        **environment.own(os.environ),
        "SPARK_HOME": str(Path(pyspark.__file__).parent),
        # Not a folder, so no spark-defaults.conf and no spark-env.sh can be in it.
        "SPARK_CONF_DIR": os.devnull,
        "SPARK_LOCAL_IP": LOOPBACK,
        "PYSPARK_PYTHON": sys.executable,
        # pyspark starts its JVM with a bash script. Last, so that a PATH that is complete finds what it found before.
        "PATH": os.pathsep.join(filter(None, (os.environ.get("PATH"), os.defpath))),
    }
    if java_home:
        own["JAVA_HOME"] = java_home
    for name in os.environ.keys() - own.keys():
        del os.environ[name]
    os.environ.update(own)


def log_in(name: str, conf: SparkConf) -> None:
    """Start the JVM, and tell Hadoop this user's name.

    Otherwise Hadoop asks the system for it, and refuses to work for a user who is not in the list of users, as in many
    containers.
    """
    SparkContext._ensure_initialized(conf=conf)
    assert SparkContext._jvm is not None
    users = SparkContext._jvm.org.apache.hadoop.security.UserGroupInformation
    users.setLoginUser(users.createRemoteUser(name))


def session(
    app: str,
    master: str,
    memory: str,
    jars: Sequence[Path] = (),
    java_home: str | None = None,
    java_options: Sequence[str] = (),
) -> SparkSession:
    """Return the process's session. `jars` is Kafka's connector; it may be empty if Kafka is not used.

    `java_options` are further options of the JVM.

    One shuffle partition and no adaptive planning: a window has a few dozen rows, and each further task costs more
    than it saves. The web UI is off because it keeps every batch's plan in memory.
    """
    use_own_environment(java_home)
    # The JVM does not know TMPDIR, and looks for a home in the list of users only.
    folders = (f"-Djava.io.tmpdir={tempfile.gettempdir()}", f"-Duser.home={tempfile.gettempdir()}")
    # In quotes: options end at spaces.
    options = " ".join(f'"{option}"' for option in (*JAVA_OPTIONS, *java_options, *folders))
    conf = SparkConf().setAppName(app).setMaster(master)
    conf.setAll(
        [
            ("spark.driver.memory", memory),
            ("spark.driver.host", LOOPBACK),
            ("spark.driver.bindAddress", LOOPBACK),
            ("spark.ui.enabled", "false"),
            ("spark.ui.showConsoleProgress", "false"),
            ("spark.sql.shuffle.partitions", "1"),
            ("spark.sql.adaptive.enabled", "false"),
            ("spark.sql.session.timeZone", "UTC"),
            ("spark.driver.extraJavaOptions", options),
        ]
    )
    for classpath in ("spark.driver.extraClassPath", "spark.executor.extraClassPath"):
        # Not `spark.jars`: Spark would copy them, asks Hadoop for a user first, and splits paths at commas.
        conf.set(classpath, os.pathsep.join(map(str, jars)))
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        log_in(f"user-{os.getuid()}", conf)
    return SparkSession.builder.config(conf=conf).getOrCreate()
