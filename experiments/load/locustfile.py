"""A closed-loop load by Locust: each fan waits for its answer, thinks, and reacts again.

`make locust` opens its web page, http://127.0.0.1:8089, for a chain that is up. Beside the fans there are viewers, who
watch, and users who send bad input; a run has fans only. With `--ledger DIR` it prints `start <ns>`
when the load begins, and leaves `plan.parquet` and `sent.parquet` as an open-loop run does, where a reaction's intended
time is the time of its send: nothing is planned.

Locust patches its process for gevent, which breaks Kafka clients: nothing here may import one.
"""

from __future__ import annotations

import itertools
import random
import sys
import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

# Locust puts this file's folder first on the path during this import: our modules would hide modules of the standard
# library. The repository's root is needed instead, wherever Locust was started.
if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import gevent  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
from locust import FastHttpUser, constant, events, task
from locust.env import Environment
from locust.exception import StopUser
from locust.runners import LocalRunner

from experiments import files
from experiments.load.schedule import POPULAR_EMOJIS, popularity, timestamp_of
from experiments.units import NS_PER_S, NS_PER_US
from pipeline import health
from pipeline.errors import ClientError

# As in the open loop: a longer answer counts as no answer.
ANSWER_S = 30.0
# (body, status) of requests that ingest has to refuse.
# How long a stage may take to say that it is up.
ANSWER_S = 5.0
BAD_INPUT = (
    ("{'user_id': 'ada'}", 400),
    ('{"user_id": "ada", "timestamp": "2026-11-29T12:00:00Z"}', 422),
    ('{"user_id": "ada", "emoji_type": "joy", "timestamp": "2026-11-29T12:00:00Z"}', 422),
    ('{"user_id": "ada", "emoji_type": "😂", "timestamp": "2026-11-29T12:00:00 CET"}', 422),
)


class Ledger:
    """Every request of this process in the order sent; a request without an answer has status 0."""

    def __init__(self) -> None:
        self.start_ns = 0
        self.end_ns = 0
        self._measured_ns = 0
        self._after_ns = 0
        self._rows: list[list[Any]] = []

    def begin(self, start_ns: int, warm_up_s: float, load_s: float, after_s: float = 0.0) -> None:
        """Let the load last from `start_ns` for `load_s` (0: until stopped), of which the first `warm_up_s` warm up,
        and the last `after_s` come after the measurement.
        """
        self.start_ns = start_ns
        self._measured_ns = start_ns + round(warm_up_s * NS_PER_S)
        self.end_ns = start_ns + round(load_s * NS_PER_S) if load_s else 0
        self._after_ns = self.end_ns - round(after_s * NS_PER_S)

    def sent(self, user_id: str, emoji_type: str, t_sent_ns: int) -> int:
        """Record a request that is sent now; return its `seq`."""
        self._rows.append([user_id, emoji_type, t_sent_ns, 0, 0])
        return len(self._rows) - 1

    def answered(self, seq: int, status: int, t_answered_ns: int) -> None:
        """Record the answer of request `seq`."""
        self._rows[seq][3:] = [t_answered_ns, status]

    def plan(self) -> pd.DataFrame:
        """Return the `plan` frame."""
        user_id, emoji_type, sends = self._columns(0, 1, 2)
        t_sent_ns = np.asarray(sends, dtype=np.int64)
        after = (t_sent_ns >= self._after_ns) & (self._after_ns > 0)
        phase = np.select([t_sent_ns < self._measured_ns, after], ["warm-up", "after"], "measured")
        return pd.DataFrame(
            {
                "seq": np.arange(len(self._rows), dtype=np.int64),
                "user_id": np.asarray(user_id, dtype=object),
                "emoji_type": np.asarray(emoji_type, dtype=object),
                "t_intended_ns": t_sent_ns,
                "phase": phase.astype(object),
            }
        )

    def sends(self) -> pd.DataFrame:
        """Return the `sent` frame."""
        columns = (np.asarray(column, dtype=np.int64) for column in self._columns(2, 3, 4))
        seq = np.arange(len(self._rows), dtype=np.int64)
        return pd.DataFrame({"seq": seq, **dict(zip(("t_sent_ns", "t_answered_ns", "status"), columns, strict=True))})

    def write(self, directory: Path) -> None:
        """Write `sent.parquet` and `plan.parquet` into `directory`."""
        files.to_parquet(self.sends(), directory / "sent.parquet")
        files.to_parquet(self.plan(), directory / "plan.parquet")

    def _columns(self, *which: int) -> list[list[Any]]:
        return [[row[index] for row in self._rows] for index in which]


