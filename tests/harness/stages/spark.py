"""A Spark session of a test, and the end of its JVM, which Spark itself leaves to the end of the process."""

from __future__ import annotations

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tests.harness.waiting import DEADLINE_S


def end_session(running: SparkSession) -> None:
    """Stop a session and its JVM, so that the next one starts afresh."""
    gateway = running.sparkContext._gateway
    running.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait(DEADLINE_S)
    SparkContext._gateway = SparkContext._jvm = None
