"""The RO-Crate of a kept campaign: a description for archives, as https://w3id.org/ro/crate/1.1 defines it."""

from __future__ import annotations

import importlib.metadata
import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from rocrate.rocrate import ROCrate

from experiments import files, run_files
from experiments.campaign.campaign_file import State

NAME = "ro-crate-metadata.json"
VERSION = "1.1"
AUTHORS = "EmoStream contributors"
LICENCE = "https://spdx.org/licenses/MIT"
REMEDY = "keep the campaign again with: emostream keep"
KINDS = {".parquet": "application/vnd.apache.parquet", ".hdr": "text/plain", ".svg": "image/svg+xml"}
WORDS = {
    "campaign.json": "the design, the order, and each run with its verdict",
    "index.html": "the report of the campaign",
    "manifest.json": "code, versions, machine and parameters of a run",
    "verdict.json": "whether a run may be believed, and each objective",
    "summary.json": "every figure of a run",
}


def write(directory: Path, state: State, manifests: Sequence[Mapping[str, Any]]) -> None:
    """Write the crate of the campaign in `directory` about every file that is there now, and read it back.

    Raises RunFileError if what was written is not such a crate.
    """
    crate = ROCrate(version=VERSION)
    root = crate.root_dataset
    authors = crate.add_jsonld({"@id": "#authors", "@type": "Organization", "name": AUTHORS})
    licence = crate.add_jsonld(
        {"@id": LICENCE, "@type": "CreativeWork", "name": "MIT License", "identifier": "MIT", "url": LICENCE}
    )
    commits = sorted({str(about.get("commit")) for about in manifests})
    software = crate.add_jsonld(
        {
            "@id": "#emostream",
            "@type": "SoftwareSourceCode",
            "name": "EmoStream",
            "version": importlib.metadata.version("emostream"),
            "identifier": [f"commit {commit}" for commit in commits],
            "programmingLanguage": "Python",
            "license": {"@id": LICENCE},
        }
    )
    design = crate.add_jsonld(
        {
            "@id": "#design",
            "@type": "CreativeWork",
            "name": state.design.name,
            "description": state.design.about,
            "identifier": f"sha256 {state.design_sha256}",
            "text": msgspec.json.encode(state.design, order="deterministic").decode(),
        }
    )
    for path in contents(directory):
        crate.add_file(path, path.relative_to(directory).as_posix(), properties=_described(path))
    root["name"] = f"EmoStream: campaign {state.campaign}"
    root["description"] = state.design.about
    root["datePublished"] = state.ended or state.started
    root["temporalCoverage"] = f"{state.started}/{state.ended or '..'}"
    root["author"] = authors
    root["license"] = licence
    root["mentions"] = [design]
    crate.add_jsonld(
        {
            "@id": "#measurement",
            "@type": "CreateAction",
            "name": f"sweep of the design {state.design.name}",
            "startTime": state.started,
            "endTime": state.ended,
            "instrument": {"@id": software.id},
            "object": {"@id": design.id},
            "result": {"@id": root.id},
            "agent": {"@id": authors.id},
        }
    )
    crate.metadata.write(directory)
    check(directory)


def contents(directory: Path) -> list[Path]:
    """Return the files that a crate in `directory` describes: all but itself, in order."""
    return sorted(path for path in directory.rglob("*") if path.is_file() and path != directory / NAME)


def check(directory: Path) -> None:
    """Read the crate in `directory`. Raises RunFileError naming what is missing in it or differs from the files."""
    path = directory / NAME
    run_files.raw(path, REMEDY)
    try:
        crate = ROCrate(str(directory))
    except (ValueError, KeyError) as error:
        raise run_files.damaged(path, f"is not an RO-Crate ({error})", REMEDY) from error
    for name in ("name", "description", "datePublished", "license", "author"):
        if not crate.root_dataset.get(name):
            raise run_files.damaged(path, f"lacks `{name}` of its root", REMEDY)
    described = {entity.id: entity for entity in crate.data_entities}
    for file in contents(directory):
        entity = described.pop(quote(file.relative_to(directory).as_posix()), None)
        if entity is not None and entity.get("sha256") != files.sha256(file):
            raise run_files.damaged(path, f"has another SHA-256 for {file.name} than {file}", REMEDY)
    if described:
        raise run_files.damaged(path, f"names {sorted(described)[0]}, which is not there", REMEDY)


def _described(path: Path) -> dict[str, Any]:
    kind = KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    words = WORDS.get(path.name) or ("rows of a run" if path.suffix == ".parquet" else None)
    return {
        "name": path.name,
        "sha256": files.sha256(path),
        "contentSize": str(path.stat().st_size),
        "encodingFormat": kind,
        **({"description": words} if words else {}),
    }
