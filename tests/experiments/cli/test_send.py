"""`emostream send` against an ingest that follows a script: what it sends, what it prints, and refusals."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.cli import __main__ as emostream
from experiments.cli import send
from pipeline.ingest import intake
from tests.harness.http import Quiet, serving
from tests.harness.processes import module, running
from tests.harness.waiting import until


class Ingest:
    """Answers each request with the next of `answers` (status, body, headers), or accepts it."""

    def __init__(self, *answers: tuple[int, dict[str, Any], dict[str, str]]) -> None:
        self.answers = list(answers)
        self.bodies: list[list[dict[str, str]]] = []
        self.url = ""


@contextmanager
def ingest(*answers: tuple[int, dict[str, Any], dict[str, str]]) -> Iterator[Ingest]:
    """An ingest on a port of its own."""
    state = Ingest(*answers)

    class Handler(Quiet):
        def do_POST(self) -> None:
            """Answer (http.server calls this)."""
            body = self.rfile.read(int(self.headers["Content-Length"]))
            # What the real one would say of the body.
            state.bodies.append(json.loads(body))
            accepted = len(intake.read(body, 1000)) if not state.answers else 0
            status, answer, headers = state.answers.pop(0) if state.answers else (202, {"accepted": accepted}, {})
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

    with serving(Handler) as state.url:
        yield state


def sent(*words: str) -> int:
    """Run `emostream send`; return its status."""
    with pytest.raises(SystemExit) as end:
        emostream.main(["send", *words])
    assert end.value.code == 0 or isinstance(end.value.code, str), end.value.code
    return 0 if end.value.code == 0 else pytest.fail(str(end.value.code))


def test_emoji_of_the_command_line_are_one_request(capsys: pytest.CaptureFixture[str]) -> None:
    """Each as often as asked for, of the user that is named."""
    with ingest() as server:
        sent("😂", "❤", "--times", "2", "--user", "ada", "--url", server.url + "/")
        (body,) = server.bodies
    assert [each["emoji_type"] for each in body] == ["😂", "😂", "❤", "❤"]
    assert {each["user_id"] for each in body} == {"ada"}
    assert capsys.readouterr().out == "accepted: 4\n"


def test_json_has_the_number_and_the_user(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By default the user is the one who runs the command."""
    monkeypatch.setattr(send.getpass, "getuser", lambda: "grace")
    with ingest() as server:
        sent("😂", "--json", "--url", server.url)
    assert json.loads(capsys.readouterr().out) == {"accepted": 1, "user_id": "grace"}


