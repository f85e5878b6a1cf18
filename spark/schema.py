"""What Spark reads from a record of `emoji-events`: only what it counts by."""

from __future__ import annotations

from pyspark.sql import types as t

EVENT = t.StructType([t.StructField("emoji_type", t.StringType())])
"""The part of `pipeline.messages.Event` that is counted; other fields are not parsed."""
