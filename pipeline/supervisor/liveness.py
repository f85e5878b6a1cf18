"""Finding stages that hang: their processes live, and answer nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from urllib.error import HTTPError

from pipeline import direct_http, logs

log = logs.get(__name__)

PROBE_S = 5.0
HUNG_S = 60.0
"""A stage hangs if it has answered no probe for this long. A busy one answers late, a stopped one for a while not."""


class Liveness:
    """Asks every stage in `urls()` (name → URL) for its health, and calls `replace(name)` for each that hangs.

    Any answer is one, whatever its status: a stage that says that it is not well does not hang.
    """

    def __init__(self, urls: Callable[[], Mapping[str, str]], replace: Callable[[str], None]) -> None:
        self._urls = urls
        self._replace = replace
        self._answered_s: dict[str, float] = {}

    def watch(self, stop: threading.Event) -> None:
        """Probe until `stop`. For a daemon thread: an answer may be long in coming."""
        while not stop.wait(PROBE_S):
            self.probe()

    def probe(self) -> None:
        """Ask each stage once."""
        urls = self._urls()
        now_s = time.monotonic()
        # One that is not asked now, because it starts, begins anew.
        self._answered_s = {name: self._answered_s.get(name, now_s) for name in urls}
        for name, url in urls.items():
            if _answers(url):
                self._answered_s[name] = time.monotonic()
            elif (silent_s := time.monotonic() - self._answered_s[name]) > HUNG_S:
                log.warning("hangs", name=name, silent_s=round(silent_s, 1), url=url)
                del self._answered_s[name]
                self._replace(name)


def _answers(url: str) -> bool:
    try:
        direct_http.get(f"{url}/healthz", PROBE_S).close()
    except HTTPError as error:
        error.close()
    except (OSError, HTTPException):
        return False
    except ValueError:
        # A subscriber's URL comes from Kafka, where others may write: what cannot be asked is not judged.
        return True
    return True
