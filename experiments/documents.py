"""The generated parts of the Markdown documents: `python -m experiments docs` writes them, with --check it compares.

A generated part is between `<!-- NAME -->` and `<!-- /NAME -->`, in any Markdown file of the repository; NAME is one of
BLOCKS. The marker of `answers` names a route, as in `<!-- answers GET /healthz ingest -->`. The figures of a run come
from the directory in the marker, as in `<!-- figures reports/single/runs/ID -->`, or from the command line. Without
either they stay as they are, since a checkout has no runs but the reference.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from experiments import files, http_tables, run_files
from experiments.campaign import campaign_file, design_file
from experiments.campaign.design import Design, order
from experiments.campaign.report import capacity, provenance, read
from experiments.campaign.report.estimates import believed, estimates
from experiments.campaign.report.levels import layout
from experiments.cli import reference as command_line
from experiments.instrument import table
from experiments.parameters import Parameters, command_of
from experiments.report.format import DASH, seconds, whole
from experiments.repository import DESIGNS, REPORTS, ROOT
from experiments.stats.bootstrap import FEWEST_RUNS
from pipeline import settings
from pipeline.errors import SettingError

REFERENCE = REPORTS / "reference"
DELIVERY = REPORTS / "bench" / "delivery.json"
SEARCH = REPORTS / "bench" / "search.json"
INSTRUMENT = REPORTS / "bench" / "instrument.json"
STEADY = REPORTS / "bench" / "steady.json"
SKIPPED = {".git", ".venv", "node_modules", "build", "dist", "_build", "run"}
LEVEL_FIGURES = (
    ("e2e_excess_p50_s", "median above the floor", "{:.2f} s"),
    ("e2e_excess_p99_s", "p99 above the floor", "{:.2f} s"),
    ("headroom", "micro-batch over interval, p95", "{:.1%}"),
)
POLICY_FIGURES = (
    ("representation_error", "representation error", "{:.0%}"),
    ("tv_distance", "mix shown against counted", "{:.3f}"),
)
"""The figures quoted of each level of a reference campaign: of one whose policy varies, and of any other."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Where a generated part is: its document, what its marker names, and the run that its figures come from."""

    document: Path
    run_dir: Path | None = None
    named: str = ""


def update(
    documents: Sequence[Path] = (), *, check: bool = False, run_dir: Path | None = None, root: Path = ROOT
) -> list[Path]:
    """Write the generated parts of `documents` (default: all below `root`); return the documents that were not current.

    With `check` nothing is written. `run_dir` is the run for figures whose marker names none. Raises SettingError for a
    marker without its end, RunFileError for a damaged file of a run.
    """
    stale = []
    for document in documents or sorted(_documents(root)):
        try:
            text = document.read_text(encoding="utf-8")
        except OSError as error:
            raise SettingError(
                f"document {document} cannot be read ({error.strerror}): give the path of a Markdown file"
            ) from error
        current = generated(text, document, run_dir)
        if current == text:
            continue
        stale.append(document)
        if not check:
            files.write_text(document, current)
    return stale


def generated(text: str, document: Path, run_dir: Path | None = None) -> str:
    """Return the `text` of a document with its generated parts as they should be. Raises as `update` does."""
    for name, block in BLOCKS.items():
        pattern = re.compile(rf"(<!-- {name}\b([^>]*)-->\n)(.*?)(<!-- /{name} -->)", re.DOTALL)
        opened = len(re.findall(rf"^<!-- {name}\b[^>]*-->$", text, re.MULTILINE))
        if opened != len(pattern.findall(text)):
            raise SettingError(f"{document} has <!-- {name} --> without its end: add <!-- /{name} --> below it")

        def replaced(match: re.Match[str], block: Callable[[Part], str | None] = block) -> str:
            named = match.group(2).strip()
            run = ROOT / named if named and not named.startswith(":") else run_dir
            body = block(Part(document, run, named))
            return match.group(1) + (match.group(3) if body is None else body) + match.group(4)

        text = pattern.sub(replaced, text)
    return text