ledger = Ledger()
_numbers = itertools.count()


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def _options(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("EmoStream")
    group.add_argument("--registry", default="http://127.0.0.1:8080", help="base URL of the registry, for viewers")
    group.add_argument("--think-s", type=float, default=1.0, help="mean wait from an answer to the next reaction")
    group.add_argument("--popularity", default="zipf", choices=("zipf", "uniform"), help="popularity of the emoji")
    group.add_argument("--seed", type=int, default=1, help="seed of the choice of emoji and of the waits")
    group.add_argument("--ledger", default="", help="directory for plan.parquet and sent.parquet, written at the end")
    group.add_argument("--start-after-s", type=float, default=0.0, help="seconds to wait before the first reactions")
    group.add_argument("--warm-up-s", type=float, default=0.0, help="seconds of it that the ledger calls warm-up")
    group.add_argument("--after-s", type=float, default=0.0, help="of which the last, not measured, seconds")
    group.add_argument("--load-s", type=float, default=0.0, help="length of the load, seconds; 0: until stopped")


@events.init.add_listener  # type: ignore[untyped-decorator]
def _begin(environment: Environment, **_: Any) -> None:
    options = _of(environment)
    if not options.think_s > 0:
        sys.exit(f"locustfile: --think-s is {options.think_s}: give more than 0 seconds")
    if not options.ledger:
        # By hand: a run knows its chain.
        _check_answers("--host", environment.host or "")
        _check_answers("--registry", options.registry)
        return
    directory = Path(options.ledger)
    if not directory.is_dir():
        sys.exit(f"locustfile: --ledger is {options.ledger!r}, which is not a directory: create it")
    if not isinstance(environment.runner, LocalRunner):
        sys.exit("locustfile: --ledger is written by one process: leave out --master, --worker and --processes")
    environment.events.quit.add_listener(lambda **_: ledger.write(directory))  # type: ignore[no-untyped-call]


def _check_answers(option: str, url: str) -> None:
    """End with an error if no stage answers at the address that `option` gives."""
    try:
        health.stage_at(url, ANSWER_S)
    except ClientError as error:
        sys.exit(
            f"locustfile: {option} is {url!r}, where no stage of a chain answers ({error}): start one with "
            f"`emostream up`, or give its address with {option}"
        )


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def _start(environment: Environment, **_: Any) -> None:
    options = _of(environment)
    start_ns = time.time_ns() + round(options.start_after_s * NS_PER_S)
    ledger.begin(start_ns, options.warm_up_s, options.load_s, options.after_s)
    if options.ledger:
        print(f"start {ledger.start_ns}", flush=True)
    if options.load_s:
        gevent.spawn(_stop, environment)


def _stop(environment: Environment) -> None:
    """Stop at the end of the load; Locust's own run time counts from its start, which takes a varying time."""
    while time.time_ns() < ledger.end_ns:
        time.sleep(0.1)
    assert environment.runner is not None
    environment.runner.quit()


def _of(environment: Environment) -> Any:
    """Return the parsed options; Locust types them as optional, but they are absent only if it is used as a library."""
    return environment.parsed_options


class Fan(FastHttpUser):
    """Posts one reaction, waits for the answer, thinks, and repeats: never more than one request under way."""

    weight = 20
    network_timeout = ANSWER_S
    connection_timeout = ANSWER_S

    def on_start(self) -> None:
        """Choose a user id and a seed; think once, so that users who start together do not stay together."""
        options = _of(self.environment)
        number = next(_numbers)
        self._user_id = f"fan-{number:04d}"
        self._random = random.Random(f"{options.seed}-{number}")
        self._shares = popularity(options.popularity, len(POPULAR_EMOJIS)).cumsum().tolist()
        self._last_us = 0
        # Locust has patched this sleep: the other users go on meanwhile.
        time.sleep(max(0.0, ledger.start_ns / NS_PER_S - time.time()) + self.wait_time())

    def wait_time(self) -> float:
        """Return how long to think, seconds: exponential, so that users are independent of one another."""
        return self._random.expovariate(1 / _of(self.environment).think_s)

    @task
    def react(self) -> None:
        """Post one reaction; any status but 202 is a failure."""
        # Even if the clock steps back, no two reactions of a user share a microsecond, which identifies them.
        sent_ns = max(time.time_ns(), (self._last_us + 1) * NS_PER_US)
        if ledger.end_ns and sent_ns >= ledger.end_ns:
            raise StopUser
        self._last_us = sent_ns // NS_PER_US
        emoji_type = self._random.choices(POPULAR_EMOJIS, cum_weights=self._shares)[0]
        reaction = {"user_id": self._user_id, "emoji_type": emoji_type, "timestamp": timestamp_of(sent_ns)}
        seq = ledger.sent(self._user_id, emoji_type, sent_ns)
        with self.client.post("/reactions", json=reaction, catch_response=True) as answer:
            # Locust gives status 0 to a missing response.
            if answer.status_code:
                ledger.answered(seq, answer.status_code, time.time_ns())
            if answer.status_code == 202:
                answer.success()
            elif answer.status_code:
                answer.failure(f"answered {answer.status_code} instead of 202")
            else:
                answer.failure(f"no answer: {answer.error!r}")


class Viewer(FastHttpUser):
    """Registers as a client, polls for the next windows again and again, and leaves when it is stopped."""

    weight = 2
    network_timeout = ANSWER_S
    connection_timeout = ANSWER_S

    def on_start(self) -> None:
        """Register; a viewer without a registration stops."""
        self._clients = f"{_of(self.environment).registry}/clients"
        with self.client.post(
            self._clients, json={"transport": "poll"}, name="/clients", catch_response=True
        ) as answer:
            if answer.status_code != 201:
                answer.failure(f"answered {answer.status_code} instead of 201: {answer.text}")
                raise StopUser
            client = answer.json()
        self._id, self._stream, self._after = client["client_id"], client["stream_url"], client["last_event_id"]
        self._token = {"Authorization": f"Bearer {client['token']}"}

    @task
    def watch(self) -> None:
        """Ask for the next windows: the answer comes as soon as there is one, within 25 s, by way of a redirect."""
        url = f"{self._stream}?after={self._after}"
        with self.client.get(url, headers=self._token, name="next windows", catch_response=True) as answer:
            if answer.status_code == 200:
                self._after = answer.json()["after"]
            else:
                answer.failure(f"answered {answer.status_code} instead of 200: {answer.text}")
                # Whoever is refused comes back later.
                time.sleep(1)

    def on_stop(self) -> None:
        """Leave."""
        if hasattr(self, "_token"):
            self.client.delete(f"{self._clients}/{self._id}", headers=self._token, name="/clients/{id}")


class Careless(FastHttpUser):
    """Sends bad input once per second; a refusal as expected is a success."""

    weight = 1
    network_timeout = ANSWER_S
    connection_timeout = ANSWER_S
    wait_time = constant(1)

    @task
    def send_bad_input(self) -> None:
        """Send one of the requests of `BAD_INPUT`."""
        body, status = random.choice(BAD_INPUT)
        headers = {"Content-Type": "application/json"}
        with self.client.post(
            "/reactions", data=body, headers=headers, name=f"refused {status}", catch_response=True
        ) as answer:
            if answer.status_code == status:
                answer.success()
            else:
                answer.failure(f"answered {answer.status_code} instead of {status}")
