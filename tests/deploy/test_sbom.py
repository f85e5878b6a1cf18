"""The bill of materials follows CycloneDX's schema, and the page of licences names every locked package and jar."""

from __future__ import annotations

import json
import re
from typing import Any

from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation import make_schemabased_validator
from packaging.requirements import Requirement

from deploy import sbom
from pipeline.jar_lock import LockedJar, read_lock
from tests.harness.paths import REPOSITORY

JAR = LockedJar(coordinates="org.example:thing:1.2", sha256="ab" * 32, licences=("MIT",))
PYTHON: dict[str, Any] = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.6",
    "version": 1,
    "components": [
        {"type": "library", "bom-ref": "a", "name": "Flask", "version": "3", "purl": "pkg:pypi/flask@3",
         "licenses": [{"license": {"id": "BSD-3-Clause"}}, {"license": {"name": "License :: OSI Approved :: BSD"}}]},
        {"type": "library", "bom-ref": "b", "name": "overrides", "version": "7", "purl": "pkg:pypi/overrides@7"},
        {"type": "library", "bom-ref": "c", "name": "emostream", "version": "0", "purl": "pkg:pypi/emostream@0"},
    ],
}  # fmt: skip


def names(section: str) -> set[str]:
    """Return the names in one table of the page of licences."""
    text = (REPOSITORY / "docs" / "licences.md").read_text(encoding="utf-8")
    table = text[text.index(f"## {section}\n") :].split("\n## ")[0]
    return {row.split(" | ")[0].removeprefix("| ") for row in table.splitlines()[4:] if row}


def test_bill_is_valid_and_has_every_component_once() -> None:
    """A jar that two sets hold is one component, with its hash; what is not shipped is excluded."""
    document = sbom.bill(PYTHON, {"flask"}, [JAR, JAR])
    validator = make_schemabased_validator(OutputFormat.JSON, SchemaVersion.V1_6)
    assert validator.validate_str(json.dumps(document)) is None
    assert [(each["name"], each["scope"]) for each in document["components"]] == [
        ("Flask", "required"),
        ("overrides", "excluded"),
        ("thing", "required"),
    ]
    jar = document["components"][-1]
    assert jar["purl"] == "pkg:maven/org.example/thing@1.2"
    assert jar["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]


def test_component_without_a_licence_is_found() -> None:
    """Neither its metadata nor the table of those that were read by hand has one."""
    unknown = {"type": "library", "bom-ref": "d", "name": "unknown", "version": "1", "purl": "pkg:pypi/unknown@1"}
    document = sbom.bill({**PYTHON, "components": [*PYTHON["components"], unknown]}, set(), [JAR])
    assert sbom.without_licence(document) == ["unknown"]
    assert sbom.licence_names(document["components"][0]) == ["BSD", "BSD-3-Clause"]


def test_page_of_licences_names_every_package_and_jar() -> None:
    """Those of the lock on Linux with Python 3.11, split by whether the image has them; and every locked jar."""
    linux = {"sys_platform": "linux", "os_name": "posix", "python_version": "3.11", "python_full_version": "3.11.7"}
    linux |= {"platform_python_implementation": "CPython", "implementation_name": "cpython", "platform_system": "Linux"}

    def locked(path: str) -> set[str]:
        text = (REPOSITORY / path).read_text(encoding="utf-8").replace("\\\n", "")
        pins = [Requirement(line.partition(" --hash=")[0]) for line in text.splitlines() if re.match(r"\w", line)]
        return {sbom.canonical(pin.name) for pin in pins if pin.marker is None or pin.marker.evaluate(linux)}

    image, everything = locked("deploy/requirements.txt"), locked("requirements.txt")
    assert names("Python packages in the image") == image
    assert names("Python packages for tests, tools and Airflow only") == everything - image
    jars = {
        jar.coordinates.rpartition(":")[0] for p in sbom.jar_locks() for s in read_lock(p).values() for jar in s.jars
    }
    assert names("Jars") == jars
