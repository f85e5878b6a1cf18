"""The wheel and the source distribution: what is in them, what is not, and what their metadata says."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.metadata import Metadata

from tests.harness.paths import REPOSITORY


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the source distribution, built without a network."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", str(folder)],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    """The wheel, opened."""
    (path,) = built.glob("*.whl")
    return zipfile.ZipFile(path)


def shipped() -> set[str]:
    """Return every path that belongs into the wheel: the packages' files, and folders that are put elsewhere."""
    target = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"][
        "targets"
    ]
    places = {name: name for name in target["wheel"]["packages"]} | target["wheel"].get("force-include", {})
    return {
        f"{place}/{path.relative_to(REPOSITORY / source).as_posix()}"
        for source, place in places.items()
        for path in (REPOSITORY / source).rglob("*")
        if path.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(path.parts)
    }


def test_wheel_has_every_module_and_every_data_file(wheel: zipfile.ZipFile) -> None:
    """The page, the templates, the designs, the list of jars, the markers for type checkers; nothing else."""
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == shipped()
    assert {"pipeline/jars.json", "pipeline/py.typed", "spark/py.typed", "experiments/py.typed"} <= inside


def test_wheel_has_the_licence_and_valid_metadata(wheel: zipfile.ZipFile) -> None:
    """Packaging's own rules, each field; the README is its description."""
    (path,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Metadata.from_email(wheel.read(path), validate=True)
    assert (metadata.name, metadata.license_expression) == ("emostream", "MIT")
    assert metadata.description_content_type == "text/markdown"
    assert str(metadata.requires_python) == ">=3.11"
    assert message_from_bytes(wheel.read(path)).get_payload().startswith("# EmoStream")
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel.namelist())


def test_wheel_passes_the_usual_checks(built: Path) -> None:
    """check-wheel-contents: no duplicate file, no stray module at the top, nothing that an install would clobber."""
    (path,) = built.glob("*.whl")
    # W004: templates and designs are folders of data. W002: the markers and some `__init__.py` are empty.
    # W009: three packages at the top, as the layout is given.
    command = ["check-wheel-contents", "--ignore", "W002,W004,W009", str(path)]
    done = subprocess.run(
        [str(Path(sys.executable).with_name(command[0])), *command[1:]], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_source_distribution_builds_the_same_wheel(built: Path, wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """It needs nothing of the checkout, and leaves out recorded runs."""
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        # Python before 3.11.4, which Debian 12 has, knows no filter.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(tmp_path)
    (source,) = tmp_path.iterdir()
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path / "again")],
        cwd=source,
        check=True,
        capture_output=True,
    )
    (again,) = (tmp_path / "again").glob("*.whl")
    assert sorted(zipfile.ZipFile(again).namelist()) == sorted(wheel.namelist())
    assert not (source / "reports" / "reference").exists()
