"""Where archives of classes are, and which options a JVM gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import class_archive
from pipeline.java import Java


@pytest.fixture
def java(tmp_path: Path) -> Java:
    """A Java that says what it is."""
    home = tmp_path / "jvm"
    home.mkdir()
    (home / "release").write_text('JAVA_VERSION="17.0.15"\n')
    return Java(home / "bin" / "java", 17, home)


@pytest.fixture
def jars(tmp_path: Path) -> list[Path]:
    """Two jars in a folder of a cache."""
    folder = tmp_path / "cache" / "kafka-1"
    folder.mkdir(parents=True)
    paths = [folder / "a.jar", folder / "b.jar"]
    for path in paths:
        path.write_bytes(b"a jar")
    return paths


def test_another_java_or_jar_has_another_archive(java: Java, jars: list[Path], tmp_path: Path) -> None:
    """The name follows from the build of Java and from the jars; the same ones give the same name."""
    first = class_archive.kafka(java, jars)
    assert first == class_archive.kafka(java, jars)
    assert first.parent == tmp_path / "cache"
    jars[1].write_bytes(b"another jar")
    second = class_archive.kafka(java, jars)
    (java.home / "release").write_text('JAVA_VERSION="17.0.16"\n')
    assert len({first, second, class_archive.kafka(java, jars)}) == 3


def test_java_without_a_release_file_has_an_archive(java: Java, jars: list[Path]) -> None:
    """Some distributions leave the file out."""
    (java.home / "release").unlink()
    assert class_archive.spark(java, jars).name.startswith("spark-")


def test_archive_is_named_only_if_it_can_be_mapped(tmp_path: Path) -> None:
    """To the JVM a colon separates two archives, a missing file is a warning, and one that was cut off is its death."""
    for archive in (tmp_path / "there.jsa", tmp_path / "a:b.jsa"):
        assert class_archive.mapped(archive) == ()
        archive.write_bytes(b"classes")
        assert class_archive.mapped(archive) == ()
        class_archive.size_file(archive).write_text("8")
        assert class_archive.mapped(archive) == ()
        class_archive.size_file(archive).write_text("7")
    assert class_archive.mapped(tmp_path / "there.jsa")[0] == f"-XX:SharedArchiveFile={tmp_path}/there.jsa"
    assert class_archive.mapped(tmp_path / "a:b.jsa") == ()
