"""The schema by which Spark reads `emoji-events`: only the fields that it counts by."""

from __future__ import annotations

from pyspark.sql import types as t

EVENT = t.StructType([t.StructField("emoji_type", t.StringType()), t.StructField("reaction_id", t.StringType())])
"""The part of `pipeline.messages.Event` that is counted; other fields are not parsed."""

STRICT = {"allowSingleQuotes": "false", "allowNonNumericNumbers": "false"}
"""Options of Spark's reader, which by default takes more than JSON, and more than every other program that counts."""
