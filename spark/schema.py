"""The schema by which Spark reads `emoji-events`: only the field that it counts by."""

from __future__ import annotations

from pyspark.sql import types as t

EVENT = t.StructType([t.StructField("emoji_type", t.StringType())])
"""The part of `pipeline.messages.Event` that is counted; other fields are not parsed."""
