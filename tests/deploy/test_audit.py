"""The audit: its list of exceptions keeps its rules, a vulnerability fails it, and silence is not a pass."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any

import pytest

from deploy import audit
from deploy.audit import AdvisoriesError, Audit, Exempt, Vulnerability

TODAY = dt.date(2026, 12, 1)
FLAW = Vulnerability("flask", "3.1.3", "PYSEC-1", ("GHSA-1",), ("3.1.4",))
ACCEPTED = Exempt("GHSA-1", "only on Windows", TODAY)


def entry(**changes: str) -> str:
    """Return an entry of the list; a change of None leaves its key out."""
    fields = {"id": '"GHSA-1"', "reason": '"only on Windows"', "until": "2026-12-01", **changes}
    return "[[allowed]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items() if value)


def test_exception_holds_through_its_last_day() -> None:
    """On the day itself it is still accepted, and an empty list is one."""
    assert audit.exceptions(entry(), TODAY) == [ACCEPTED]
    assert audit.exceptions("", TODAY) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (entry(until="2026-11-30"), r"GHSA-1: accepted until 2026-11-30, and today is 2026-12-01: update the package"),
        (entry(until="2027-05-31"), r"GHSA-1: until is 2027-05-31: give a date at most 180 days from today"),
        (entry(until='"2026-12-01"'), r"GHSA-1: until is '2026-12-01': give a date without quotes"),
        (entry(until="2026-12-01T00:00:00"), r"GHSA-1: until is .*: give a date without quotes"),
        (entry(until=""), r"give id, reason and until"),
        (entry(reason='" "'), r"id and reason are text that is not empty"),
        (entry(id="7"), r"id and reason are text that is not empty"),
        (entry(package='"flask"'), r"give id, reason and until, and nothing else"),
        (entry() + entry(), r"GHSA-1 occurs twice: keep one entry"),
        ("[[alowed]]\n", r"advisories\.toml has alowed: only \[\[allowed\]\] is known"),
        ("[[allowed]", r"advisories\.toml is not TOML"),
    ],
)
def test_list_that_breaks_its_rules_is_refused(text: str, message: str) -> None:
    """With the entry and the remedy."""
    with pytest.raises(AdvisoriesError, match=message):
        audit.exceptions(text, TODAY)


def test_committed_list_keeps_its_rules() -> None:
    """Apart from dates that pass: `make audit` compares those with today."""
    text = audit.ADVISORIES.read_text(encoding="utf-8")
    dates = [dt.date.fromisoformat(day) for day in re.findall(r"^until = (\S+)", text, re.MULTILINE)]
    audit.exceptions(text, min(dates, default=TODAY))


def test_vulnerability_fails_with_the_remedy() -> None:
    """Unless one of its ids is accepted; then it is printed with its date."""
    verdict = audit.judge(Audit(audited=("flask",), vulnerabilities=(FLAW,)), [])
    assert verdict.failed
    assert verdict.lines[0].startswith("flask 3.1.3: PYSEC-1: update to 3.1.4; or accept it")
    verdict = audit.judge(Audit(audited=("flask",), vulnerabilities=(FLAW,)), [ACCEPTED])
    assert not verdict.failed
    assert verdict.lines == [
        "flask 3.1.3: PYSEC-1, accepted until 2026-12-01: only on Windows",
        "audited: 1 packages, 1 known vulnerabilities",
    ]


def test_exception_that_nothing_needs_fails() -> None:
    """After the update, the entry has to go."""
    verdict = audit.judge(Audit(audited=("flask",)), [ACCEPTED])
    assert verdict.failed
    assert "GHSA-1 is in deploy/advisories.toml and no locked package has it: remove the entry" in verdict.lines


@pytest.mark.parametrize(
    ("silent", "why"),
    [
        (Audit(skipped=("flask", "numpy")), "no service knew any of the 2 packages"),
        (Audit(error="the service osv cannot be reached (refused)"), "the service osv cannot be reached (refused)"),
    ],
)
def test_silent_service_is_neither_a_pass_nor_a_failure(silent: Audit, why: str) -> None:
    """The line says that nothing was audited, also if the list has entries."""
    verdict = audit.judge(silent, [ACCEPTED])
    assert verdict.lines == [f"not audited: {why}. Nothing is known about vulnerabilities; this is not a pass"]
    assert not verdict.failed


def test_package_that_the_service_does_not_know_is_named() -> None:
    """The others were audited."""
    verdict = audit.judge(Audit(audited=("flask",), skipped=("numpy",)), [])
    assert verdict.lines == ["not audited: numpy", "audited: 1 packages, 0 known vulnerabilities"]


def test_report_of_pip_audit_is_read() -> None:
    """Packages with and without vulnerabilities, and those that were skipped."""
    flaw: dict[str, Any] = {"id": "PYSEC-1", "aliases": ["GHSA-1"], "fix_versions": ["3.1.4"], "description": "…"}
    report = {
        "dependencies": [
            {"name": "flask", "version": "3.1.3", "vulns": [flaw]},
            {"name": "numpy", "version": "2.4.6", "vulns": []},
            {"name": "ours", "skip_reason": "not on PyPI"},
        ]
    }
    assert audit.read(report) == Audit(("flask", "numpy"), ("ours",), (FLAW,))


def test_next_service_is_asked_if_one_knows_nothing() -> None:
    """The first that audited a package decides."""
    answers = {"a": Audit(error="refused"), "b": Audit(audited=("flask",)), "c": Audit(audited=("numpy",))}
    asked: list[str] = []

    def ask(service: str) -> Audit:
        asked.append(service)
        return answers[service]

    assert audit.first_answer(answers, ask) == answers["b"]
    assert asked == ["a", "b"]
