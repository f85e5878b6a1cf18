"""What the supervisor reports, in words: a line per event on a terminal, and the errors that end a chain. No I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from structlog.typing import EventDict, Processor, WrappedLogger

from pipeline.errors import EmoStreamError
from pipeline.supervisor.restarts import DEATHS_MAX, WITHIN_S

# As wide as `cluster-publisher-1`.
NAME_WIDTH = 19


def readable(since_start_s: Callable[[], float], otherwise: Processor) -> Processor:
    """Return a renderer of the supervisor's events for a terminal; `otherwise` renders those of libraries."""

    def render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        words = _words(event)
        if words is None:
            return str(otherwise(logger, method, event))
        return f"{since_start_s():6.1f} s  {event.get('name', 'chain'):<{NAME_WIDTH}}  {words}"

    return render


def _words(event: EventDict) -> str | None:
    match event:
        case {"event": "ready", "address": address}:
            return f"ready      {address}".rstrip()
        case {"event": "back", "after_s": after_s, "address": address}:
            return f"back       {address} after {after_s:g} s" if address else f"back       after {after_s:g} s"
        case {"event": "died", "exit": ended, "deaths": deaths, "restarted": restarted, "error": error}:
            memory = ", while the system was out of memory" if event.get("out_of_memory") else ""
            again_s = event.get("again_s", 0.0)
            then = f"restarted in {again_s:g} s" if again_s else "restarted" if restarted else "not restarted"
            often = f" ({deaths} deaths within {WITHIN_S:g} s)" if deaths > 1 else ""
            return f"died       {ended}{memory}; {then}{often}; {error or 'its log has no error'}"
        case {"event": "hangs", "silent_s": silent_s}:
            return f"hangs      it has not gone on for {silent_s:g} s, and is killed"
        case {"event": "killed", "after_s": after_s}:
            return f"killed     it did not end within {after_s:g} s"
        case {"event": "removed"}:
            return "removed"
        case {"event": "stopping" | "stopping already" as event_name, "why": why}:
            return f"{event_name}: {why}"
        case {"event": "looking for Kafka" as event_name, "address": address}:
            return f"{event_name} at {address}"
        case {"event": "all stages are ready" | "stopped" as event_name}:
            return str(event_name)
    return None


def for_people(registry: str) -> str:
    """Return the last line of a start on a terminal, below the long line of JSON: the page, and how to end."""
    return f"page: {registry}/  operations: {registry}/ops  Ctrl-C stops"


class Missing(NamedTuple):
    """A stage that is not ready: what it lacks, after which stage it comes, and what is known of its deaths and log."""

    stage: str
    lacks: str
    after: str
    deaths: int
    error: str
    complaint: str
    log: str


def not_ready(missing: Sequence[Missing], timeout_s: float) -> EmoStreamError:
    """Return the error for a chain that is not ready in time.

    It says why for each stage that is missing, except for those that only wait for another missing one.
    """
    names = {each.stage for each in missing}
    waiting = [each.stage for each in missing if each.after in names and not each.deaths and not each.error]
    causes = "; ".join(_cause(each) for each in missing if each.stage not in waiting)
    return EmoStreamError(
        f"the chain is not ready after {timeout_s:g} s: {causes}"
        + (f"; waiting for these: {', '.join(waiting)}" if waiting else "")
        + ". Read the whole logs, or allow more time with --ready-timeout-s"
    )


def gave_up(dead: Missing, others: Sequence[Missing]) -> EmoStreamError:
    """Return the error for a stage that died too often; it names those of `others` that died as well, and why."""
    also = [each for each in others if each.deaths]
    alike = [each.stage for each in also if _reason(each.error) == _reason(dead.error)]
    causes = [f"{dead.stage} died {DEATHS_MAX} times within {WITHIN_S:g} s{_quoted(dead.error, dead.log)}"]
    causes += [f"for the same reason died {', '.join(alike)}"] if alike else []
    causes += [_cause(each) for each in also if each.stage not in alike]
    return EmoStreamError("; ".join(causes))


def _cause(missing: Missing) -> str:
    often = "" if missing.deaths == 1 else f" {missing.deaths} times within {WITHIN_S:g} s"
    died = f" and died{often}" if missing.deaths else ""
    return f"{missing.stage} {missing.lacks}{died}{_quoted(missing.complaint, missing.log)}"


def _quoted(words: str, log: str) -> str:
    return f": {words or 'its log has no error'} (whole log: {log})"


def _reason(error: str) -> str:
    """Return an error without the name of the command that ended with it."""
    return re.sub(r"^(pipeline|spark)[\w.]*: ", "", error)
