"""Spark killed at a step of a micro-batch that has been seen: in its checkpoint, its sockets to Kafka, and its log.

A step takes milliseconds. So what would end it is stopped (Kafka, the JVM, or the driver), and Spark is killed once the
signs of that step, and no sign of the next one, are there. If they do not come, the next micro-batch is tried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil

from experiments.faults.scene import HarmedChain
from pipeline.errors import EmoStreamError

TRIES = 30
RESTART_S = 120.0
SIGNS_S = 5.0
# What was under way ends within it, so that what is seen then stays.
STILL_S = 0.5


class _Spark(NamedTuple):
    """Spark's two processes, and the newest micro-batch that was committed when they were looked for."""

    driver: psutil.Process
    jvm: psutil.Process
    done: int


def killed_at(step: str) -> Callable[[HarmedChain], Mapping[str, float]]:
    """Return what kills Spark, driver and JVM, at one of the STEPS, and returns the micro-batch and how many it tried.

    It raises EmoStreamError if no micro-batch showed the step.
    """
    kill_at = STEPS[step]

    def act(scene: HarmedChain) -> Mapping[str, float]:
        for number in range(1, TRIES + 1):
            spark = _at_work(scene)
            if kill_at(scene, spark):
                return {"seen_at_batch": batches(scene, "offsets"), "tries": number}
        raise EmoStreamError(f"in {TRIES} micro-batches Spark was not seen at this step: {step}")

    return act


def batches(scene: HarmedChain, kind: str) -> int:
    """Return the newest micro-batch of which the checkpoint has `offsets` or `commits`; -1 if there is none."""
    folder = Path(scene.endpoints.run_dir) / "checkpoint" / kind
    return max((int(path.name) for path in folder.iterdir() if path.name.isdecimal()), default=-1)


def await_growth(look: Callable[[], int], within_s: float = 30.0) -> None:
    """Wait until `look` returns more than at first. Raises EmoStreamError if it does not in time."""
    begin = look()
    if not _soon(lambda: look() > begin, within_s):
        raise EmoStreamError("no micro-batch came")


def _soon(condition: Callable[[], bool], within_s: float = SIGNS_S) -> bool:
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(0.001)
    return True


def _at_work(scene: HarmedChain) -> _Spark:
    """Return as soon as a micro-batch is committed; the first ones after a start take seconds, and do not count."""
    commits = partial(batches, scene, "commits")
    await_growth(commits, RESTART_S)
    await_growth(commits, RESTART_S)
    driver = scene.head("spark")
    jvm = next(each for each in scene.processes("spark") if each.name() == "java")
    await_growth(commits, RESTART_S)
    return _Spark(driver, jvm, commits())


@contextmanager
def _stopped(*processes: psutil.Process) -> Iterator[None]:
    """Stop processes meanwhile; one may be killed, or continued, before."""
    try:
        for each in processes:
            each.suspend()
        yield
    finally:
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                each.resume()


def _unread(scene: HarmedChain, process: psutil.Process) -> int:
    """Return how many bytes of a process wait for a Kafka that is stopped: what it has asked, or sent."""
    port = int(scene.endpoints.bootstrap_servers.rpartition(":")[2])
    own = {each.laddr.port for each in process.net_connections("tcp") if each.raddr and each.raddr.port == port}
    waiting = 0
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text(encoding="ascii").splitlines()[1:]:
            _, local, remote, _, queues = line.split()[:5]
            here, there = (int(place.rpartition(":")[2], 16) for place in (local, remote))
            if here == port and there in own:
                waiting += int(queues.partition(":")[2], 16)
    return waiting


def _is_under_way(scene: HarmedChain, spark: _Spark) -> bool:
    """Return whether the offsets of the next micro-batch are written, and it is not committed."""
    return batches(scene, "offsets") == spark.done + 1 and batches(scene, "commits") == spark.done


def _nothing_is_under_way(scene: HarmedChain, spark: _Spark) -> bool:
    return batches(scene, "offsets") == batches(scene, "commits") == spark.done


def _killed_while_it_asks(
    scene: HarmedChain, spark: _Spark, is_the_step: Callable[[HarmedChain, _Spark], bool]
) -> bool:
    """Kill Spark while its JVM waits for Kafka, which is stopped; return False, and kill nothing, at another step."""
    asked = _soon(lambda: _unread(scene, spark.jvm) > 0)
    time.sleep(STILL_S)
    if not (asked and is_the_step(scene, spark)):
        return False
    scene.kill("spark")
    return True


