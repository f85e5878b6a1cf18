"""`emostream send`: reactions by hand, or from standard input, to a chain that is up."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import secrets
import sys
import time
import urllib.error
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from http.client import HTTPException

from experiments.cli import running
from experiments.cli.instrument import Make
from experiments.units import NS_PER_MS
from pipeline import direct_http, logs
from pipeline.errors import ClientError, SettingError, plain_reason
from pipeline.messages import USER_ID_MAX

ANSWER_S = 15.0
# What ingest by default accepts from one user within a second; a larger array it refuses.
BATCH_MAX = 50
TIMES_MAX = 10_000
# Ingest limits how often one user may react (rate_per_user_s): it says how long to wait, and this is the longest.
WAIT_MAX_S = 5.0
TRIES = 10
READ_BYTES = 65_536
Numbered = tuple[int, str]
"""An emoji with the number of its line, from 1; 0 on the command line."""


def line(make: Make) -> argparse.ArgumentParser:
    """Add the parser of this command."""
    result = make(
        description="Send reactions to a chain that is up. Without an emoji they are read from standard input, one per "
        "line, and sent as they come. Prints how many ingest accepted.",
    )
    result.add_argument("emoji", nargs="*", help="an emoji, such as 😂; several are sent in one request")
    result.add_argument("--user", default="", help="the user who reacts; default: your user's name")
    result.add_argument(
        "--times", type=_times, default=1, metavar="N", help="send each emoji N times; default: %(default)s"
    )
    running.add_options(result, "ingest")
    result.add_argument("--json", action="store_true", help="print the result as one line of JSON")
    return result


def send(options: argparse.Namespace) -> int:
    """Send the reactions and print the result. Raises ClientError if ingest does not answer or refuses them."""
    logs.configure("send", "error")
    user = options.user or _user()
    if len(user) > USER_ID_MAX:
        raise SettingError(f"--user has {len(user)} characters: give at most {USER_ID_MAX}")
    sender = _Sender(f"{running.url(options, 'ingest')}/reactions", user)
    for batch in [[(0, emoji) for emoji in options.emoji]] if options.emoji else _read(_input()):
        reactions = [each for each in batch for _ in range(options.times)]
        for first in range(0, len(reactions), BATCH_MAX):
            try:
                sender.send(reactions[first : first + BATCH_MAX])
            except ClientError as error:
                raise ClientError(f"{error}; accepted so far: {sender.accepted}") from error
    accepted = sender.accepted
    print(json.dumps({"accepted": accepted, "user_id": user}) if options.json else f"accepted: {accepted}")
    return 0


class _BadReactionError(ClientError):
    """Ingest refused a request because of one reaction, at `index`; `detail` says why."""

    def __init__(self, message: str, index: int, detail: str) -> None:
        super().__init__(message, status=HTTPStatus.UNPROCESSABLE_ENTITY, detail=detail)
        self.index = index


@dataclass
class _Sender:
    """Sends reactions of one user, and counts those that ingest accepted."""

    url: str
    user: str
    accepted: int = 0

    def send(self, reactions: Sequence[Numbered]) -> None:
        """Send these reactions, in two halves where ingest accepts only shorter arrays.

        Raises ClientError. Ingest refuses the whole request for one bad line: those before it are sent again.
        """
        try:
            self.accepted += _post(self.url, self.user, [emoji for _, emoji in reactions])
        except _BadReactionError as error:
            number, _ = reactions[error.index]
            if not number:
                raise
            if error.index:
                self.send(reactions[: error.index])
            raise ClientError(f"line {number}: {error.detail}", status=error.status) from error
        except ClientError as error:
            if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or len(reactions) == 1:
                raise
            half = len(reactions) // 2
            self.send(reactions[:half])
            self.send(reactions[half:])


def _post(url: str, user: str, emoji: Sequence[str]) -> int:
    """Send one request, and again after the wait that ingest demands; return how many reactions it accepted."""
    at = datetime.now(UTC).isoformat()
    reactions = [{"user_id": user, "emoji_type": each, "timestamp": at, "reaction_id": str(_uuid7())} for each in emoji]
    body = json.dumps(reactions).encode()
    for attempt in range(1, TRIES + 1):
        try:
            with direct_http.post(url, body, ANSWER_S) as answer:
                return int(json.load(answer)["accepted"])
        except urllib.error.HTTPError as error:
            wait_s = error.headers.get("Retry-After", "")
            if error.code in (429, 503) and wait_s.isdigit() and attempt < TRIES:
                time.sleep(min(float(wait_s), WAIT_MAX_S))
                continue
            raise _refusal(url, error) from error
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
            raise ClientError(
                f"no answer of ingest from {url} ({plain_reason(error)}): check that the chain is up, and the address "
                "right"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _uuid7() -> uuid.UUID:
    """Return a UUID of version 7 (RFC 9562): time, then chance. Python has it from 3.14 on."""
    chance = secrets.randbits(12) << 64 | secrets.randbits(62)
    return uuid.UUID(int=time.time_ns() // NS_PER_MS << 80 | 0x7 << 76 | 0x2 << 62 | chance)


def _refusal(url: str, error: urllib.error.HTTPError) -> ClientError:
    """Return the error with the server's explanation: of the first bad reaction, where there is one."""
    message = f"{url} answered {error.code}: "
    try:
        problem = json.loads(error.read())
        if errors := problem.get("errors"):
            detail = str(errors[0]["detail"])
            return _BadReactionError(message + detail, int(errors[0]["index"]), detail)
        return ClientError(message + str(problem["detail"]), status=error.code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ClientError(message + str(error.reason), status=error.code)


def _read(stream: int) -> Iterator[list[Numbered]]:
    """Yield the emoji of all lines that have arrived, until the input ends: what comes slowly is sent at once."""
    left, number = b"", 1
    while chunk := os.read(stream, READ_BYTES):
        *lines, left = (left + chunk).split(b"\n")
        if batch := _words(lines, number):
            yield batch
        number += len(lines)
    if batch := _words([left], number):
        yield batch


def _input() -> int:
    """Return standard input. Raises SettingError if this process has none."""
    if sys.stdin is None:
        raise SettingError("there is no emoji, and standard input is closed: give emoji as arguments, or one per line")
    return sys.stdin.fileno()


def _words(lines: Sequence[bytes], first: int) -> list[Numbered]:
    words = ((number, line.decode("utf-8", errors="replace").strip()) for number, line in enumerate(lines, first))
    return [(number, word) for number, word in words if word]


def _user() -> str:
    """Return the user's name; a container's user may have none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user-{os.getuid()}"


def _times(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= TIMES_MAX):
        raise argparse.ArgumentTypeError(f"{text!r}: give a number from 1 to {TIMES_MAX}")
    return int(text)
