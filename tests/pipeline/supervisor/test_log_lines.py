"""The line of a stage's log that says why it failed."""

from __future__ import annotations

import pytest

from pipeline.supervisor.log_lines import QUOTE_MAX, last_complaint, last_error

SPARK = """\
26/11/29 02:42:40 WARN NativeCodeLoader: Unable to load native-hadoop library for your platform
26/11/29 02:42:53 ERROR MicroBatchExecution: Query emostream terminated with error
org.apache.spark.SparkException: Job aborted
\tat org.apache.spark.sql.execution.X.run(X.scala:12)
Caused by: java.nio.file.AccessDeniedException: /run/checkpoint
\tat java.base/sun.nio.fs.UnixException.translateToIOException(UnixException.java:90)
\t... 12 more
"""
PYTHON = """\
Traceback (most recent call last):
  File "job.py", line 3, in run
    start()
    ~~~~~^^
ValueError: first
its second line

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "job.py", line 9, in <module>
    raise Unusual("told")
job.Unusual: told
"""
PY4J = """\
Traceback (most recent call last):
  File "java_gateway.py", line 3, in call
py4j.protocol.Py4JJavaError: An error occurred while calling o58.start.
: org.apache.spark.SparkException: no room
\tat org.apache.spark.X.run(X.scala:12)
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "server.py", line 3, in run
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "server.py", line 9, in serve
    | OSError: [Errno 28] No space left on device
    +------------------------------------
"""
BROKER = """\
pipeline.broker: Kafka ended by itself with exit code 1; run/kafka/kafka.log ends:
2026-11-29T02:42:53.123+00:00 [main] ERROR kafka.Kafka$ - Exiting Kafka due to fatal exception
java.lang.RuntimeException: the log directory is locked
\tat kafka.log.LogManager.lock(LogManager.scala:1)
"""
FAILED = '{"event": "a flush failed", "level": "error", "stage": "ingest", "reactions": 3}\n'
RAISED = (
    '{"event": "failed", "level": "error", "exception": [{"exc_type": "KeyError", "exc_value": "x", "frames": []}]}\n'
    '{"event": "stopped", "level": "info"}\n'
)


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (SPARK, "java.nio.file.AccessDeniedException: /run/checkpoint"),
        (PYTHON, "job.Unusual: told"),
        (PY4J, "org.apache.spark.SparkException: no room"),
        (GROUP, "OSError: [Errno 28] No space left on device"),
        (BROKER, "java.lang.RuntimeException: the log directory is locked"),
        (FAILED, "a flush failed: reactions 3"),
        (RAISED, "failed: KeyError: x"),
        (
            "pipeline.ingest: ingest_port is 8000: choose another\n" + SPARK,
            "pipeline.ingest: ingest_port is 8000: choose another",
        ),
        (
            "usage: ingest [--ack X]\npython -m pipeline.ingest: error: unrecognized arguments: --x\n",
            "python -m pipeline.ingest: error: unrecognized arguments: --x",
        ),
        (
            'Exception in thread "main" java.lang.OutOfMemoryError: Java heap space\n\tat X.y(Z)\n',
            "java.lang.OutOfMemoryError: Java heap space",
        ),
        (
            "#\n# There is insufficient memory for the Java Runtime.\n# An error report\n",
            "There is insufficient memory for the Java Runtime.",
        ),
        (
            "Error: Could not find or load main class kafka.Kafka\n",
            "Error: Could not find or load main class kafka.Kafka",
        ),
        (
            "Fatal Python error: Segmentation fault\n\nCurrent thread 0x1 (most recent call first):\n  File x\n",
            "Fatal Python error: Segmentation fault",
        ),
        ("/bin/sh: 1: exec: python: not found\n", "/bin/sh: 1: exec: python: not found"),
        ("thread '<unnamed>' panicked at src/lib.rs:1:2:\n", "thread '<unnamed>' panicked at src/lib.rs:1:2:"),
    ],
)
def test_error_is_the_line_of_the_exception_or_of_the_command(log: str, error: str) -> None:
    """Never a stack frame, the first line of a cause's chain, or what a JVM says after the command's last word."""
    assert last_error(log) == last_complaint(log) == error


@pytest.mark.parametrize(
    ("log", "complaint"),
    [
        (
            "26/11/29 02:42:53 WARN NetworkClient: no connection\njava.net.ConnectException: refused\n\tat X\n",
            "java.net.ConnectException: refused",
        ),
        ('{"event": "slow", "level": "warning"}\n{"event": "serving", "level": "info"}\n', "slow"),
        ("26/11/29 02:42:40 WARN NativeCodeLoader: Unable to load\nstarting\n", "starting"),
        ('{"event": "aggregating", "level": "info", "trigger_s": 6.0}\n', "aggregating: trigger_s 6.0"),
        (
            "26/11/29 02:42:53 INFO NetworkClient: closed\njava.net.ConnectException: refused\n\tat X\n",
            "java.net.ConnectException: refused",
        ),
        ('{"event": "odd", "exception": "text", "level": "warning"}\n{not json\n', "odd"),
        ("", ""),
        (" \n\n", ""),
    ],
)
def test_log_without_an_error_has_a_warning_or_a_last_line(log: str, complaint: str) -> None:
    """What Spark warns of at every start is left out; an exception belongs to the record before it."""
    assert last_error(log) == ""
    assert last_complaint(log) == complaint


def test_long_line_is_cut() -> None:
    """The whole is in the log."""
    error = last_error("pipeline.ingest: " + "x" * 1_000)
    assert len(error) == QUOTE_MAX
    assert error.endswith("x…")
