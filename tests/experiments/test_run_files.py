"""A damaged file of a run or a campaign has the same message, whichever command reads it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiments import __main__ as command_line
from experiments import run_files
from experiments.campaign import campaign_file, reanalyse, steps
from experiments.campaign import sweep as sweeping
from experiments.campaign.report import capacity, page
from experiments.machine import machine_lock
from experiments.synthetic.campaign import write_synthetic
from pipeline.errors import EmoStreamError

Damage = Callable[[Path], None]


def missing(path: Path) -> None:
    """Remove the file."""
    path.unlink()


def empty(path: Path) -> None:
    """Leave nothing in the file."""
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    """Keep the first half, as a write that was cut off does."""
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def not_text(path: Path) -> None:
    """Put bytes there that are not UTF-8."""
    path.write_bytes(b'{"campaign": "\xff\xfe"}')


def a_list(path: Path) -> None:
    """Put JSON of another type there."""
    path.write_text("[]")


def changed(**values: Any) -> Damage:
    """Return the damage that gives keys values of a wrong type."""

    def damage(path: Path) -> None:
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    damage.__name__ = f"wrong {', '.join(values)}"
    return damage


def without(key: str) -> Damage:
    """Return the damage that removes a key."""

    def damage(path: Path) -> None:
        known = json.loads(path.read_text())
        del known[key]
        path.write_text(json.dumps(known))

    damage.__name__ = f"without {key}"
    return damage


def run_outside(path: Path) -> None:
    """Give the first run a name that leads out of the campaign."""
    known = json.loads(path.read_text())
    known["runs"][0]["run"] = "../../elsewhere"
    path.write_text(json.dumps(known))


ALWAYS = [missing, empty, truncated, not_text, a_list]
CASES: list[tuple[str, Damage]] = [
    *[
        ("campaign.json", damage)
        for damage in (*ALWAYS[1:], without("runs"), changed(order=7), changed(runs=[3]), run_outside)
    ],
    *[("manifest.json", damage) for damage in (*ALWAYS, without("parameters"), changed(parameters="users=3"))],
    *[
        ("verdict.json", damage)
        for damage in (*ALWAYS, without("passed"), changed(verdict="MAYBE"), changed(slos=[{}]))
    ],
    *[
        ("summary.json", damage)
        for damage in (
            *ALWAYS,
            without("accepted"),
            changed(lost="three"),
            changed(slos=[]),
            changed(tv_distance={}),
            changed(cpu_share_spark="much"),
            changed(warm_up_why=3),
        )
    ],
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished campaign `tiny` of two runs, with its design beside it."""
    reports = tmp_path_factory.mktemp("reports")
    write_synthetic(reports / "tiny", levels=[{"users": 1}, {"users": 10}], blocks=1)
    state = campaign_file.read(reports / "tiny")
    about = json.loads((reports / "tiny" / "campaign.json").read_text())
    about["design_sha256"] = state.design.sha256
    (reports / "tiny" / "campaign.json").write_text(json.dumps(about))
    design = {key: value for key, value in about["design"].items() if value is not None}
    (reports / "tiny.yaml").write_text(yaml.safe_dump(design))
    return reports


