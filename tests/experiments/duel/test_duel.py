"""A duel: runs in turn, paired; a version that does not start is named and nothing is published; resumes."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from experiments import __main__ as command_line
from experiments.campaign import design_file
from experiments.duel import match as matches
from experiments.duel.carry_out import duel
from experiments.duel.match import Bout, Finished, Match
from experiments.duel.sides import Side, side
from experiments.machine import machine_lock
from experiments.repository import DESIGNS, ROOT
from experiments.synthetic import campaign
from pipeline.errors import EmoStreamError, SettingError

DESIGN = DESIGNS / "duel.yaml"
PROGRAM = '''
"""A stand-in for a checkout's instrument: its runs leave figures of known truth."""
import json, random, sys
from pathlib import Path
here = Path.cwd()
if "--help" in sys.argv:
    sys.exit((here / "refuses").read_text() if (here / "refuses").exists() else 0)
given = {sys.argv[i + 1]: sys.argv[i + 2] for i, word in enumerate(sys.argv) if word == "-p"}
reports, side = (Path(sys.argv[sys.argv.index(name) + 1]) for name in ("--reports", "--campaign"))
made = sorted((reports / side / "runs").glob("*"))
if (here / "dies-at").exists() and len(made) == int((here / "dies-at").read_text()):
    sys.exit("Traceback\\nRuntimeError: the chain did not start: port 9092 is taken")
