"""`python -m pipeline`: errors of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import __main__ as command


@pytest.mark.parametrize(
    ("arguments", "error_text"),
    [
        ([], "usage: python -m pipeline up"),
        (["down"], "python -m pipeline scale"),
        (["scale", "--run-dir", "{}", "--subscribers", "2"], "pipeline scale: run_dir {} has no running chain"),
        (["scale", "--run-dir", "{}", "--subscribers", "2", "--cluster", "a/b"], "setting cluster"),
        (["scale", "--run-dir", "{}", "--subscribers", "2", "--cluster", "1-feed"], "must not end in -feed"),
    ],
)
def test_error_is_one_line(
    arguments: list[str], error_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command, an unknown one, no running chain, or an invalid cluster name."""
    monkeypatch.delenv("EMOSTREAM_RUN_DIR", raising=False)
    # Logging would stay configured for the whole test process.
    monkeypatch.setattr(command.logs, "configure", lambda *_: None)
    with pytest.raises(SystemExit) as caught:
        command.main([word.format(tmp_path) for word in arguments])
    assert error_text.format(tmp_path) in str(caught.value.code)


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_lists_the_commands(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard output, and without an error."""
    command.main([option])
    assert capsys.readouterr().out.startswith("usage: python -m pipeline up")


def test_shortened_option_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The name of one stage's cluster is not the number of clusters."""
    with pytest.raises(SystemExit) as caught:
        command.main(["up", "--cluster", "3"])
    assert caught.value.code == 2
    assert "unrecognized arguments: --cluster 3" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["-1", "101", "two", "½"])
def test_invalid_number_of_subscribers_exits_with_2(number: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The error has the valid range."""
    with pytest.raises(SystemExit) as caught:
        command.main(["scale", f"--subscribers={number}"])
    assert caught.value.code == 2
    assert "give a number from 0 to 100" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["up --ready-timeout-s", "scale --subscribers 1 --timeout-s"])
@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
def test_invalid_timeout_exits_with_2(option: str, seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything starts; the error has the value and what to give."""
    with pytest.raises(SystemExit) as caught:
        command.main([*option.split(), seconds])
    assert caught.value.code == 2
    assert f"timeout-s: {seconds!r}: give a finite number above 0" in capsys.readouterr().err
