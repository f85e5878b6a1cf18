"""deploy/compose.yaml agrees with the code: commands, settings, ports, health checks, and what watches the stages."""

from __future__ import annotations

import importlib
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline import settings
from pipeline.broker.data_dir import server_properties
from pipeline.jars import KAFKA_VERSION
from pipeline.supervisor.plan import stages
from tests.harness.paths import REPOSITORY

FOLDER = REPOSITORY / "deploy"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "emostream"}
BESIDE = {"kafka", "prometheus", "grafana"}


def options_of(service: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the module that the service runs, and its options by the names of their settings."""
    python, flag, module, *rest = service["command"]
    assert (python, flag) == ("python", "-m")
    names = [name.removeprefix("--").replace("-", "_") for name in rest[::2]]
    return module, dict(zip(names, rest[1::2], strict=True))


def settings_of(service: dict[str, Any]) -> settings.Settings:
    """Return the settings of the service: its variables, then its options, as its own process reads them."""
    environment = {name: str(value) for name, value in service["environment"].items()}
    return settings.build({**settings.from_env(environment), **options_of(service)[1]})


def port_of(service: dict[str, Any]) -> int:
    """Return the port on which the service's stage answers."""
    values = settings_of(service)
    own = {
        "pipeline.ingest": "ingest_port",
        "pipeline.registry": "registry_port",
        "pipeline.subscriber": "subscriber_port",
    }
    port: int = getattr(values, own.get(options_of(service)[0], "metrics_port"))
    return port


def scrape_jobs(path: Path) -> dict[str, dict[str, Any]]:
    """Return the jobs of a scrape configuration by name."""
    jobs = yaml.safe_load(path.read_text(encoding="utf-8"))["scrape_configs"]
    return {job["job_name"]: job for job in jobs}


def test_services_are_the_stages_of_up() -> None:
    """Each stage that `up` starts by default is a service of its name, and three more stand beside them."""
    planned = {stage.name: [stage.module, *stage.arguments] for stage in stages(settings.Settings(), None, "")}
    assert set(OURS) == set(planned)
    assert set(SERVICES) - set(OURS) == BESIDE
    for name, words in planned.items():
        assert OURS[name]["command"][2 : 2 + len(words)] == words


@pytest.mark.parametrize("name", OURS)
def test_variables_and_options_are_those_of_the_stage(name: str) -> None:
    """Every option is one of the stage's, and every value one that its setting takes."""
    module, options = options_of(OURS[name])
    if importlib.util.find_spec(module).submodule_search_locations is not None:
        module += ".server"
    known = importlib.import_module(module).OPTIONS
    assert set(options) <= set(known)
    assert settings_of(OURS[name]).kafka == "kafka:9092"
    assert settings_of(OURS[name]).host == "0.0.0.0"


@pytest.mark.parametrize("name", OURS)
def test_health_check_asks_the_port_of_the_stage(name: str) -> None:
    """With the command that the image has for it."""
    url = f"http://127.0.0.1:{port_of(OURS[name])}/healthz"
    assert OURS[name]["healthcheck"]["test"] == ["CMD", "python", "-m", "pipeline.health", url]


def test_published_ports_are_what_clients_are_sent_to() -> None:
    """Only loopback is published: the port of the stage, and the one in the address that its clients get."""
    for name, service in OURS.items():
        values = settings_of(service)
        public = name in {"ingest", "registry"} or name.startswith("subscriber-")
        port = port_of(service)
        assert service.get("ports", []) == ([f"127.0.0.1:{port}:{port}"] if public else []), name
        if name.startswith("subscriber-"):
            assert values.subscriber_url == f"http://localhost:{port}"
    registry = settings_of(OURS["registry"])
    assert {settings_of(service).registry_url for service in OURS.values()} == {
        f"http://localhost:{registry.registry_port}"
    }
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == len(set(published))
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_image_is_built_once_and_never_pulled() -> None:
    """A registry's image of this name would be somebody else's."""
    assert [name for name, service in OURS.items() if "build" in service] == ["ingest"]
    policies = {name: service["pull_policy"] for name, service in OURS.items()}
    assert policies == {name: "build" if name == "ingest" else "never" for name in OURS}
    build = OURS["ingest"]["build"]
    assert (FOLDER / build["context"]).resolve() == REPOSITORY
    assert (FOLDER / build["context"] / build["dockerfile"]).is_file()


def test_every_stage_has_no_more_rights_than_it_needs() -> None:
    """No new privileges, no capability, nothing to write but its own folder and /tmp."""
    for name, service in OURS.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["depends_on"] == {"kafka": {"condition": "service_healthy"}}, name


def test_kafka_is_the_one_that_is_embedded() -> None:
    """The same version, and the same properties except for addresses and paths."""
    kafka = SERVICES["kafka"]
    assert kafka["image"].endswith(f"/apache/kafka:{KAFKA_VERSION}")
    embedded = dict(line.split("=", 1) for line in server_properties(9092, 9093).splitlines())
    given = {
        name.removeprefix("KAFKA_").replace("_", ".").lower(): str(value)
        for name, value in kafka["environment"].items()
        if name != "KAFKA_HEAP_OPTS"
    }
    assert set(given) == set(embedded)
    places = {"listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}
    assert {key: given[key] for key in given if key not in places} == {
        key: embedded[key] for key in embedded if key not in places
    }


def test_prometheus_scrapes_every_stage_where_it_answers() -> None:
    """At the service's name and port, with the name of the stage as its label."""
    jobs = scrape_jobs(FOLDER / "prometheus.yml")
    found = {entry["labels"]["stage"]: entry["targets"] for job in jobs.values() for entry in job["static_configs"]}
    assert found == {name: [f"{name}:{port_of(service)}"] for name, service in OURS.items()}
    alone = scrape_jobs(REPOSITORY / "pipeline" / "metrics" / "prometheus.yml")
    assert {name: job["honor_labels"] for name, job in jobs.items()} == {
        name: job["honor_labels"] for name, job in alone.items()
    }
    labels = {entry["labels"]["stage"] for entry in alone["emostream"]["static_configs"]}
    assert labels == {entry["labels"]["stage"] for entry in jobs["emostream"]["static_configs"]}


def test_grafana_finds_its_source_and_the_dashboard() -> None:
    """Every file that is mounted exists, and the provisioned paths are those of the mounts."""
    mounts = {}
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *_ = volume.split(":")
            if source.startswith("."):
                assert (FOLDER / source).is_file(), volume
                mounts[target] = FOLDER / source
            else:
                assert source in COMPOSE["volumes"], volume
    (source,) = yaml.safe_load((FOLDER / "grafana" / "datasources.yml").read_text(encoding="utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((FOLDER / "grafana" / "dashboards.yml").read_text(encoding="utf-8"))["providers"]
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert str(Path(home).parent) == provider["options"]["path"]
    assert mounts[home].resolve() == REPOSITORY / "pipeline" / "metrics" / "grafana.json"


def test_image_copies_what_exists_and_keeps_the_rest_out() -> None:
    """Each source of a COPY is in the repository and let through by the list of ignored files."""
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    ignored = (FOLDER / "Containerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    copied = {
        source for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE) for source in line.split()[:-1]
    }
    assert copied == {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert all((REPOSITORY / source).exists() for source in copied)
    assert ignored[1] == "*"


def test_image_has_the_commands_that_exist() -> None:
    """Its own command and health check run modules of the project, as a user who is not root."""
    text = (FOLDER / "Containerfile").read_text(encoding="utf-8")
    for module in re.findall(r'"-m", "([\w.]+)"', text):
        assert importlib.util.find_spec(module) is not None
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == ["10001:10001"]
    defaults = settings.Settings()
    assert re.findall(r"^EXPOSE (.+)$", text, re.MULTILINE) == [f"{defaults.ingest_port} {defaults.registry_port}"]
    assert f"http://127.0.0.1:{defaults.registry_port}/healthz" in text
