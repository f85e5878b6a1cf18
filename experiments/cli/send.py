"""`emostream send`: reactions by hand, or from standard input, to a chain that is up."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import sys
import time
import urllib.error
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from http import HTTPStatus

from experiments.cli import running
from experiments.cli.instrument import Make
from pipeline import direct_http, logs
from pipeline.errors import ClientError, SettingError
from pipeline.messages import USER_ID_MAX

ANSWER_S = 15.0
# What ingest by default accepts from one user within a second; a larger array it refuses.
BATCH_MAX = 50
TIMES_MAX = 10_000
# Ingest limits how often one user may react (rate_per_user_s): it says how long to wait, and this is the longest.
WAIT_MAX_S = 5.0
TRIES = 10
READ_BYTES = 65_536


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
    url = f"{running.url(options, 'ingest')}/reactions"
    accepted = 0
    for batch in [options.emoji] if options.emoji else _read(sys.stdin.fileno()):
        reactions = [emoji for emoji in batch for _ in range(options.times)]
        for first in range(0, len(reactions), BATCH_MAX):
            part = reactions[first : first + BATCH_MAX]
            try:
                accepted += _send(url, user, part)
            except ClientError as error:
                if accepted:
                    raise ClientError(f"{error} ({accepted} reactions before were accepted)") from error
                raise
    print(json.dumps({"accepted": accepted, "user_id": user}) if options.json else f"accepted: {accepted}")
    return 0


def _send(url: str, user: str, emoji: Sequence[str]) -> int:
    """Send these reactions, in two halves where ingest accepts only shorter arrays; return how many it accepted."""
    try:
        return _post(url, user, emoji)
    except ClientError as error:
        if error.status != HTTPStatus.REQUEST_ENTITY_TOO_LARGE or len(emoji) == 1:
            raise
        half = len(emoji) // 2
        return _send(url, user, emoji[:half]) + _send(url, user, emoji[half:])


def _post(url: str, user: str, emoji: Sequence[str]) -> int:
    """Send one request, and again after the wait that ingest demands; return how many reactions it accepted."""
    at = datetime.now(UTC).isoformat()
    body = json.dumps([{"user_id": user, "emoji_type": each, "timestamp": at} for each in emoji]).encode()
    for attempt in range(1, TRIES + 1):
        try:
            with direct_http.post(url, body, ANSWER_S) as answer:
                return int(json.load(answer)["accepted"])
        except urllib.error.HTTPError as error:
            wait_s = error.headers.get("Retry-After", "")
            if error.code in (429, 503) and wait_s.isdigit() and attempt < TRIES:
                time.sleep(min(float(wait_s), WAIT_MAX_S))
                continue
            raise ClientError(f"{url} answered {error.code}: {_reason(error)}", status=error.code) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            reason = getattr(error, "reason", None) or error
            raise ClientError(
                f"no answer of ingest from {url}: {reason}. Check that the chain is up, and the address right"
            ) from error
    raise AssertionError("the last attempt returns or raises")


def _reason(error: urllib.error.HTTPError) -> str:
    """Return the server's explanation: of the first bad reaction, where there is one."""
    try:
        problem = json.loads(error.read())
        errors = problem.get("errors") or []
        return str(errors[0]["detail"] if errors else problem["detail"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return str(error.reason)


def _read(stream: int) -> Iterator[list[str]]:
    """Yield the emoji of all lines that have arrived, until the input ends: what comes slowly is sent at once."""
    left = b""
    while chunk := os.read(stream, READ_BYTES):
        *lines, left = (left + chunk).split(b"\n")
        if batch := _words(lines):
            yield batch
    if batch := _words([left]):
        yield batch


def _words(lines: Sequence[bytes]) -> list[str]:
    words = (line.decode("utf-8", errors="replace").strip() for line in lines)
    return [word for word in words if word]


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