def test_user_without_a_name_has_a_number(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(send.getpass, "getuser", unknown)
    with ingest() as server:
        sent("😂", "--url", server.url)
        assert server.bodies[0][0]["user_id"] == f"user-{os.getuid()}"


def test_lines_of_standard_input_are_sent_as_they_come() -> None:
    """The first before the second is written; empty lines are none, the last needs no end."""
    with ingest() as server:
        command = module("experiments.cli", "send", "--user", "ada", "--url", server.url)
        with running(command, stdin=-1, stdout=-1, text=True, encoding="utf-8") as process:
            assert process.stdin is not None
            process.stdin.write("😂\n\n  🎉\n")
            process.stdin.flush()
            until(lambda: len(server.bodies) == 1, "the first lines are sent")
            out, _ = process.communicate("🔥")
            assert (process.returncode, out) == (0, "accepted: 3\n")
    assert [[each["emoji_type"] for each in body] for body in server.bodies] == [["😂", "🎉"], ["🔥"]]


def test_more_than_a_request_takes_are_several(capsys: pytest.CaptureFixture[str]) -> None:
    """Ingest refuses an array above one user's rate."""
    with ingest() as server:
        sent("😂", "--times", str(2 * send.BATCH_MAX + 1), "--url", server.url)
        assert [len(body) for body in server.bodies] == [send.BATCH_MAX, send.BATCH_MAX, 1]
    assert capsys.readouterr().out == f"accepted: {2 * send.BATCH_MAX + 1}\n"


def test_array_that_is_too_long_is_halved(capsys: pytest.CaptureFixture[str]) -> None:
    """Ingest may have a lower rate or a shorter array_max."""
    with ingest((413, {"detail": "split it"}, {})) as server:
        sent("😂", "--times", "5", "--url", server.url)
        assert [len(body) for body in server.bodies] == [5, 2, 3]
    assert capsys.readouterr().out == "accepted: 5\n"


def test_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A limited rate, or a full buffer; and at most the longest wait."""
    waits: list[float] = []
    monkeypatch.setattr(send.time, "sleep", waits.append)
    with ingest((429, {}, {"Retry-After": "1"}), (503, {}, {"Retry-After": "60"})) as server:
        sent("😂", "--url", server.url)
    assert waits == [1.0, send.WAIT_MAX_S]
    assert capsys.readouterr().out == "accepted: 1\n"


def test_retries_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ingest that refuses each time is an error."""
    monkeypatch.setattr(send.time, "sleep", lambda seconds: None)
    answers = [(503, {"detail": "Kafka does not answer"}, {"Retry-After": "5"})] * send.TRIES
    with ingest(*answers) as server, pytest.raises(SystemExit, match="answered 503: Kafka does not answer"):
        emostream.main(["send", "😂", "--url", server.url])


def test_refusal_has_the_reason_and_what_was_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the first bad reaction."""
    monkeypatch.setattr(send, "BATCH_MAX", 1)
    refused = {"detail": "1 of 1 is wrong", "errors": [{"index": 0, "detail": "'x' is not one emoji"}]}
    with ingest((202, {"accepted": 1}, {}), (422, refused, {})) as server, pytest.raises(SystemExit) as end:
        emostream.main(["send", "😂", "😂", "--url", server.url])
    assert end.value.code == (
        f"emostream send: {server.url}/reactions answered 422: 'x' is not one emoji; accepted so far: 1"
    )


def test_bad_line_is_named_and_those_before_it_are_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Empty lines count; the request is refused as a whole."""
    path = tmp_path / "lines"
    path.write_text("😂\n\nxx\n🎉\n", encoding="utf-8")
    refused = {"detail": "1 of 3 is wrong", "errors": [{"index": 1, "detail": "'xx' is not one emoji"}]}
    with path.open("rb") as stream, ingest((422, refused, {})) as server:
        monkeypatch.setattr(send.sys, "stdin", stream)
        with pytest.raises(SystemExit) as end:
            emostream.main(["send", "--url", server.url])
    assert end.value.code == "emostream send: line 3: 'xx' is not one emoji; accepted so far: 1"
    assert [[each["emoji_type"] for each in body] for body in server.bodies] == [["😂", "xx", "🎉"], ["😂"]]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (
            ["😂", "--url", "127.0.0.1:8000"],
            "--url is '127.0.0.1:8000': give the address of ingest as http://host:port",
        ),
        (
            ["😂", "--url", "http://127.0.0.1:9"],
            "no answer of ingest from http://127.0.0.1:9/reactions (connection refused): ",
        ),
        (["😂", "--user", "x" * 129, "--url", "http://127.0.0.1:9"], "--user has 129 characters: give at most 128"),
    ],
)
def test_mistake_is_one_line(words: list[str], error: str) -> None:
    """With status 1, before anything is sent."""
    with pytest.raises(SystemExit) as end:
        emostream.main(["send", *words])
    assert error in str(end.value.code)


def test_server_of_another_protocol_is_one_line() -> None:
    """Something answers that is not HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(SystemExit) as end:
            emostream.main(["send", "😂", "--url", f"http://127.0.0.1:{server.getsockname()[1]}"])
        thread.join()
    assert "no answer of ingest from http://127.0.0.1:" in str(end.value.code)


def test_closed_standard_input_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to send."""
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(SystemExit) as end:
        emostream.main(["send", "--url", "http://127.0.0.1:9"])
    assert "standard input is closed: give emoji as arguments" in str(end.value.code)


@pytest.mark.parametrize("times", ["0", "-1", "many", "10001"])
def test_impossible_number_exits_with_2(times: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error has the range."""
    with pytest.raises(SystemExit) as end:
        emostream.main(["send", "😂", "--times", times])
    assert end.value.code == 2
    assert "give a number from 1 to 10000" in capsys.readouterr().err


def test_bytes_that_are_not_text_are_refused_by_ingest(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """They are sent as U+FFFD, which ingest explains."""
    path = tmp_path / "bytes"
    path.write_bytes(b"\xff\n")
    with path.open("rb") as stream:
        assert list(send._read(stream.fileno())) == [[(1, "\ufffd")]]
