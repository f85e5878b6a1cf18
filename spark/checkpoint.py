"""Spark's checkpoint as files: reading what it says, and setting it aside, on any file system that Spark knows."""

from __future__ import annotations

import json
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.sql import SparkSession

from spark.resume import Checkpoint

AFTER = "begun-behind"
"""The file with the id of the window behind which the checkpoint's epoch began."""
# By Hadoop a file whose checksum is wrong raises, and so does one that vanishes; a cut file gives too few lines.
UNREADABLE = (Py4JJavaError, ValueError, LookupError, TypeError, AttributeError)


class CheckpointFolder:
    """The checkpoint at `url`, whose query reads `topic`."""

    def __init__(self, spark: SparkSession, url: str, topic: str) -> None:
        self.url = url
        self._topic = topic
        # The gateway makes every Java class an attribute.
        jvm: Any = spark._jvm
        self._at = jvm.org.apache.hadoop.fs.Path
        self._as_text = jvm.org.apache.commons.io.IOUtils.toString
        self._files = self._at(url).getFileSystem(spark._jsc.hadoopConfiguration())
        self._stream = self._files.open

    def read(self, last: int | None) -> Checkpoint:
        """Return what the checkpoint says, of its batches the newest and number `last`."""
        reading = "metadata"
        epoch, after = None, ""
        behind: dict[int, dict[int, int]] = {}
        try:
            offsets, commits = self._numbers("offsets"), self._numbers("commits")
            if not (offsets or self._exists("metadata")):
                return Checkpoint()
            epoch = str(json.loads(self._text("metadata"))["id"])
            if self._exists(AFTER):
                after = self._text(AFTER).strip()
            for number in sorted({*offsets[-1:], *(n for n in offsets if n == last)}):
                reading = f"offsets/{number}"
                # A line each: the version, the batch's own facts, and the offsets of the only source.
                by_partition = json.loads(self._text(reading).splitlines()[2])[self._topic]
                behind[number] = {int(partition): int(offset) for partition, offset in by_partition.items()}
            for number in commits[-1:]:
                reading = f"commits/{number}"
                json.loads(self._text(reading).splitlines()[1])
        except UNREADABLE:
            return Checkpoint(epoch, behind, after, torn=reading)
        return Checkpoint(epoch, behind, after)

    def set_aside(self, epoch: str | None) -> str:
        """Rename the checkpoint, if there is one, so that a new one can begin; return its new URL, "" without one."""
        if not self._files.exists(self._at(self.url)):
            return ""
        target = f"{self.url}.left-{epoch or 'unknown'}"
        self._files.delete(self._at(target), True)
        self._files.rename(self._at(self.url), self._at(target))
        return target

    def note(self, after: str) -> None:
        """Write down the id of the window behind which a new epoch begins."""
        stream = self._files.create(self._at(f"{self.url}/{AFTER}"), True)
        try:
            stream.writeBytes(after)
        finally:
            stream.close()

    def _exists(self, name: str) -> bool:
        return bool(self._files.exists(self._at(f"{self.url}/{name}")))

    def _numbers(self, name: str) -> list[int]:
        """Return the batches of which a folder of the checkpoint has a file, in ascending order."""
        if not self._exists(name):
            return []
        names = (str(each.getPath().getName()) for each in self._files.listStatus(self._at(f"{self.url}/{name}")))
        return sorted(int(each) for each in names if each.isdecimal())

    def _text(self, name: str) -> str:
        stream = self._stream(self._at(f"{self.url}/{name}"))
        try:
            return str(self._as_text(stream, "UTF-8"))
        finally:
            stream.close()