run = reports / side / "runs" / f"run-{len(made) + 1}"
run.mkdir(parents=True)
own = random.Random(f"{side}:{given['seed']}:{given.get('policy')}")
shared = random.Random(given["seed"]).uniform(0.2, 0.8)
summary = json.loads((here / "summary.json").read_text())
summary["e2e_excess_p50_s"] = shared * own.uniform(0.98, 1.02) + float((here / "slower").read_text())
bad = (here / "invalid-at").exists() and len(made) == int((here / "invalid-at").read_text())
verdict = {"verdict": "INVALID" if bad else "VALID", "passed": not bad, "reasons": ["The clock stepped."] * bad}
(run / "verdict.json").write_text(json.dumps(verdict))
(run / "summary.json").write_text(json.dumps(summary))
(run / "given.json").write_text(json.dumps(given))
print("some words")
print(run / "report.html")
'''


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Make a stand-in for a checkout whose runs are `slower` by so many seconds; nothing else measures meanwhile."""
    monkeypatch.setattr(machine_lock, "FOLDER", tmp_path)
    place = tmp_path / "made"
    campaign.write_synthetic(place, levels=[{"users": 100}], blocks=1)
    summary = next(place.glob("runs/*/summary.json")).read_text()

    def make(name: str, slower: float = 0.0, **files: str) -> Path:
        folder = tmp_path / name
        (folder / "experiments").mkdir(parents=True)
        (folder / "experiments" / "__init__.py").touch()
        (folder / "experiments" / "__main__.py").write_text(textwrap.dedent(PROGRAM))
        for file, text in {"summary.json": summary, "slower": str(slower), **files}.items():
            (folder / file.replace("_", "-") if file != "summary.json" else folder / file).write_text(text)
        return folder

    return make


def test_sides_take_turns_on_the_same_reactions() -> None:
    """Each block has both sides once, next to each other, with equal parameters; which is first is drawn."""
    order = matches.bouts(design_file.load(DESIGN))
    assert [bout.index for bout in order] == list(range(12))
    pairs = [(order[i], order[i + 1]) for i in range(0, 12, 2)]
    for block, (first, second) in enumerate(pairs, 1):
        assert {first.side, second.side} == {"A", "B"}
        assert first.block == second.block == block
        assert first.parameters == second.parameters
    assert {first.side for first, _ in pairs} == {"A", "B"}
    assert len({first.parameters["seed"] for first, _ in pairs}) == 6


def test_a_slower_version_is_found_with_its_size(checkout: Callable[..., Path], tmp_path: Path) -> None:
    """60 ms on blocks that differ by hundreds: supported, and the interval holds 60 ms; page and JSON agree."""
    page = duel(str(checkout("one")), str(checkout("two", 0.06)), DESIGN, None, tmp_path / "duel")
    table = pd.read_csv(tmp_path / "duel" / "differences.csv").set_index("key")
    row = table.loc["e2e_excess_p50_s"]
    assert row["verdict"] == "supported"
    assert row["low"] < 0.06 < row["high"]
    assert row["ratio_low"] > 1
    assert row["blocks"] == 6
    result = json.loads((tmp_path / "duel" / "result.json").read_text())
    assert result["supported"] == 1
    assert any("median latency above the floor is higher in B" in sentence for sentence in result["findings"])
    text = page.read_text(encoding="utf-8")
    assert "is higher in B" in text
    assert "<script" not in text
    for link in set(re.findall(r'href="([^"#]+)"', text)):
        assert link.endswith("report.html") or (page.parent / link).is_file()


def test_a_version_against_itself_differs_in_nothing(checkout: Callable[..., Path], tmp_path: Path) -> None:
    """A/A: no difference, and what would have been found stands beside it."""
    one = checkout("one")
    duel(str(one), str(one), DESIGN, None, tmp_path / "duel")
    result = json.loads((tmp_path / "duel" / "result.json").read_text())
    assert result["supported"] == 0
    text = " ".join(result["findings"])
    assert "No difference is supported." in text
    assert re.search(r"Smallest detectable change: median latency above the floor [\d.]+ %", text)


def test_few_blocks_state_no_interval(checkout: Callable[..., Path], tmp_path: Path) -> None:
    """Two blocks on request: the runs, and no interval."""
    duel(str(checkout("one")), str(checkout("two", 0.5)), DESIGN, 2, tmp_path / "duel")
    table = pd.read_csv(tmp_path / "duel" / "differences.csv")
    assert set(table["verdict"]) == {"too few blocks"}
    assert table["low"].isna().all()
    assert len(list((tmp_path / "duel").glob("[AB]/runs/*"))) == 4


@pytest.mark.parametrize(("breaks", "name"), [(0, "A"), (1, "B")])
def test_a_version_that_does_not_start_is_refused_by_name(
    checkout: Callable[..., Path], tmp_path: Path, breaks: int, name: str
) -> None:
    """Before anything is run or written: the side, what it wrote last, and no folder."""
    words = {"refuses": "ImportError: no module named flask"}
    sides = [str(checkout(f"side-{number}", **(words if number == breaks else {}))) for number in range(2)]
    with pytest.raises(EmoStreamError, match=rf"version {name} \(.*\) does not start: ImportError: no module named"):
        duel(*sides, DESIGN, None, tmp_path / "duel")
    assert not (tmp_path / "duel").exists()


def test_a_failed_run_publishes_nothing_and_the_duel_goes_on_from_there(
    checkout: Callable[..., Path], tmp_path: Path
) -> None:
    """B dies in its third run: named with its last line, no page; once mended, only what is missing is run."""
    a, b = checkout("one"), checkout("two", dies_at="2")
    with pytest.raises(EmoStreamError, match=r"version B \(.*\) failed in block 3 \(.*port 9092 is taken"):
        duel(str(a), str(b), DESIGN, None, tmp_path / "duel")
    assert not (tmp_path / "duel" / "index.html").exists()
    made = {path.name for path in (tmp_path / "duel").glob("B/runs/*")}
    (b / "dies-at").unlink()
    assert duel(str(a), str(b), DESIGN, None, tmp_path / "duel").is_file()
    assert made == {"run-1", "run-2"}
    assert len(list((tmp_path / "duel").glob("[AB]/runs/*"))) == 12


def test_an_invalid_run_gets_a_second_chance(checkout: Callable[..., Path], tmp_path: Path) -> None:
    """Kept, listed, counted, and made again, until the third."""
    duel(str(checkout("one", invalid_at="3")), str(checkout("two")), DESIGN, None, tmp_path / "duel")
    result = json.loads((tmp_path / "duel" / "result.json").read_text())
    assert "Of seven runs of A one is invalid." in result["findings"]
    assert not any("left out" in sentence for sentence in result["findings"])
    assert len(list((tmp_path / "duel").glob("A/runs/*"))) == 7
    bout = Bout(0, "A", 1, "users=1", {"users": 1}, {})
    thrice = [Finished(0, f"run-{number}", valid=False, passed=False, reasons=[]) for number in range(3)]
    match = Match(design=design_file.load(DESIGN), design_path="", versions={}, order=[bout], runs=thrice)
    assert match.pending() == []


def test_settings_of_one_checkout_are_sides_too(checkout: Callable[..., Path], tmp_path: Path) -> None:
    """NAME=VALUE,… sets parameters of this checkout; another word is refused with both ways to say it."""
    assert side("A", "flush_ms=100, ack=durable") == Side(
        "A", "flush_ms=100, ack=durable", ROOT, {"flush_ms": "100", "ack": "durable"}
    )
    for text, words in (
        ("nowhere", "A is 'nowhere': give the folder of a checkout of EmoStream, or parameters such as flush_ms=100"),
        (str(tmp_path), "give the folder of a checkout"),
        ("flush_ms=1,flush_ms=2", "names a parameter twice"),
    ):
        with pytest.raises(SettingError, match=re.escape(words)):
            side("A", text)


def test_another_duel_in_the_same_folder_is_refused(checkout: Callable[..., Path], tmp_path: Path) -> None:
    """Other blocks, and other versions: nothing of the first is mixed with it."""
    one, two, three = (str(checkout(name)) for name in ("one", "two", "three"))
    duel(one, two, DESIGN, 1, tmp_path / "duel")
    with pytest.raises(SettingError, match="another design or number of blocks: give a new name with --campaign"):
        duel(one, two, DESIGN, 2, tmp_path / "duel")
    with pytest.raises(SettingError, match=r"version B has changed since the duel in .* began"):
        duel(one, three, DESIGN, 1, tmp_path / "duel")
    with pytest.raises(SettingError, match="--blocks is 0: give a whole number from 1"):
        duel(one, two, DESIGN, 0, tmp_path / "other")
    with pytest.raises(SettingError, match="is a search: give a design with levels"):
        duel(one, two, DESIGNS / "capacity.yaml", None, tmp_path / "other")


def test_the_command_names_the_side_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m experiments duel` ends with status 1 and the error."""
    with pytest.raises(SystemExit) as ended:
        command_line.main(["duel", "nowhere", ".", "--reports", str(tmp_path)])
    assert "experiments duel: A is 'nowhere'" in str(ended.value)
    with pytest.raises(SystemExit, match="B is 'flush=5': there is no parameter 'flush'; use one of users"):
        command_line.main(["duel", "flush_ms=500", "flush=5", "--reports", str(tmp_path)])
