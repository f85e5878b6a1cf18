"""The Grafana dashboard and the scrape configuration match the metrics that the stages expose."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

from pipeline.metrics import workers
from pipeline.settings import Settings
from pipeline.supervisor.plan import stages
from tests.pipeline.metrics.test_exposition import LABELS, families

FOLDER = Path(workers.__file__).parent
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))


def named_in_dashboard() -> dict[str, set[str]]:
    """Return the metrics in the expressions of each panel and variable."""
    metrics: dict[str, set[str]] = {}
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            names = re.findall(r"\b(?:emostream|process)_\w+", target["expr"])
            assert names, target["expr"]
            metrics.setdefault(panel["title"], set()).update(names)
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            metrics[variable["name"]] = set(re.findall(r"\bemostream_\w+", variable["definition"]))
    return metrics


def test_dashboard_uses_only_exposed_metrics(expositions: dict[str, bytes]) -> None:
    """Each metric in an expression is a sample that some stage exposes."""
    exposed = {sample.name for _, family in families(expositions) for sample in family.samples}
    unknown = {panel: names - exposed for panel, names in named_in_dashboard().items() if names - exposed}
    assert unknown == {}


def test_dashboard_shows_every_metric(expositions: dict[str, bytes]) -> None:
    """A metric that is not on the dashboard need not be counted."""
    shown = set().union(*named_in_dashboard().values())
    for _, family in families(expositions):
        if family.name.startswith("emostream_"):
            assert {sample.name for sample in family.samples} & shown, family.name


def test_dashboard_uses_only_known_labels(expositions: dict[str, bytes]) -> None:
    """In legends and groupings."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            grouped = re.findall(r"by \(([^)]*)\)", target["expr"])
            used = {word.strip() for words in grouped for word in words.split(",")}
            assert used <= LABELS, target["expr"]
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= used | LABELS


def test_dashboard_layout_and_data_source_are_valid() -> None:
    """Panels have unique ids, do not overlap, and use the selected data source."""
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    assert {panel["datasource"]["uid"] for panel in panels if "datasource" in panel} == {"${datasource}"}


def test_scrape_configuration_matches_a_chain() -> None:
    """It has the stages of `up` with their ports, for metrics_port 9500, and finds subscribers by the registry."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
    fixed, discovered = config["scrape_configs"]
    named = {entry["labels"]["stage"]: entry["targets"] for entry in fixed["static_configs"]}
    settings = Settings()
    first = 9500
    plan = [stage.name for stage in stages(settings, None, "") if stage.metered]
    assert named == {
        "ingest": [f"127.0.0.1:{settings.ingest_port}"],
        "registry": [f"127.0.0.1:{settings.registry_port}"],
        **{name: [f"127.0.0.1:{first + index}"] for index, name in enumerate(plan)},
    }
    assert discovered["http_sd_configs"][0]["url"] == f"http://127.0.0.1:{settings.registry_port}/targets"
    assert fixed["honor_labels"]
    assert discovered["honor_labels"]
