"""Invalid requests: ingest refuses each as the table says, and what is answered otherwise is named."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import uvloop

from experiments.analysis.accuracy import answers_unexpected
from experiments.analysis.analyse import analyse
from experiments.bench.stub_server import ANSWER
from experiments.ledger import COLUMNS
from experiments.load import invalid
from experiments.load.forms import as_real_senders
from experiments.load.http1 import split
from experiments.load.schedule import poisson_plan, user_names
from experiments.load.sender import send
from experiments.load.sender_processes import part_of
from experiments.synthetic.run import make_run
from experiments.units import NS_PER_S
from pipeline.errors import EmoStreamError
from pipeline.ingest.app import create_app
from pipeline.ingest.buffer import Buffer
from pipeline.ingest.flusher import Flusher
from pipeline.ingest.reactions import Reactions
from pipeline.settings import Settings
from tests.harness.stages.doubles import MemorySink


def plan(start_ns: int = NS_PER_S, rate_per_s: float = 400.0) -> pd.DataFrame:
    """Return a plan of up to a second, with arrays."""
    made = poisson_plan(
        user_names(50), rate_per_s, start_ns, trigger_s=0.25, warm_up_triggers=1, measured_triggers=2, seed=1
    )
    return as_real_senders(made, 0.2, 0.3, 1)


@pytest.mark.parametrize("name", invalid.cases())
def test_ingest_refuses_each_case_with_its_status(name: str) -> None:
    """The expected answer is the one that ingest gives, and nothing of it is accepted."""
    buffer = Buffer(100, wake_at=100)
    flusher = Flusher(buffer, MemorySink, flush_ms=500, lead_ms=50, aligned=True)
    client = create_app(Reactions(Settings(), buffer, flusher)).test_client()
    case = invalid.cases()[name]
    answer = client.open(case.path, method=case.method, data=case.body.encode(), content_type=case.content_type)
    assert answer.status_code == case.status
    assert buffer.accepted == 0


def test_the_cases_are_of_every_kind() -> None:
    """Invalid JSON, missing and wrong fields, too much, another content type, method and path."""
    assert {case.status for case in invalid.cases().values()} == {400, 404, 405, 413, 415, 422}


def test_a_case_that_only_jmeter_can_make_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An expression of JMeter is never sent as it stands."""
    table = tmp_path / "bad-input.csv"
    table.write_text("case,stage,method,path,content_type,body,status\nodd,ingest,POST,/reactions,a,${__x(1)},400\n")
    monkeypatch.setattr(invalid, "TABLE", table)
    with pytest.raises(EmoStreamError, match=r"bad-input\.csv: the body of 'odd' is '\$\{__x\(1\)\}'"):
        invalid.cases.__wrapped__()


def test_the_share_is_of_all_requests_and_the_seed_decides() -> None:
    """Rounded; within the plan's time, in order, each with its expected status and no answer yet."""
    whole = plan(rate_per_s=4_000.0)
    frame = invalid.planned(whole, 0.2, 3)
    assert len(frame) == round(whole["request"].nunique() * 0.25)
    assert tuple(frame.columns) == COLUMNS["invalid"]
    assert set(frame["case"]) == set(invalid.cases())
    assert [invalid.cases()[name].status for name in frame["case"]] == list(frame["expected"])
    assert frame["t_intended_ns"].is_monotonic_increasing
    assert frame["t_intended_ns"].between(whole["t_intended_ns"].min(), whole["t_intended_ns"].max()).all()
    assert (frame[["t_sent_ns", "t_answered_ns", "status"]] == 0).all(axis=None)
    pd.testing.assert_frame_equal(frame, invalid.planned(whole, 0.2, 3))
    assert not frame.equals(invalid.planned(whole, 0.2, 4))
    assert invalid.planned(whole, 0.0, 3).empty


def test_several_senders_share_whole_requests() -> None:
    """Each request, array or not, belongs to one part, and the parts are the plan."""
    whole = plan()
    parts = [part_of(whole, part, 3) for part in range(3)]
    assert sorted(seq for part in parts for seq in part["seq"]) == list(whole["seq"])
    owners = pd.concat([part.assign(owner=number) for number, part in enumerate(parts)])
    assert owners.groupby("request")["owner"].nunique().eq(1).all()


class Answering(asyncio.Protocol):
    """A server that accepts reactions and refuses what has no `seen` user, with 400; it keeps each request."""

    def __init__(self, seen: list[bytes]) -> None:
        self._seen, self._received = seen, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._received += data
        while end := split(self._received)[1]:
            request, self._received = self._received[:end], self._received[end:]
            self._seen.append(request)
            good = b'"user_id":"fan-' in request
            self._transport.write(ANSWER if good else b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")


def test_invalid_requests_go_out_beside_the_plan_and_keep_their_answers() -> None:
    """Reactions of an array share their answer; an invalid request has its own, and is no reaction."""
    seen: list[bytes] = []
    whole = plan(time.time_ns() + NS_PER_S // 20)
    bad = invalid.planned(whole, 0.3, 1)

    async def run() -> tuple[pd.DataFrame, pd.DataFrame]:
        server = await asyncio.get_running_loop().create_server(lambda: Answering(seen), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        outcome = await send(whole, f"http://127.0.0.1:{port}/base", bad=bad)
        server.close()
        return outcome

    sent, answers = uvloop.run(asyncio.wait_for(run(), 30))
    assert list(sent["seq"]) == list(whole["seq"])
    assert (sent["status"] == 202).all()
    of_request = sent.merge(whole, on="seq").groupby("request")[["t_sent_ns", "t_answered_ns"]].nunique()
    assert of_request.eq(1).all(axis=None)
    assert (sent["t_sent_ns"].to_numpy() >= whole["t_intended_ns"].to_numpy()).all()
    planned = ["case", "expected", "t_intended_ns"]
    pd.testing.assert_frame_equal(answers[planned], bad[planned])
    assert (answers["status"] == 400).all()
    assert (answers["t_answered_ns"] >= answers["t_sent_ns"]).all()
    assert (answers["t_sent_ns"] >= answers["t_intended_ns"]).all()
    assert len(seen) == whole["request"].nunique() + len(bad)
    assert sorted(request for request in seen if b'"fan-' not in request) == sorted(
        invalid.request(name, "/base") for name in bad["case"]
    )
    wrong = answers_unexpected(answers)
    assert int(wrong["requests"].sum()) == int((answers["expected"] != 400).sum())


def test_an_answer_that_is_not_the_expected_one_fails_its_objective_by_name() -> None:
    """Accepted, or not answered: the objective is missed, the case is named, and no count is wrong for it."""
    run = make_run()
    plan_ = run.frames["plan"]
    bad = invalid.planned(plan_, 0.1, 1)
    right = analyse(run.frames | {"invalid": bad.assign(status=bad["expected"])}, run.parameters, run.manifest)
    assert right.summary["slos"]["answers_unexpected"]
    assert right.summary["invalid_requests"] == len(bad)
    status = bad["expected"].to_numpy().copy()
    status[:3] = [202, 0, 500]
    wrong = analyse(run.frames | {"invalid": bad.assign(status=status)}, run.parameters, run.manifest)
    assert wrong.summary["slos"] == right.summary["slos"] | {"answers_unexpected": False}
    assert wrong.summary["answers_unexpected"] == 3
    assert set(wrong.answers_unexpected["status"]) == {202, 0, 500}
    assert np.array_equal(wrong.reactions["status"], right.reactions["status"])
