"""The documents agree with the code: targets, commands, settings, parameters, files and columns."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from experiments import ledger, parameters
from experiments.analysis import analyse
from experiments.campaign import design_file
from experiments.report import run_page
from experiments.synthetic import run as synthetic
from pipeline import settings
from pipeline.supervisor.plan import stages

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGES = ("pipeline", "spark", "experiments", "deploy")
DOCS = REPOSITORY / "docs"
PAGES = {
    path.relative_to(REPOSITORY).as_posix(): path.read_text(encoding="utf-8")
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "CHANGELOG.md",
        REPOSITORY / "reports" / "README.md",
        *sorted(DOCS.glob("*.md")),
    )
}
"""Every document that is written by hand, by its path."""
README = PAGES["README.md"]
REPORTS = PAGES["reports/README.md"]
OPERATING = PAGES["docs/operating.md"]
MEASURING = PAGES["docs/measuring.md"]
CAMPAIGNS = PAGES["docs/campaigns.md"]
COMMANDS = (REPOSITORY / "commands.txt").read_text(encoding="utf-8")
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
EVERYTHING = "\n".join([*PAGES.values(), COMMANDS])
README_MAX_BYTES = 11_264
PICTURE_MAX_BYTES = 200_000

# Options beside the settings, of the stages that commands.txt starts.
OTHER_OPTIONS = {"pipeline.broker": {"port", "data_dir"}}


def entries() -> list[str]:
    """Return everything that `python -m` runs, as it is written after `-m`."""
    names = []
    for package in PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
                names.append(name.removesuffix(".__main__"))
    return names


def started_by_hand() -> list[list[str]]:
    """Return the words after `python -m` of each command in commands.txt."""
    lines = [line for line in COMMANDS.splitlines() if not line.startswith("#")]
    found = [re.match(r"python -m ([^>&]+)", line) for line in lines]
    return [shlex.split(match.group(1)) for match in found if match is not None]


@pytest.mark.parametrize("target", re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE))
def test_every_make_target_is_documented(target: str) -> None:
    """Each target has a row in the table of targets."""
    assert f"| `make {target}` |" in OPERATING


def test_every_documented_make_target_exists() -> None:
    """A `make` line in a document is one that works."""
    targets = set(re.findall(r"^\.PHONY: (\S+)$", MAKEFILE, re.MULTILINE))
    named = set(re.findall(r"(?:`|^)make ([a-z]+)", EVERYTHING, re.MULTILINE))
    assert named <= targets


@pytest.mark.parametrize("entry", entries())
def test_every_command_is_documented(entry: str) -> None:
    """Each module that can be run with `python -m` stands in the tables of commands."""
    assert re.search(rf"python -m {re.escape(entry)}[` ]", OPERATING)


def test_every_documented_command_exists() -> None:
    """Each `python -m` of ours in a document can be run."""
    pattern = rf"python3? -m ((?:{'|'.join(PACKAGES)})[\w.]*)"
    named = set(re.findall(pattern, EVERYTHING))
    assert named
    assert named <= set(entries())


def test_every_variable_beside_the_settings_is_documented() -> None:
    """Variables that are read before the settings are named too, and no misspelt ones are."""
    assert [name for name in settings.NOT_SETTINGS if name not in OPERATING] == []
    known = settings.NOT_SETTINGS | {settings.PREFIX + name.upper() for name in settings.FIELDS}
    assert set(re.findall(r"EMOSTREAM_[A-Z_]+\b(?!\*)", EVERYTHING)) <= known


@pytest.mark.parametrize("name", parameters.PARAMETERS)
def test_every_parameter_of_a_run_is_documented(name: str) -> None:
    """Each parameter of the notebook stands in the table of parameters."""
    table = MEASURING[MEASURING.index("| parameter |") :].split("\n\n")[0]
    assert f"`{name}`" in table


@pytest.mark.parametrize("name", design_file.named())
def test_every_design_is_documented(name: str) -> None:
    """Each design that comes with the project has a row in the table of designs."""
    assert f"| `{name}` |" in CAMPAIGNS


@pytest.mark.parametrize("package", PACKAGES)
def test_readme_shows_every_folder(package: str) -> None:
    """The tree in README has each package and each package in it."""
    tree = README[README.index("## Where things are") :]
    folders = [path.parent.name for path in (REPOSITORY / package).rglob("__init__.py")]
    assert [name for name in folders if not re.search(rf"^ *{name}/ ", tree, re.MULTILINE)] == []


def test_readme_is_short() -> None:
    """README fits on a few screens; everything else is in docs/."""
    assert len(README.encode()) <= README_MAX_BYTES


@pytest.mark.parametrize("name", PAGES)
def test_relative_links_lead_to_files(name: str) -> None:
    """Each relative link and picture of a document leads to a file; the site checks the headings."""
    page = REPOSITORY / name
    text = re.sub(r"^```.*?^```", "", PAGES[name], flags=re.MULTILINE | re.DOTALL)
    targets = re.findall(r"\]\((?!https?://|#)([^)#]+)", text) + re.findall(r'(?:src|srcset)="([^"]+)"', text)
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_readme_links_lead_to_headings() -> None:
    """A link from README to a heading of a document names one that is there."""
    missing = []
    for name, anchor in re.findall(r"\]\(([^)#]+\.md)#([^)]+)\)", README):
        headings = re.findall(r"^#+ (.+)$", PAGES[name], re.MULTILINE)
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        missing += [f"{name}#{anchor}"] if anchor not in slugs else []
    assert missing == []


@pytest.mark.parametrize("name", [*PAGES, "commands.txt"])
def test_documents_point_to_nothing_outside(name: str) -> None:
    """A document names no path above the repository."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    depth = len(Path(name).parts) - 1
    assert not re.search(r"(?<![./\w])" + r"\.\./" * (depth + 1), text)


