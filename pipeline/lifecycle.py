"""How a stage ends: on SIGTERM or SIGINT, or after the supervisor that started it has died."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import psutil

from pipeline.errors import EmoStreamError, PortInUseError, SettingError

STOP_WITH_PARENT = "EMOSTREAM_STOP_WITH_PARENT"
PARENT_POLL_S = 0.5
# The exit status of a command that Ctrl-C ended, as a shell reports it.
INTERRUPTED = 130
# A stage that has not ended this long after its parent's death is killed; otherwise it would run as an orphan.
ORPHAN_GRACE_S = 10.0


def follow_parent(always: bool = False, grace_s: float = ORPHAN_GRACE_S) -> None:
    """End this process soon after its parent, if `EMOSTREAM_STOP_WITH_PARENT` is set or `always`.

    Polling the parent's id works on every POSIX system, and also after SIGKILL, which no handler can see. SIGTERM comes
    first, so that buffers are flushed.
    """
    if not always and os.environ.get(STOP_WITH_PARENT) != "1":
        return
    parent = os.getppid()
    never = threading.Event()

    def watch() -> None:
        while os.getppid() == parent:
            never.wait(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)
        never.wait(grace_s)
        os._exit(1)

    threading.Thread(target=watch, name="follow-parent", daemon=True).start()


class StopEvent(threading.Event):
    """The event of `stop_event`; `watched` as soon as anyone has asked for it."""

    watched = False

    def is_set(self) -> bool:
        """Return whether the stage has to end."""
        self.watched = True
        return super().is_set()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until the stage has to end."""
        self.watched = True
        return super().wait(timeout)


def stop_event() -> threading.Event:
    """Return an event that SIGTERM, SIGINT or the parent's death sets. Call this from the main thread.

    A stage that still starts, waiting for Kafka for instance, looks at no event yet: the signal ends it at once, with
    status 0, and its children, such as a JVM that starts as well.
    """
    stop = StopEvent()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop.set()
        if not stop.watched:
            for child in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.terminate()
            sys.exit(0)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    follow_parent()
    return stop


def run_main(prog: str, body: Callable[[], None]) -> None:
    """Run a stage's body; an EmoStreamError ends the process with status 1 and its message on one line.

    Ctrl-C before the stage handles signals ends it with INTERRUPTED.
    """
    try:
        body()
    except EmoStreamError as error:
        sys.exit(f"{prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def claim_port(host: str, port: int, setting: str) -> int:
    """Return `port`, or a free port for 0.

    Raises PortInUseError, which names `setting`, if the port cannot be listened on, and SettingError for a port or a
    host that does not exist.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except socket.gaierror as error:
            raise SettingError(
                f"host is {host!r} ({error.strerror}): give an address of this machine, such as 127.0.0.1"
            ) from error
        except OverflowError as error:
            raise SettingError(f"{setting} is {port}: give 1 to 65535, or 0 for a free port") from error
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                raise SettingError(
                    f"host is {host!r} ({error.strerror}): give an address of this machine, such as 127.0.0.1"
                ) from error
            raise PortInUseError(
                f"{setting} is {port} and {host}:{port} cannot be listened on ({error.strerror}): "
                f"stop the process that listens there, choose another port, or 0 for a free one"
            ) from error
        claimed: int = probe.getsockname()[1]
        return claimed