@pytest.fixture
def reports(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `whole` to damage; the steps of a scheduler use it as well."""
    copy = shutil.copytree(whole, tmp_path / "reports")
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    monkeypatch.setattr(steps, "DESIGNS", copy)
    monkeypatch.setattr(steps, "REPORTS", copy)
    monkeypatch.setattr(sweeping, "execute", lambda *_: pytest.fail("every run is finished: none must be carried out"))
    return copy


def message(call: Callable[[], object]) -> str:
    """Return the message of the error that `call` raises, "" if it raises none."""
    try:
        call()
    except EmoStreamError as error:
        return str(error)
    except SystemExit as end:
        return str(end.code).partition(": ")[2]
    return ""


def readers(reports: Path, name: str) -> dict[str, Callable[[], object]]:
    """Return the commands that read the file `name` of a campaign or of its runs."""
    campaign = reports / "tiny"
    every: dict[str, Callable[[], object]] = {
        "report": lambda: command_line.main(["report", str(campaign)]),
        "sweep": lambda: sweeping.sweep(reports / "tiny.yaml", reports, "tiny"),
        "airflow reduce": lambda: steps.reduced("tiny", "tiny"),
        "notebook": lambda: page.read(campaign),
    }
    if name != "verdict.json":  # a comparison uses no objectives
        every["compare"] = lambda: command_line.main(["compare", str(campaign), str(campaign)])
    if name == "campaign.json":
        every["airflow plan"] = lambda: steps.planned("tiny", "tiny")
        every["capacity"] = lambda: capacity.read(campaign)
    if name == "manifest.json":
        every["report of the run"] = lambda: reanalyse.run(next((campaign / "runs").iterdir()))
    return every


@pytest.mark.parametrize(("name", "damage"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_damaged_file_has_one_message(
    reports: Path, name: str, damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every command that reads the file names it, what is wrong and the remedy, in the same words."""
    campaign = reports / "tiny"
    path = campaign / name if name == "campaign.json" else next((campaign / "runs").iterdir()) / name
    damage(path)
    before = path.read_bytes() if path.exists() else None
    messages = {command: message(call) for command, call in readers(reports, name).items()}
    text = messages["notebook"]
    assert messages == dict.fromkeys(messages, text)
    assert text.startswith(f"{path} ")
    assert "restore it from git or a copy, or " in text
    assert (path.read_bytes() if path.exists() else None) == before


def test_missing_campaign_is_named_with_the_way_to_make_one(reports: Path) -> None:
    """Report, comparison and notebook name the file; a sweep would start the campaign."""
    campaign = reports / "tiny"
    (campaign / "campaign.json").unlink()
    calls = readers(reports, "campaign.json")
    texts = {message(calls[command]) for command in ("report", "compare", "notebook", "capacity")}
    (text,) = texts
    assert text.startswith(f"{campaign / 'campaign.json'} is missing: give the directory of a campaign")
    assert "emostream sweep DESIGN" in text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "is empty"),
        ('{"verdict": "VA', "is cut off or damaged ("),
        ("[]", "is damaged: expected `object`, got `array`"),
        ('{"verdict": "VALID", "reasons": []}', "lacks `passed`"),
        ('{"verdict": "VALID", "passed": 1, "reasons": []}', "is damaged at `passed`: expected `bool`, got `int`"),
        ('{"verdict": "VALID", "passed": true, "reasons": [], "slos": [{}]}', "lacks `slos[0].key`"),
    ],
)
def test_message_says_what_is_wrong(tmp_path: Path, text: str, fault: str) -> None:
    """Empty, cut off, another type, a missing key and a key of a wrong type have different messages."""
    path = tmp_path / "verdict.json"
    path.write_text(text)
    with pytest.raises(run_files.RunFileError) as raised:
        run_files.verdict(tmp_path)
    assert str(raised.value).startswith(f"{path} {fault}")
    assert str(raised.value).endswith(run_files.REMEDY)


@pytest.mark.parametrize(
    ("encoding", "fault"),
    [
        ("utf-8-sig", None),
        ("utf-16", "is not text in UTF-8 (it is UTF-16, by its byte order mark): restore it"),
        ("cp1252", "is not text in UTF-8 (byte 0xfc in line 1, position 54, is not UTF-8"),
    ],
)
def test_file_saved_by_an_editor_is_read_or_named(tmp_path: Path, encoding: str, fault: str | None) -> None:
    """People edit these files: a byte order mark is ignored, another encoding is named."""
    text = '{"verdict": "INVALID", "passed": false, "reasons": ["für"]}'
    (tmp_path / "verdict.json").write_bytes(text.encode(encoding))
    if fault is None:
        assert run_files.verdict(tmp_path).reasons == ["für"]
        return
    with pytest.raises(run_files.RunFileError) as raised:
        run_files.verdict(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / 'verdict.json'} {fault}")


def test_directory_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    """A path that cannot be read as a file is an error of the file, not a traceback."""
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(run_files.RunFileError, match=r"summary\.json cannot be read \(Is a directory\)"):
        run_files.summary(tmp_path)
