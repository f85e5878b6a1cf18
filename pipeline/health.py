"""`python -m pipeline.health URL`: a health check for containers, whose image has no curl."""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Sequence
from urllib.error import HTTPError

from pipeline import direct_http
from pipeline.errors import ClientError, plain_reason

TIMEOUT_S = 4.0
ERRORS = (OSError, ValueError, http.client.HTTPException)
"""What a request for a stage's health can raise: no answer, no URL, or an answer that is not HTTP or not JSON."""


def stage_at(url: str, timeout_s: float) -> str:
    """Return the name of the stage that answers at the base address `url`; empty if another program does.

    Raises ClientError with the reason alone if none answers in `timeout_s`, or it does not say how it is.
    """
    try:
        with direct_http.get(f"{url.rstrip('/')}/healthz", timeout_s) as answer:
            health = json.load(answer)
    except ERRORS as error:
        raise ClientError(plain_reason(error)) from error
    return str(health.get("stage") or "") if isinstance(health, dict) else ""


def main(argv: Sequence[str] | None = None) -> int:
    """Ask a stage how it is; return 0 if it answers 200, else 1 with the answer or the error on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.health", description="Ask a stage how it is: status 0 if it answers with 200, else 1."
    )
    parser.add_argument("url", help="the stage's /healthz, such as http://127.0.0.1:8080/healthz")
    url = parser.parse_args(argv).url
    try:
        with direct_http.get(url, TIMEOUT_S) as answer:
            healthy, text = answer.status == 200, answer.read().decode(errors="replace")
    except HTTPError as error:
        with error:
            healthy, text = False, f"status {error.code}: {error.read().decode(errors='replace')}"
    except ERRORS as error:
        healthy, text = False, str(error)
    (sys.stdout if healthy else sys.stderr).write(f"{url}: {text}\n")
    return 0 if healthy else 1


if __name__ == "__main__":
    sys.exit(main())
