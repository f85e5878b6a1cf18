"""The environment of the chain's processes: other programs' variables are left out, the machine's are kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import environment
from tests.harness.paths import REPOSITORY
from tests.harness.processes import module, run_to_end
from tests.harness.waiting import DEADLINE_S

PROGRAM = """
import json, logging, os, sys
from pipeline import environment
environment.restart_without_others()
logging.basicConfig(format="%(message)s")
environment.log_ignored()
print(json.dumps({"optimize": sys.flags.optimize, "text": sys.flags.utf8_mode, "env": dict(os.environ)}))
"""


@pytest.mark.parametrize(
    "name",
    [
        *("JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "LOG4J_CONFIGURATION_FILE"),
        *("SPARK_HOME", "SPARK_CONF_DIR", "SPARK_LOCAL_IP", "SPARK_REMOTE", "SPARK_DIST_CLASSPATH", "SPARK_MADE_UP"),
        *("PYSPARK_PYTHON", "PYSPARK_SUBMIT_ARGS", "PYSPARK_DRIVER_PYTHON", "PYSPARK_GATEWAY_PORT"),
        *("HADOOP_CONF_DIR", "HADOOP_HOME", "YARN_CONF_DIR", "HIVE_CONF_DIR", "CONTAINER_ID", "LOCAL_DIRS"),
        *("KAFKA_OPTS", "KAFKA_HEAP_OPTS", "KAFKA_JVM_PERFORMANCE_OPTS", "KAFKA_LOG4J_OPTS", "KAFKA_JMX_OPTS"),
        *(
            "PYTHONWARNINGS",
            "PYTHONOPTIMIZE",
            "PYTHONINSPECT",
            "PYTHONIOENCODING",
            "PYTHONDEVMODE",
            "PYTHONASYNCIODEBUG",
        ),
        *("BASH_ENV", "CDPATH", "SHELLOPTS", "FLASK_DEBUG", "PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"),
    ],
)
def test_other_programs_settings_are_left_out(name: str) -> None:
    """Of each family that something in the chain would read."""
    assert name not in environment.own({name: "value", "PATH": "/bin"})


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "JAVA_HOME", "TMPDIR", "TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "XDG_CACHE_HOME"),
        *("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "NO_PROXY", "AWS_ACCESS_KEY_ID", "M2_REPO"),
        *("PYTHONPATH", "PYTHONMALLOC", "PYTHONDONTWRITEBYTECODE", "PYTHON_VERSION", "KAFKA_HOME"),
        *("EMOSTREAM_TRIGGER_S", "EMOSTREAM_CACHE_DIR", "EMOSTREAM_PARENT_PID"),
    ],
)
def test_what_describes_the_machine_is_kept(name: str) -> None:
    """And the chain's own settings."""
    assert environment.own({name: "value"})[name] == "value"


@pytest.mark.parametrize("given", [{}, {"LANG": "tr_TR.ISO-8859-9"}, {"LC_ALL": "no_SUCH"}, {"PYTHONUTF8": "0"}])
def test_text_is_utf_8_in_every_locale(given: dict[str, str]) -> None:
    """Also the names of files, which a JVM otherwise writes in the locale's encoding."""
    assert environment.own(given).items() >= {"LC_ALL": "C.UTF-8", "PYTHONUTF8": "1"}.items()


def test_the_pyspark_of_another_spark_leaves_the_module_path(tmp_path: Path) -> None:
    """Its folder and its archive are left out; an installed pyspark and other folders stay, in order."""
    other, installed = tmp_path / "python", tmp_path / "site-packages"
    (other / "pyspark").mkdir(parents=True)
    (installed / "pyspark").mkdir(parents=True)
    (installed / "pyspark-4.2.0.dist-info").mkdir()
    entries = [tmp_path, other, other / "lib" / "py4j-0.10.9.9-src.zip", other / "lib" / "pyspark.zip", installed]
    env = environment.own({"PYTHONPATH": os.pathsep.join(map(str, entries))})
    assert env["PYTHONPATH"] == os.pathsep.join([str(tmp_path), str(installed)])


def restarted(**others: str) -> tuple[dict[str, object], str]:
    """Run PROGRAM with other programs' variables; return what it printed and what it logged."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=REPOSITORY,
        env={**environment.own(os.environ), **others},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )
    return json.loads(ended.stdout), ended.stderr


def test_process_restarts_without_other_programs_settings() -> None:
    """Also those that the interpreter reads at its start; one line names them, and not their values."""
    seen, logged = restarted(PYTHONOPTIMIZE="2", SPARK_HOME="/opt/secret", JAVA_TOOL_OPTIONS="-Dkey=secret")
    assert (seen["optimize"], seen["text"]) == (0, 1)
    assert isinstance(seen["env"], dict)
    assert not {"PYTHONOPTIMIZE", "SPARK_HOME", "JAVA_TOOL_OPTIONS", environment.IGNORED} & seen["env"].keys()
    assert logged.splitlines() == [
        "ignored environment variables that are set for other programs: JAVA_TOOL_OPTIONS PYTHONOPTIMIZE SPARK_HOME"
    ]


def test_process_without_other_programs_settings_does_not_restart() -> None:
    """And logs nothing; its children get a UTF-8 locale."""
    seen, logged = restarted(LC_ALL="tr_TR")
    assert logged == ""
    assert isinstance(seen["env"], dict)
    assert seen["env"]["LC_ALL"] == "C.UTF-8"


def test_locale_without_utf_8_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if no variable is to be left out: the encoding of output and of names of files is chosen at the start."""
    restarts: list[dict[str, str]] = []
    for name in [*environment.UTF_8, *environment.own(os.environ).keys() ^ os.environ.keys()]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LC_ALL", "tr_TR.ISO-8859-9")
    monkeypatch.setattr(environment.os, "execve", lambda path, words, env: restarts.append(env))
    environment.restart_without_others()
    assert restarts == []
    monkeypatch.setenv("LC_ALL", "tr_TR.ISO-8859-9")
    monkeypatch.setattr(environment.sys, "getfilesystemencoding", lambda: "iso8859-9")
    environment.restart_without_others()
    assert [(env["LC_ALL"], env[environment.IGNORED]) for env in restarts] == [("C.UTF-8", "")]


def test_variable_that_comes_back_causes_no_second_restart(tmp_path: Path) -> None:
    """A sitecustomize module may set one at every start."""
    (tmp_path / "sitecustomize.py").write_text("import os; os.environ['SPARK_HOME'] = '/opt/spark'\n")
    _, logged = restarted(PYTHONPATH=str(tmp_path))
    assert logged.count("SPARK_HOME") == 1


@pytest.mark.parametrize(
    "name",
    ["pipeline", "pipeline.broker", "pipeline.ingest", "pipeline.registry", "pipeline.subscriber", "pipeline.client",
     "pipeline.main_publisher", "pipeline.cluster_publisher", "spark.job"],
)  # fmt: skip
def test_every_stage_restarts_before_it_does_anything(name: str) -> None:
    """Without it, an interpreter that stays at its prompt after the end would read the rest of its input."""
    options = ["up", "--help"] if name == "pipeline" else ["--help"]
    ended = run_to_end(module(name, *options), PYTHONINSPECT="1", PYTHONOPTIMIZE="2", PYTHONWARNINGS="error")
    assert (ended.returncode, ended.stderr) == (0, "")
