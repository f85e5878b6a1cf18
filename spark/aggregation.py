"""One micro-batch's records to its counts, as DataFrame → DataFrame steps without I/O."""

from __future__ import annotations

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark.schema import EVENT


def representatives(count: Column, group_size: int) -> Column:
    """How many stand on screen for `count` reactions: ceil(count / group_size).

    Up to `group_size` become one, so nothing that happened vanishes; the error is below `group_size` a type.
    """
    return F.ceil(count / F.lit(group_size)).cast("long")


def parse(records: DataFrame) -> DataFrame:
    """Kafka records (`value`, `partition`, `offset`, …) → `partition`, `offset`, `emoji_type`.

    `emoji_type` is null where a record is no reaction: a probe's tombstone, or what a foreign writer left.
    """
    event = F.from_json(F.col("value").cast("string"), EVENT)
    return records.select(
        F.col("partition"),
        F.col("offset"),
        F.nullif(event.getField("emoji_type"), F.lit("")).alias("emoji_type"),
    )


def aggregate(parsed: DataFrame, group_size: int) -> DataFrame:
    """`partition`, `offset`, `emoji_type` → `emoji_type`, `count`, `representatives`, `ranges`.

    `ranges` lists, for each partition in which the type occurred, the first and last offset of its records; over
    all types together they give the window's offsets without a second pass. The row of the null type counts the
    records that are no reaction.
    """
    by_partition = parsed.groupBy("emoji_type", "partition").agg(
        F.count(F.lit(1)).alias("count"),
        F.min("offset").alias("first"),
        F.max("offset").alias("last"),
    )
    by_type = by_partition.groupBy("emoji_type").agg(
        F.sum("count").alias("count"),
        F.collect_list(F.struct("partition", "first", "last")).alias("ranges"),
    )
    return by_type.select(
        F.col("emoji_type"),
        F.col("count"),
        representatives(F.col("count"), group_size).alias("representatives"),
        F.col("ranges"),
    )
