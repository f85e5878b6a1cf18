"""The closed loop: Locust's ledger against what a server saw, and how a run cuts it."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pandas as pd
import pytest

from experiments import ledger
from experiments.load import closed_loop
from experiments.load.schedule import POPULAR_EMOJIS, timestamp_of
from experiments.parameters import Parameters
from experiments.units import NS_PER_S
from pipeline.errors import EmoStreamError

REFUSED, CUT = 7, 12  # the server answers one request with 503, and hangs up on another


class Ingest(BaseHTTPRequestHandler):
    """Stands for ingest: notes every reaction and answers 202, but for two."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        """Note the reaction, then answer it as its number asks for."""
        reaction = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            number = len(self.server.seen)
            status = {REFUSED: 503, CUT: 0}.get(number, 202)
            self.server.seen.append({**reaction, "status": status, "path": self.path})
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        """Requests are no news."""


@pytest.fixture(scope="module")
def server():
    """A server in this process, with all it was sent in `seen`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Ingest) as server:
        server.seen, server.lock, server.url = [], threading.Lock(), f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def load(server, tmp_path_factory):
    """Eight fans for two triggers of a second, by Locust: (parameters, told steps, plan, sent)."""
    place = tmp_path_factory.mktemp("closed")
    parameters = Parameters(
        users=8, think_s=0.1, trigger_s=1.0, warm_up_triggers=1, measured_triggers=1, loop="closed", seed=3
    )
    told = []
    closed_loop.run(parameters, server.url, place, lambda *step: told.append(step))
    plan, sent = (pd.read_parquet(place / f"{name}.parquet") for name in ("plan", "sent"))
    return parameters, told, plan, sent


def test_every_request_is_in_the_ledger_once(server, load):
    """What the server saw and what the ledger holds are the same reactions, each once, under the same name."""
    _, _, plan, _ = load
    seen = pd.DataFrame(server.seen)
    assert set(seen["path"]) == {"/reactions"}
    noted = plan.assign(timestamp=plan["t_intended_ns"].map(timestamp_of))
    names = ["user_id", "emoji_type", "timestamp"]
    assert len(noted) > 8
    assert sorted(noted[names].itertuples(index=False, name=None)) == sorted(
        seen[names].itertuples(index=False, name=None)
    )
    assert not noted.duplicated(["user_id", "timestamp"]).any()


def test_a_refused_and_an_unanswered_request_are_recorded_as_such(server, load):
    """A 503 is in the ledger as 503, a connection that was cut as 0, and all others as 202."""
    _, _, plan, sent = load
    rows = plan.merge(sent, on="seq").assign(timestamp=lambda rows: rows["t_intended_ns"].map(timestamp_of))
    both = rows.merge(pd.DataFrame(server.seen), on=["user_id", "timestamp"], suffixes=("", "_seen"))
    assert (both["status"] == both["status_seen"]).all()
    assert sorted(both["status"].unique()) == [0, 202, 503]
    assert (both.loc[both["status"] == 0, "t_answered_ns"] == 0).all()


def test_the_ledger_has_the_format_of_an_open_loop(load):
    """Columns, types and order are those that the rest of the instrument reads; intended is sent."""
    _, _, plan, sent = load
    assert tuple(plan.columns) == ledger.COLUMNS["plan"]
    assert tuple(sent.columns) == ledger.COLUMNS["sent"]
    assert list(plan["seq"]) == list(range(len(plan))) == list(sent["seq"])
    assert (plan["t_intended_ns"] == sent["t_sent_ns"]).all()
    assert plan["t_intended_ns"].is_monotonic_increasing
    assert set(plan["emoji_type"]) <= set(POPULAR_EMOJIS)


def test_each_user_waits_for_its_answer(load):
    """No user has two requests under way at once."""
    _, _, plan, sent = load
    rows = plan.merge(sent, on="seq")
    assert rows["user_id"].nunique() == 8
    for _, own in rows[rows["status"] > 0].groupby("user_id"):
        assert (own["t_sent_ns"].iloc[1:].to_numpy() >= own["t_answered_ns"].iloc[:-1].to_numpy()).all()


def test_phases_last_whole_triggers(load):
    """Warm-up, measurement and the trigger after it follow one another, and are no longer than their triggers."""
    parameters, told, plan, _ = load
    spans = plan.groupby("phase", sort=False)["t_intended_ns"].agg(["min", "max"])
    assert list(spans.index) == ["warm-up", "measured", "after"]
    assert (spans["max"] - spans["min"] < parameters.trigger_s * NS_PER_S).all()
    assert spans["max"].iloc[0] < spans["min"].iloc[1]
    assert next(what for what, _ in told) == "warming up"


def test_a_load_that_fails_names_its_log(tmp_path, monkeypatch):
    """Locust's own words are kept, and the error says where."""
    monkeypatch.setattr(closed_loop, "LOCUSTFILE", tmp_path / "absent.py")
    parameters = Parameters(users=1, trigger_s=0.5, warm_up_triggers=1, measured_triggers=1, loop="closed")
    with pytest.raises(EmoStreamError, match=r"failed with status \d+: see .*locust\.log"):
        closed_loop.run(parameters, "http://127.0.0.1:9", tmp_path, lambda *_: None)
    assert "absent.py" in (tmp_path / "locust.log").read_text()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--think-s", "0"], "--think-s is 0.0"),
        (["--ledger", "/nowhere"], "'/nowhere', which is not a directory"),
        (["--ledger", ".", "--master"], "written by one process"),
    ],
)
def test_impossible_options_are_named(options, named):
    """A bad option ends Locust at once with the option and what to do."""
    command = [sys.executable, "-m", "locust", "-f", str(closed_loop.LOCUSTFILE), "--headless", "--host", "http://x"]
    ended = subprocess.run([*command, *options], capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode != 0
    assert named in ended.stderr


def test_locust_is_kept_apart_from_kafka():
    """Locust's patched process imports no client of Kafka and none of the chain's carriers."""
    code = (
        "import sys, runpy; runpy.run_path(sys.argv[1]); "
        "print(*{name.split('.')[0] for name in sys.modules} & {'kafka', 'confluent_kafka', 'aiohttp', 'pyspark'})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(closed_loop.LOCUSTFILE)],
        capture_output=True,
        text=True,
        timeout=240,
        check=True,
    )
    assert ended.stdout.strip() == ""


def test_chain_that_is_not_up_is_named_before_the_page_opens():
    """By hand: nothing answers at the address."""
    line = ["-f", str(closed_loop.LOCUSTFILE), "--web-port", "0", "--host", "http://127.0.0.1:9"]
    done = subprocess.run(
        [sys.executable, "-m", "locust", *line],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 1
    assert (
        "locustfile: --host is 'http://127.0.0.1:9', where no stage of a chain answers (connection refused): start"
        in done.stderr
    )
