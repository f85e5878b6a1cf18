"""What must be true before anything of a chain starts: settings that work together on this machine, and its Kafka."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path

import psutil

from pipeline.bus.kafka import KafkaBus
from pipeline.settings import MB_PER_UNIT, SCHEME, Settings, refused
from pipeline.supervisor.plan import fixed_ports

MB = 1024 * 1024
# Kafka reserves 20 MB for each partition's indexes, on file systems without sparse files.
LEAST_FREE_MB = 100
# The longest path below the run directory: a topic's folder in Kafka's data, and a file in it.
LONGEST_BELOW = 400


def check(settings: Settings) -> None:
    """Return if a chain with these settings can start here; its directories then exist.

    Raises SettingError with the setting that is to be changed, or KafkaUnreachableError.
    """
    check_ports(settings)
    check_folder("run_dir", settings.run_dir)
    if settings.checkpoint_dir and not SCHEME.match(settings.checkpoint_dir):
        check_folder("checkpoint_dir", settings.checkpoint_dir)
    memory_mb = psutil.virtual_memory().total // MB
    if int(settings.spark_memory[:-1]) * MB_PER_UNIT[settings.spark_memory[-1]] > memory_mb:
        raise refused("spark_memory", settings.spark_memory, f"give less than this machine's memory, {memory_mb}m")
    check_kafka(settings)


def check_ports(settings: Settings) -> None:
    """Raise SettingError if two stages would use the same port, or two subscribers the same port or URL."""
    several = settings.clusters * settings.subscribers > 1
    for setting in ("subscriber_port", "subscriber_url"):
        if several and getattr(settings, setting):
            raise refused(setting, getattr(settings, setting), "leave it out: this chain has several subscribers")
    if settings.subscriber_url and not settings.subscriber_port:
        raise refused("subscriber_port", 0, "give the port to which subscriber_url leads", " and subscriber_url is set")
    ports = fixed_ports(settings)
    for port, times in Counter(ports.values()).items():
        if times > 1:
            first, *others = (name for name, number in ports.items() if number == port)
            setting = first.partition(" ")[0]
            raise refused(
                setting,
                getattr(settings, setting),
                "give each a port of its own",
                f" and {', '.join(others)} is {port}",
            )


def check_kafka(settings: Settings) -> None:
    """Wait until the Kafka that the settings name answers; return at once if they name none.

    Raises KafkaUnreachableError after kafka_wait_s, SettingError for an address that cannot be right.
    """
    for setting in ("bootstrap_servers", "feed_bootstrap_servers"):
        if servers := getattr(settings, setting):
            with closing(KafkaBus(servers, settings.kafka_wait_s, setting=setting)) as bus:
                bus.check()


def check_folder(setting: str, folder: str) -> None:
    """Create a folder if it is missing. Raises SettingError if Kafka or Spark could not keep files there."""
    try:
        path = Path(folder).resolve()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(bytes(MB))
            probe.flush()
        free_mb = shutil.disk_usage(path).free // MB
        longest = os.pathconf(path, "PC_PATH_MAX") - LONGEST_BELOW
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise refused(setting, folder, "give a directory that this user can write", f" ({reason})") from error
    if free_mb < LEAST_FREE_MB:
        raise refused(
            setting,
            folder,
            f"free some, or give another directory; {LEAST_FREE_MB} MB are needed",
            f" and its disk has {free_mb} MB left",
        )
    if len(os.fsencode(path)) > longest:
        raise refused(setting, folder, f"give a directory whose path has at most {longest} bytes")