def _documents(root: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in SKIPPED]
        yield from (Path(folder) / name for name in names if name.endswith(".md"))


def settings_table(part: Part) -> str:
    """Return the table of the chain's settings."""
    rows = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, field in settings.FIELDS.items():
        metas = [meta for meta in getattr(field.type, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]
        description = next(meta.description for meta in reversed(metas) if meta.description)
        default = "empty" if field.default == "" else f"`{field.default}`"
        rows.append(f"| `{name}` | {default} | {description.replace('|', '/').replace('<', '&lt;')} |")
    return _lines(rows)


def designs_table(part: Part) -> str:
    """Return the table of the designs that come with the project."""
    rows = ["| design | what it asks | levels | runs |", "| --- | --- | --- | --- |"]
    for name in design_file.named():
        design = design_file.unrehearsed(DESIGNS / f"{name}.yaml")
        rows.append(f"| `{name}` | {design.about} | {_extent(design)} |")
    return _lines(rows)


def commands(part: Part) -> str:
    """Return every command and option."""
    return command_line.reference()


def _extent(design: Design) -> str:
    if design.search is not None:
        return f"a search over `{design.search.factor}` | as many as it needs"
    return f"{len(design.levels)} of {', '.join(f'`{name}`' for name in design.factors)} | {len(order(design))}"


def routes_table(part: Part) -> str:
    """Return the table of every HTTP route."""
    return _lines(http_tables.routes())


def answers_table(part: Part) -> str:
    """Return the table of a route's answers. Raises SettingError for a route that no OpenAPI document has."""
    try:
        return _lines(http_tables.answers(part.named))
    except ValueError as error:
        raise SettingError(f"{part.document}: <!-- answers {part.named} -->: {error}") from error


def run_figures(part: Part) -> str | None:
    """Return the figures of one run, with its command and machine; None where no run is named.

    Raises SettingError for an INVALID run, RunFileError for a damaged one.
    """
    if part.run_dir is None:
        return None
    summary, manifest = run_files.summary(part.run_dir), run_files.manifest(part.run_dir)
    if not summary["valid"]:
        word = "UNSTEADY" if summary.get("unsteady") else "INVALID"
        raise SettingError(f"{part.run_dir} is {word}: name a valid run, as its figures are not to be quoted")
    given = manifest["parameters"]
    defaults = dataclasses.asdict(Parameters())
    # Objectives only judge what was measured, and a chain that was up is not up again.
    kept = {name: value for name, value in given.items() if name not in ("slos", "attach")}
    changed = command_of({name: value for name, value in kept.items() if value != defaults.get(name)})
    missed = [name for name, met in summary["slos"].items() if not met]
    rows = [
        f"`{changed}`: {given['users']} users, {given['rate_per_s']:g} reactions per second, "
        f"{given['clients']} clients, on {manifest['cores']} cores ({manifest['cpu']}, {manifest['kernel']}), "
        f"commit {_commit(manifest)}.",
        "",
        "| what | measured | for comparison |",
        "| --- | --- | --- |",
    ]
    for name, words in (("p50", "tap to screen, median"), ("p99", "tap to screen, 99 in 100 within")):
        rows.append(f"| {words} | {seconds(summary[f'e2e_{name}_s'])} | floor {seconds(summary[f'floor_{name}_s'])} |")
    rows += [
        f"| micro-batch, median | {seconds(summary['batch_p50_s'])} | one every {given['trigger_s']:g} s |",
        f"| micro-batch, p95 of {summary['batches']} | {seconds(summary['batch_p95_s'])} | objective: at most 0.6 s |",
        f"| reactions counted | {whole(summary['counted'])} | {whole(summary['accepted'])} accepted |",
        f"| counts that agree with the recount | {whole(summary['oracle_equal'])} | {whole(summary['oracle_cells'])} |",
        f"| deliveries missing or doubled | {whole(summary['deliveries_missing'] + summary['deliveries_duplicate'])} "
        f"| {whole(summary['deliveries_due'])} due |",
        f"| from start to ready | {manifest['ready_s']:.0f} s | |",
        "",
        f"Objectives missed: {', '.join(f'`{name}`' for name in missed)}." if missed else "All objectives were met.",
    ]
    return _lines(rows)


def reference(part: Part) -> str:
    """Return the findings of the reference campaigns, with links from the document."""
    parts = []
    for directory in sorted(path.parent for path in REFERENCE.glob("*/campaign.json")):
        state = campaign_file.read(directory)
        runs = read.runs(directory)
        manifests = [run_files.manifest(directory / "runs" / run) for run in runs["run"]]
        link = os.path.relpath(directory / "index.html", part.document.parent).replace(os.sep, "/")
        unfinished = "" if state.ended else ", not finished"
        head = (
            f"`python -m experiments sweep experiments/designs/{state.design.name}.yaml`: {state.design.about} "
            f"{len(runs)} runs, {int(runs['valid'].sum())} of them VALID and {int(runs['unsteady'].sum())} "
            f"UNSTEADY{unfinished}; "
            f"commit {', '.join(sorted(set(map(_commit, manifests))))}. [Report]({link})"
        )
        body = _capacity(directory) if state.searches else _levels(state, runs)
        parts.append("\n\n".join([head, *provenance.first_edition(runs), body]))
    return "\n\n".join(parts) + "\n"


def _capacity(directory: Path) -> str:
    return "\n".join(f"- {sentence}" for sentence in capacity.read(directory).sentences())


def _levels(state: campaign_file.State, runs: pd.DataFrame) -> str:
    levels = layout(state).levels
    figures = POLICY_FIGURES if "policy" in state.design.factors else LEVEL_FIGURES
    table = estimates(believed(runs), levels, [key for key, _, _ in figures])
    rows = ["| " + " | ".join(["level", "runs", *(words for _, words, _ in figures)]) + " |"]
    rows.append("| --- |" + " --- |" * (len(figures) + 1))
    for level, words in zip(levels["level"], levels["words"], strict=True):
        of_level = table[table["level"] == level].set_index("key")
        cells = [_cell(of_level.loc[key], form) for key, _, form in figures]
        rows.append("| " + " | ".join([words, str(int(of_level["runs"].max())), *cells]) + " |")
    return "\n".join(rows)


def _cell(row: Any, form: str) -> str:
    if row["runs"] == 0:
        return DASH
    if row["runs"] < FEWEST_RUNS or pd.isna(row["low"]):
        return form.format(row["median"])
    return f"{form.format(row['median'])} ({form.format(row['low'])} to {form.format(row['high'])})"


def delivery(part: Part) -> str:
    """Return the figures of the last hop, as the delivery benchmark measured them."""
    measured = json.loads(DELIVERY.read_text(encoding="utf-8"))
    levels = {level["clients"]: level["messages_per_cpu_s"] for level in measured["fan_out"]["levels"]}
    few, many = min(levels), max(levels)
    churn, failover, fan_in = measured["churn"], measured["failover"], measured["fan_in"]
    p99_ms = {phase: churn[phase]["p99_s"] * 1000 for phase in ("quiet", "churn")}
    memory_mb = [fan_in[f"rss_{when}_mb"] for when in ("before", "after", "when_they_left")]
    rows = [
        (
            f"{measured['clients']:,} clients on two subscribers, {fan_in['connections_per_s']:.0f} connecting per "
            "second: first byte, p99",
            f"{measured['first_byte_p99_s'] * 1000:.0f} ms",
        ),
        ("a window, from its publishing to its last client, p99", f"{measured['publish_to_last_p99_s'] * 1000:.0f} ms"),
        ("server memory per connection", f"{measured['kb_per_connection']:.1f} KB"),
        (
            "memory of both subscribers before those clients, with them, and after they left",
            "{:.0f}, {:.0f} and {:.0f} MB".format(*memory_mb),
        ),
        (
            f"lost, doubled, out of order, in {fan_in['windows']} windows",
            f"{measured['lost']}, {measured['duplicated']}, {measured['reordered']}",
        ),
        (
            f"messages that one process sends per second of its CPU time, to {few:,} and to {many:,} clients",
            f"{levels[few]:,} and {levels[many]:,}",
        ),
        (
            f"{churn['changes_per_s']:.0f} clients per second joining and {churn['changes_per_s']:.0f} leaving beside "
            f"{churn['steady']:,} steady ones, {len(churn['rounds'])} times {churn['round_s']:.0f} s: "
            "p99 of the steady clients divided by their p99 in the quiet times before and after, median",
            f"{measured['churn_p99_ratio']:.2f} (all rounds together {churn['p99_ratio_of_all']:.2f}: "
            f"{p99_ms['churn']:.0f} ms over {p99_ms['quiet']:.0f} ms)",
        ),
        ("windows that the steady clients missed", f"{measured['churn_missed']}"),
        (
            f"a killed subscriber's {failover['killed_clients']:,} clients: until the last is served elsewhere",
            f"{measured['failover_s']:.1f} s",
        ),
        ("windows that they missed", f"{measured['failover_missed']}"),
    ]
    machine = measured["machine"]
    head = [f"| {machine['cores']} cores, commit {machine['commit'][:7]} | |", "| --- | --- |"]
    return _lines([*head, *(f"| {what} | {figure} |" for what, figure in rows)])


def search(part: Part) -> str:
    """Return how often the simulated searches for a capacity were right, a row per model of the noise."""
    measured = json.loads(SEARCH.read_text(encoding="utf-8"))
    of_all = [{**measured, "noise": "as real runs have it"}, *measured["variants"]]
    larger = f"{measured['true_difference'] - 1:.0%}".replace("%", " %")
    rows = [
        f"| noise | searches of {measured['probes']} probes | interval holds the truth | identical chains called "
        f"different | {larger} more found | interval’s ends, ratio |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in of_all:
        shares = [row[f"{name}_share"] for name in ("covered", "false_difference", "true_difference")]
        cells = [row["noise"], f"{row['searches']:,}", *(f"{share:.1%}".replace("%", " %") for share in shares)]
        rows.append(f"| {' | '.join(cells)} | {row['width']:.2f} |")
    return _lines(rows)


def faults(part: Part) -> str | None:
    """Return the table of the planted faults, as `make instrument` found them; None if it never ran here."""
    if not INSTRUMENT.exists():
        return None
    return _lines(table.markdown(json.loads(INSTRUMENT.read_text(encoding="utf-8"))))


def steadiness(part: Part) -> str:
    """Return how many simulated runs were called UNSTEADY, a row per kind of run."""
    measured = json.loads(STEADY.read_text(encoding="utf-8"))
    rows = [
        f"| {measured['runs']:,} simulated runs each | windows | level | scatter | UNSTEADY |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in measured["cases"]:
        times = [f"{row[name] * 1000:,.0f} ms" for name in ("level_s", "scatter_s")]
        share = f"{row['unsteady_share']:.1%}".replace("%", " %")
        rows.append(f"| {row['name']} | {row['windows']} | {' | '.join(times)} | {share} |")
    return _lines(rows)


def _commit(manifest: dict[str, Any]) -> str:
    changed = {False: "", True: " with changes", None: ", with changes or not"}[manifest.get("dirty")]
    return str(manifest.get("commit"))[:7] + changed


def _lines(rows: Sequence[str]) -> str:
    return "\n".join(rows) + "\n"


BLOCKS: dict[str, Callable[[Part], str | None]] = {
    "settings": settings_table,
    "designs": designs_table,
    "routes": routes_table,
    "answers": answers_table,
    "commands": commands,
    "figures": run_figures,
    "reference": reference,
    "delivery": delivery,
    "search": search,
    "faults": faults,
    "steadiness": steadiness,
}
"""The generated parts by the name in their marker. A part that returns None stays as it is."""
