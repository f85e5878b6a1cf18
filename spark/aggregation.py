"""Counting one micro-batch's records, in steps from DataFrame to DataFrame. No I/O."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from spark.schema import EVENT, STRICT


def parse(records: DataFrame) -> DataFrame:
    """Kafka records (`value`, `partition`, `offset`, …) → `partition`, `offset`, `appended_ms`, `emoji_type`, `id`.

    `emoji_type` is null for an unreadable record: a probe's null record, or one of a foreign writer. `id` is the hash
    of a reaction's id, null without one. `appended_ms` is the record's time as Kafka has it.
    """
    event = F.from_json(F.col("value").cast("string"), EVENT, STRICT)
    return records.select(
        F.col("partition"),
        F.col("offset"),
        F.unix_millis("timestamp").alias("appended_ms"),
        F.nullif(event.getField("emoji_type"), F.lit("")).alias("emoji_type"),
        # The hash of null is not null.
        F.when(event.getField("reaction_id").isNotNull(), F.xxhash64(event.getField("reaction_id"))).alias("id"),
    )


def aggregate(parsed: DataFrame) -> DataFrame:
    """Parsed records → `emoji_type`, `partition`, `count`, `first`, `last`, `first_ms`, `last_ms`, `identified`.

    One row per type and partition, with the first and last offset of its records, the earliest time, and the time of
    the last record: over all types these give the window's offsets without a second pass. `identified` counts the
    records with an id. The rows of the null type count the unreadable records. `spark.window` adds up the partitions:
    a second grouping here took 0.2 s of a 0.5 s micro-batch, for a few dozen rows. The aggregates are SQL expressions
    because each Column call is a round trip to the JVM.
    """
    return parsed.groupBy("emoji_type", "partition").agg(
        F.expr("count(1) AS count"),
        F.expr("min(offset) AS first"),
        F.expr("max(offset) AS last"),
        F.expr("min(appended_ms) AS first_ms"),
        F.expr("max_by(appended_ms, offset) AS last_ms"),
        F.expr("count(id) AS identified"),
    )


def identified(parsed: DataFrame) -> DataFrame:
    """Return the records that carry an id: a second pass, for micro-batches that have such records."""
    return parsed.where("id IS NOT NULL AND emoji_type IS NOT NULL")