@pytest.mark.parametrize("picture", sorted(DOCS.glob("images/*.png")), ids=lambda path: path.name)
def test_pictures_are_small(picture: Path) -> None:
    """A clone stays quick."""
    assert picture.stat().st_size <= PICTURE_MAX_BYTES


def test_commands_start_every_stage() -> None:
    """commands.txt starts the very processes that `python -m pipeline up` does, Kafka first."""
    plan = stages(settings.Settings(), broker_port=9092, data_dir="run/kafka")
    by_hand = started_by_hand()
    assert by_hand[0] == ["pipeline.broker", "--port", "9092", "--data-dir", "run/kafka"]
    assert sorted(stage.module for stage in plan) == sorted(words[0] for words in by_hand)
    for stage in plan:
        assert any(words[: 1 + len(stage.arguments)] == [stage.module, *stage.arguments] for words in by_hand), stage


@pytest.mark.parametrize("words", started_by_hand(), ids=" ".join)
def test_commands_use_options_that_are_there(words: list[str]) -> None:
    """Each option in commands.txt is one of its stage's, with a value that it accepts."""
    module, *rest = words
    options = {
        name.removeprefix("--").replace("-", "_"): value for name, value in zip(rest[::2], rest[1::2], strict=True)
    }
    if module in OTHER_OPTIONS:
        assert set(options) <= OTHER_OPTIONS[module]
        return
    if importlib.util.find_spec(module).submodule_search_locations is not None:
        module += ".server"
    assert set(options) <= set(importlib.import_module(module).OPTIONS)
    settings.build(options)


def test_commands_ask_where_the_stages_listen() -> None:
    """The ports that documents call are those of ingest, the registry, and the embedded Kafka by hand."""
    defaults = settings.Settings()
    called = set(re.findall(r"http://127\.0\.0\.1:(\d+)", EVERYTHING))
    assert called == {str(defaults.ingest_port), str(defaults.registry_port)}
    assert defaults.kafka.endswith(":9092")


@pytest.mark.parametrize("frame", ledger.COLUMNS)
def test_reports_readme_explains_every_column(frame: str) -> None:
    """Each column of each parquet file of a run is explained under that file's name."""
    section = REPORTS[REPORTS.index(f"**`{frame}.parquet`**") :].split("\n**`")[0]
    assert [column for column in ledger.COLUMNS[frame] if f"`{column}`" not in section] == []


def test_reports_readme_explains_the_ledger() -> None:
    """The joined ledger's columns are all named."""
    section = REPORTS[REPORTS.index("**`reactions.parquet`**") :]
    assert [column for column in ledger.REACTION_COLUMNS if f"`{column}`" not in section] == []


def test_reports_readme_names_every_file_of_a_summary() -> None:
    """Each figure and table that a report writes is named, with where it comes from."""
    run = synthetic.make_run(rate_per_s=20.0, clients=4, measured_triggers=3)
    result = analyse.analyse(run.frames, run.parameters, run.manifest)
    files = [f"{name}.csv" for name in run_page.tables(result)]
    files += [f"{name}.{kind}" for name in run_page.draw(result) for kind in ("svg", "csv")]
    assert [name for name in files if not re.search(rf"[`/]{name}`", REPORTS)] == []


def test_reports_readme_names_functions_that_exist() -> None:
    """What it names as the writer of a figure is a function of the instrument."""
    named = re.findall(r"\| `([a-z_.]+)\.([a-z_]+)` \|$", REPORTS, re.MULTILINE)
    assert len(named) > 5
    for module, function in named:
        assert callable(getattr(importlib.import_module(f"experiments.{module}"), function))
