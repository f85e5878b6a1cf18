"""`python -m experiments postman`: run the collection against a chain that is up, or one that is started for it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from experiments import files
from experiments.machine import machine_lock
from experiments.postman import newman
from experiments.run import chain
from pipeline import health
from pipeline.errors import ClientError, EmoStreamError, SettingError
from pipeline.shell import emostream

ANSWER_S = 10.0
# Enough for one client, and windows that come quickly.
SETTINGS = {"clusters": 1, "subscribers": 1, "trigger_s": 2.0}


def main(ingest: str, registry: str, out: Path) -> int:
    """Run the collection against these addresses (empty: a chain is started); write `out`/postman.json.

    Return the exit status: 0 if every request passed, otherwise 1. Raises EmoStreamError if newman cannot run, or if
    nothing answers at an address.
    """
    if bool(ingest) != bool(registry):
        missing, given = ("registry", "ingest") if ingest else ("ingest", "registry")
        raise SettingError(f"--{given} is given without --{missing}: give both addresses, or neither to start a chain")
    # Before a chain is started for nothing.
    node = newman.find_node()
    script = newman.installed(node)
    with _chain(ingest, registry) as addresses:
        found = newman.run(addresses, node, script)
    document = {**found, "started_a_chain": not ingest}
    with files.writing(out):
        out.mkdir(parents=True, exist_ok=True)
        files.write_text(out / "postman.json", json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    print(f"{found['requests']} requests, {found['assertions']} assertions, {found['failed']} failed")
    print(out / "postman.json")
    return 1 if found["failed"] else 0


@contextmanager
def _chain(ingest: str, registry: str) -> Iterator[Mapping[str, str]]:
    if ingest:
        addresses = {"ingest": ingest.rstrip("/"), "registry": registry.rstrip("/")}
        for stage, url in addresses.items():
            check_stage(stage, url)
        yield addresses
        return
    with (
        machine_lock.alone("The Postman collection"),
        tempfile.TemporaryDirectory(prefix="emostream-postman-") as scratch,
        chain.started(SETTINGS, Path(scratch) / "chain") as endpoints,
    ):
        yield {"ingest": endpoints.ingest, "registry": endpoints.registry}


def check_stage(stage: str, url: str) -> None:
    """Raise EmoStreamError unless `stage` answers at `url`."""
    remedy = (
        f"start a chain with `{emostream('up')}` and give the addresses that it prints, or leave out "
        "--ingest and --registry to have one started"
    )
    try:
        named = health.stage_at(url, ANSWER_S)
    except ClientError as error:
        raise EmoStreamError(f"--{stage} is {url!r}, and no {stage} answers there ({error}): {remedy}") from error
    if named != stage:
        raise EmoStreamError(f"--{stage} is {url!r}, where {named or 'another program'} answers: {remedy}")