def _at_trigger(scene: HarmedChain, spark: _Spark) -> bool:
    """Before the file of offsets: the JVM has asked Kafka, which is stopped, for the newest offsets, and waits."""
    with scene.halted("kafka"):
        return _killed_while_it_asks(scene, spark, _nothing_is_under_way)


@contextmanager
def _driver_stopped_at_offsets(scene: HarmedChain, spark: _Spark) -> Iterator[bool]:
    """Yield with the driver stopped before the JVM wrote the offsets of the next micro-batch: whether it wrote them.

    The JVM then waits for the driver, which has yet to say what is counted.
    """
    with _stopped(spark.driver):
        if not _nothing_is_under_way(scene, spark):
            yield False
        else:
            yield _soon(lambda: _is_under_way(scene, spark))


def _at_offsets_written(scene: HarmedChain, spark: _Spark) -> bool:
    """After the file of offsets: nothing of the micro-batch has been read yet."""
    with _driver_stopped_at_offsets(scene, spark) as written:
        if written:
            scene.kill("spark")
        return written


def _at_aggregating(scene: HarmedChain, spark: _Spark) -> bool:
    """While it counts: the JVM has asked Kafka, which is stopped, for the records, and waits."""
    with _driver_stopped_at_offsets(scene, spark) as written:
        if not written:
            return False
        with scene.halted("kafka"):
            spark.driver.resume()
            return _killed_while_it_asks(scene, spark, _is_under_way)


def _at_emitting(scene: HarmedChain, spark: _Spark) -> bool:
    """Between produce and flush: Kafka is stopped, so that no flush ends, and takes the window after Spark's death.

    The driver is stopped at some moment of the micro-batch, until the JVM has done what it was told. If that was the
    last reading, the window is all that is left to be sent when the driver goes on without Kafka.
    """
    _soon(lambda: batches(scene, "offsets") > spark.done)
    begun_s = time.monotonic()
    _soon(lambda: batches(scene, "commits") > spark.done)
    took_s = time.monotonic() - begun_s
    spark = spark._replace(done=batches(scene, "commits"))
    if not _soon(lambda: batches(scene, "offsets") > spark.done):
        return False
    time.sleep(took_s * scene.rng.uniform(0.2, 0.95))
    with _stopped(spark.driver):
        time.sleep(1.0)
        with scene.halted("kafka"):
            spark.driver.resume()
            _soon(lambda: _unread(scene, spark.driver) + _unread(scene, spark.jvm) > 0)
            time.sleep(STILL_S)
            if _unread(scene, spark.jvm) or not (_unread(scene, spark.driver) and _is_under_way(scene, spark)):
                return False
            scene.kill("spark")
            killed_ns = time.time_ns()

    def taken() -> bool:
        copies = scene.windows(emitted=True)
        return any(each.window == spark.done + 1 and each.emitted_ns < killed_ns for each in copies[-3:])

    # What was sent may have been another record.
    return _soon(taken, 15.0)


def _at_emitted(scene: HarmedChain, spark: _Spark) -> bool:
    """Between flush and commit: the driver's log has the window, and the JVM is stopped before it writes the commit."""
    with scene.bus() as bus:
        ends = partial(bus.ends, scene.names.aggregates.name)
        before = sum(ends().values())
        if not _soon(lambda: sum(ends().values()) > before):
            return False
    log = Path(scene.endpoints.run_dir) / "logs" / "spark.log"
    with _stopped(spark.jvm):
        last = scene.windows()[-1]
        flushed = _soon(lambda: last.event_id in log.read_text(encoding="utf-8", errors="replace"))
        if not (flushed and last.window == spark.done + 1 and _is_under_way(scene, spark)):
            return False
        scene.kill("spark")
    return True


def _at_committed(scene: HarmedChain, spark: _Spark) -> bool:
    """After the commit, before anything of the next micro-batch."""
    with _stopped(spark.driver, spark.jvm):
        if not _nothing_is_under_way(scene, spark):
            return False
        scene.kill("spark")
    return True


STEPS: Mapping[str, Callable[[HarmedChain, _Spark], bool]] = {
    "trigger": _at_trigger,
    "offsets written": _at_offsets_written,
    "aggregating": _at_aggregating,
    "emitting": _at_emitting,
    "emitted": _at_emitted,
    "committed": _at_committed,
}
"""By the name of a step, what kills Spark there in the next micro-batch, and returns whether it was seen there."""
