"""`python -m experiments postman`: its errors, its file and its exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.postman import command, newman
from pipeline.errors import SettingError
from pipeline.lifecycle import claim_port
from tests.harness.http import Quiet, serving

FOUND = {"requests": 5, "assertions": 9, "failed": 0}


@contextmanager
def answering(body: bytes) -> Iterator[str]:
    """Serve `body` at every path; yield the address."""

    class Stage(Quiet):
        def do_GET(self) -> None:
            """Answer (http.server calls this)."""
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

    with serving(Stage) as url:
        yield url


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """The addresses of each run of newman, which does not start."""
    made: list[dict[str, str]] = []

    def run(addresses: dict[str, str], *_: object) -> dict[str, Any]:
        made.append(dict(addresses))
        return FOUND

    monkeypatch.setattr(newman, "run", run)
    monkeypatch.setattr(newman, "installed", lambda node: Path("newman.js"))
    return made


def test_one_address_alone_is_refused(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    """It would be tested with a chain of another."""
    for given, missing in (("ingest", "registry"), ("registry", "ingest")):
        addresses = {"ingest": "", "registry": "", given: "http://127.0.0.1:8000"}
        with pytest.raises(SettingError, match=f"--{given} is given without --{missing}: give both addresses"):
            command.main(**addresses, out=tmp_path)
    assert not runs


def test_nothing_at_an_address_is_one_line_with_a_remedy(tmp_path: Path, runs: list[dict[str, str]]) -> None:
    """Newman does not start, and no file is written."""
    url = f"http://127.0.0.1:{claim_port('127.0.0.1', 0, 'port')}"
    reason = rf"^experiments postman: --ingest is '{url}', and no ingest answers there \("
    with pytest.raises(SystemExit, match=reason) as ended:
        main(["postman", "--ingest", url, "--registry", url, "--reports", str(tmp_path / "reports")])
    assert "start a chain with `emostream up`" in str(ended.value)
    assert not (tmp_path / "reports").exists()
    assert not runs


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"stage": "registry"}', "where registry answers"),
        (b"[1]", "where another program answers"),
        (b"<!doctype html>", "and no ingest answers there"),
    ],
)
def test_another_stage_at_an_address_is_named(tmp_path: Path, body: bytes, named: str) -> None:
    """Two addresses are easily swapped."""
    with answering(body) as url, pytest.raises(SystemExit, match=named):
        main(["postman", "--ingest", url, "--registry", url, "--reports", str(tmp_path)])


@pytest.mark.parametrize("failed", [0, 2])
def test_figures_are_written_and_failures_are_the_exit_status(
    tmp_path: Path, runs: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, failed: int
) -> None:
    """The file has them in either case."""
    monkeypatch.setitem(FOUND, "failed", failed)
    with answering(b'{"stage": "ingest"}') as ingest, answering(b'{"stage": "registry"}') as registry:
        with pytest.raises(SystemExit) as ended:
            main(["postman", "--ingest", f"{ingest}/", "--registry", registry, "--reports", str(tmp_path)])
        assert runs == [{"ingest": ingest, "registry": registry}]
    assert ended.value.code == (1 if failed else 0)
    written = json.loads((tmp_path / "bench" / "postman.json").read_bytes())
    assert written == {**FOUND, "failed": failed, "started_a_chain": False}
