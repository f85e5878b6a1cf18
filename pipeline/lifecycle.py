"""How a stage ends: on SIGTERM or SIGINT, or after the supervisor that started it has died."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from types import FrameType

import psutil

from pipeline import environment
from pipeline.errors import EmoStreamError, PortInUseError, SettingError

PARENT_PID = "EMOSTREAM_PARENT_PID"
"""The variable that holds the process id of a stage's parent, with which the stage is to end."""
PARENT_POLL_S = 0.5
# The exit status of a command that Ctrl-C ended, as a shell reports it.
INTERRUPTED = 130
# That of one that SIGTERM ended.
TERMINATED = 143
# A stage that has not ended this long after its parent's death is killed; otherwise it would run as an orphan.
ORPHAN_GRACE_S = 10.0
PID_DIGITS_MAX = 18
_holders: list[int] = []


def follow_parent(always: bool = False, grace_s: float = ORPHAN_GRACE_S) -> None:
    """End this process soon after its parent, if `EMOSTREAM_PARENT_PID` is set or `always`.

    The id is handed down, because a parent may die in the seconds before this process asks for it. Polling works on
    every POSIX system, and also after SIGKILL, which no handler can see. SIGTERM comes first, so that buffers are
    flushed. Raises SettingError if the variable holds no process id.
    """
    parent = given_parent()
    if parent is None:
        if not always:
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


def given_parent() -> int | None:
    """Return the parent's process id as `EMOSTREAM_PARENT_PID` has it, None without it. Raises SettingError."""
    text = os.environ.get(PARENT_PID, "")
    if text and not (text.isascii() and text.isdigit() and len(text) <= PID_DIGITS_MAX):
        raise SettingError(f"{PARENT_PID} is {text!r}: give the id of the process that starts this one, such as $$")
    return int(text) if text else None


def as_parent() -> dict[str, str]:
    """Return the variable by which the processes that this one starts end with it."""
    return {PARENT_PID: str(os.getpid())}


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
    environment.log_ignored()
    try:
        body()
    except EmoStreamError as error:
        sys.exit(f"{prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def listening(address: str, port: int, setting: str, backlog: int) -> socket.socket:
    """Return a socket that listens on `port`, or on a free port for 0, of an address of this machine.

    Raises PortInUseError, which names `setting`, if the port is taken, and SettingError for one that cannot be used.
    """
    listener = _bound(address, port, setting)
    listener.listen(backlog)
    return listener


def claim_port(address: str, port: int, setting: str) -> int:
    """Return `port`, or a free port for 0, of an address of this machine.

    Raises PortInUseError, which names `setting`, if the port is taken, and SettingError for one that cannot be used.
    """
    with _bound(address, port, setting) as probe:
        claimed: int = probe.getsockname()[1]
        return claimed


def hold_port(address: str, port: int, setting: str) -> int:
    """Return `port` as `claim_port` does, and keep other chains off it until this process has ended.

    The servers of ingest and the registry listen later, when Kafka is there, and share their ports with any process
    that does as they do: of two chains that started at once, each would get half of the requests, and nobody would be
    told. On systems other than Linux it only claims. Raises as `claim_port` does.
    """
    claimed = claim_port(address, port, setting)
    if sys.platform == "linux":
        for name in (_holder(claimed), _holder(claimed, os.getpid())):
            holder = _name_taken(name)
            if holder is None:
                raise PortInUseError(
                    f"{setting} is {claimed}, and another chain is about to listen there: stop that chain, choose "
                    "another port, or 0 for a free one"
                )
            # Its descriptor alone: Python would complain of a socket that nobody closes.
            _holders.append(holder.detach())
    return claimed


def stage_port(address: str, port: int, setting: str) -> int:
    """Return the port of a stage: its supervisor holds it, or the stage itself if it was started by hand.

    One that was started by hand may have a parent as well, to end with: a shell, which holds no port.
    """
    parent = given_parent()
    if sys.platform == "linux" and parent is not None:
        free = _name_taken(_holder(port, parent))
        if free is None:
            return claim_port(address, port, setting)
        free.close()
    return hold_port(address, port, setting)


def _holder(port: int, pid: int | None = None) -> str:
    """Return the name that the holder of a port takes, or the one that says which process it is."""
    return f"\0emostream-port-{port}" + ("" if pid is None else f"-of-{pid}")


def _name_taken(name: str) -> socket.socket | None:
    """Return a socket with this name, None if another has it.

    It is a name without a file: the system frees it when the last process that holds it ends.
    """
    holder = socket.socket(socket.AF_UNIX)
    try:
        holder.bind(name)
    except OSError:
        holder.close()
        return None
    return holder


def _bound(address: str, port: int, setting: str) -> socket.socket:
    server = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address == "::":
            # This machine's addresses of IPv4 as well: asyncio would leave them out, Granian does not.
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind((address, port))
    except OverflowError as error:
        server.close()
        raise SettingError(f"{setting} is {port}: give 1 to 65535, or 0 for a free port") from error
    except PermissionError as error:
        server.close()
        raise SettingError(
            f"{setting} is {port}, which this user may not use: choose a port from 1024, or 0 for a free one"
        ) from error
    except OSError as error:
        server.close()
        raise PortInUseError(
            f"{setting} is {port} and {address}:{port} cannot be listened on ({error.strerror}): "
            f"stop the process that listens there, choose another port, or 0 for a free one"
        ) from error
    return server
