"""Finds the line of a stage's log that says why the stage failed. No I/O.

A log mixes our own JSON, Python's tracebacks, the plain line with which a command ends, and the formats of two JVMs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

QUOTE_MAX = 300

Severity = Literal["warning", "error", "end"]
"""`end` is the line with which one of our commands says why it ends."""

_SEVERITIES: dict[str, Severity] = {
    **dict.fromkeys(("WARN", "WARNING"), "warning"),
    **dict.fromkeys(("ERROR", "FATAL", "CRITICAL", "SEVERE"), "error"),
}
# `pipeline.ingest: ingest_port is …`, `python -m pipeline.ingest: error: …`. One that ends with a colon quotes a log.
_COMMAND = re.compile(r"(?:python -m )?(?:pipeline|spark)(?:\.\w+)+: .*[^:]$")
# `26/11/29 02:42:53 WARN Utils: …`, `2026-11-29T02:42:53.123+00:00 [main] ERROR kafka.Kafka$ - …`, `ERROR …`
_LEVELLED = re.compile(
    r"(?:[\[\d].{0,150}? )?\b(TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL|CRITICAL|SEVERE)\b[\s:]+(\S.*)"
)
_EXCEPTION = re.compile(
    r'(?:Caused by: |Exception in thread "[^"]*" |: )?((?:[\w$]+\.)*[A-Z][\w$]*(?:Exception|Error)(?::.*)?)$'
)
_GROUPED = re.compile(r"[\s|]*\| (\w+(?:\.\w+)*(?:Exception|Error)(?::.*)?)$")
# Of an interpreter, a JVM, a shell or a native library.
_FAILURE = re.compile(
    r"(?:# )?(?:fatal|error|exception|there is insufficient memory|(?:/bin/)?sh: |thread '.*' panicked)\b", re.I
)
_TRACE = ("Traceback (most recent call last):", "During handling of the above", "The above exception was the direct")
# Spark and the JVM write these at every start.
_HARMLESS = ("NativeCodeLoader: ", "Your hostname, ", "Set SPARK_LOCAL_IP", "Using incubator modules")
# The fields of every JSON line, which say nothing about what happened.
_COMMON = {"event", "stage", "level", "logger", "timestamp", "exception"}


def last_error(text: str) -> str:
    """Return the last error in a log, or ""; a command's last words before its end count most.

    It is the line with the exception's name and message, not a stack frame; of a chain of Java exceptions the cause.
    """
    found = dict(_complaints(text))
    return _short(found.get("end") or found.get("error", ""))


def last_complaint(text: str) -> str:
    """Return the last error in a log, else its last warning, else its last line, or ""."""
    lines = [line for line in text.splitlines() if line.strip() and not line[0].isspace()]
    warning = dict(_complaints(text)).get("warning", "")
    return last_error(text) or _short(warning or (_plain(lines[-1]) if lines else ""))


def _short(text: str) -> str:
    return text if len(text) <= QUOTE_MAX else text[: QUOTE_MAX - 1] + "…"


def _plain(line: str) -> str:
    record = _record(line)
    return line.strip() if record is None else record[1]


def _complaints(text: str) -> Iterator[tuple[Severity, str]]:
    """Yield the severity and the words of each line that complains."""
    in_traceback = False
    # Of the record that the trace of a JVM belongs to; None for one that is not a complaint.
    severity: Severity | None = "error"
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith(_TRACE):
            in_traceback = in_traceback or line.startswith(_TRACE[0])
        elif (record := _record(line)) is not None:
            severity = _SEVERITIES.get(record[0].upper())
            if severity is not None:
                yield severity, record[1]
        elif raw[0].isspace():
            # A stack frame, a line of code, or a part of a group of exceptions.
            if grouped := _GROUPED.match(raw):
                yield "error", grouped[1]
        elif in_traceback:
            in_traceback, severity = False, "error"
            yield "error", line
        elif _COMMAND.match(line):
            yield "end", line
        elif levelled := _LEVELLED.match(line):
            severity = _SEVERITIES.get(levelled[1])
            if severity is not None and not any(harmless in line for harmless in _HARMLESS):
                yield severity, levelled[2]
        elif exception := _EXCEPTION.match(line):
            severity = "error" if line.startswith("Exception in thread") else severity
            if severity is not None:
                yield severity, exception[1]
        elif _FAILURE.match(line):
            severity = "error"
            yield severity, line.lstrip("# ")
        elif not line.startswith("... "):
            severity = "error"


def _record(line: str) -> tuple[str, str] | None:
    """Return the level and the words of a line that is one of our JSON records."""
    if not line.startswith("{"):
        return None
    try:
        fields = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    if not isinstance(fields, dict) or "event" not in fields:
        return None
    details = [f"{name} {value}" for name, value in fields.items() if name not in _COMMON]
    # The first of a chain is the one that was logged.
    match fields.get("exception"):
        case [{"exc_type": kind, "exc_value": value}, *_]:
            details.append(f"{kind}: {value}")
    words = str(fields["event"])
    return str(fields.get("level", "")), f"{words}: {', '.join(details)}" if details else words
