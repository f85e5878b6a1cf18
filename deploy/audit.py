"""`python -m deploy.audit`: known vulnerabilities of the locked packages, held against a dated list of exceptions.

pip-audit asks a service for them. Where no service answers, nothing was audited: the command says so and does not fail,
because a network is not a vulnerability. pip-audit itself reports "no known vulnerabilities" then.
"""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
LOCK = REPOSITORY / "requirements.txt"
ADVISORIES = Path(__file__).with_name("advisories.toml")
SERVICES = ("osv", "pypi")
# An exception is looked at again at least this often, days.
LONGEST_DAYS = 180
TIMEOUT_S = 120.0


class AdvisoriesError(Exception):
    """The list of exceptions breaks its own rules, or one of them has run out."""


@dataclass(frozen=True)
class Exempt:
    """One vulnerability that is known and accepted: its id, why, and the last day on which it is."""

    id: str
    reason: str
    until: dt.date


@dataclass(frozen=True)
class Vulnerability:
    """A known vulnerability of a locked package; `aliases` are its ids elsewhere, `fixed` the versions without it."""

    package: str
    version: str
    id: str
    aliases: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()

    @property
    def ids(self) -> set[str]:
        """Every id that it has."""
        return {self.id, *self.aliases}


@dataclass(frozen=True)
class Audit:
    """What a service answered: the packages that it knew, those it did not, and the vulnerabilities."""

    audited: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    vulnerabilities: tuple[Vulnerability, ...] = ()
    error: str = ""


@dataclass
class Verdict:
    """Lines for the reader, and whether the step fails."""

    lines: list[str] = field(default_factory=list)
    failed: bool = False

    def fail(self, line: str) -> None:
        """Add a line that makes the step fail."""
        self.lines.append(line)
        self.failed = True


def exceptions(text: str, today: dt.date) -> list[Exempt]:
    """Return the exceptions in the text of `advisories.toml`.

    Raises AdvisoriesError, with the entry and the remedy, for one without an id, a reason or a date, for an id that
    occurs twice, for a date more than LONGEST_DAYS ahead, and for one whose date has passed.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise AdvisoriesError(f"advisories.toml is not TOML: {error}") from error
    if unknown := set(document) - {"allowed"}:
        raise AdvisoriesError(f"advisories.toml has {', '.join(sorted(unknown))}: only [[allowed]] is known")
    found: dict[str, Exempt] = {}
    for entry in document.get("allowed", []):
        if set(entry) != {"id", "reason", "until"}:
            raise AdvisoriesError(f"entry {entry}: give id, reason and until, and nothing else")
        name, reason, until = entry["id"], entry["reason"], entry["until"]
        if not isinstance(name, str) or not name.strip() or not isinstance(reason, str) or not reason.strip():
            raise AdvisoriesError(f"entry {entry}: id and reason are text that is not empty")
        if type(until) is not dt.date:
            raise AdvisoriesError(f"{name}: until is {until!r}: give a date without quotes, such as {today}")
        if until < today:
            raise AdvisoriesError(
                f"{name}: accepted until {until}, and today is {today}: update the package, or give a new date"
            )
        if (until - today).days > LONGEST_DAYS:
            raise AdvisoriesError(f"{name}: until is {until}: give a date at most {LONGEST_DAYS} days from today")
        if name in found:
            raise AdvisoriesError(f"{name} occurs twice: keep one entry")
        found[name] = Exempt(name, reason, until)
    return list(found.values())


def read(report: Any) -> Audit:
    """Return what pip-audit's report, as JSON has it, says."""
    audited, skipped, vulnerabilities = [], [], []
    for package in report["dependencies"]:
        if "skip_reason" in package:
            skipped.append(package["name"])
            continue
        audited.append(package["name"])
        vulnerabilities += [
            Vulnerability(
                package["name"], package["version"], each["id"], tuple(each["aliases"]), tuple(each["fix_versions"])
            )
            for each in package["vulns"]
        ]
    return Audit(tuple(audited), tuple(skipped), tuple(vulnerabilities))


def judge(audit: Audit, allowed: Sequence[Exempt]) -> Verdict:
    """Return whether the step fails, and what to print."""
    verdict = Verdict()
    if not audit.audited:
        why = audit.error or f"no service knew any of the {len(audit.skipped)} packages"
        verdict.lines.append(f"not audited: {why}. Nothing is known about vulnerabilities; this is not a pass")
        return verdict
    if audit.skipped:
        verdict.lines.append(f"not audited: {', '.join(audit.skipped)}")
    used: set[str] = set()
    for each in audit.vulnerabilities:
        exempt = next((entry for entry in allowed if entry.id in each.ids), None)
        if exempt is not None:
            used.add(exempt.id)
            verdict.lines.append(
                f"{each.package} {each.version}: {each.id}, accepted until {exempt.until}: {exempt.reason}"
            )
            continue
        remedy = f"update to {' or '.join(each.fixed)}" if each.fixed else "no version without it is known"
        verdict.fail(
            f"{each.package} {each.version}: {each.id}: {remedy}; or accept it for a time in deploy/advisories.toml"
        )
    for entry in allowed:
        if entry.id not in used:
            verdict.fail(f"{entry.id} is in deploy/advisories.toml and no locked package has it: remove the entry")
    verdict.lines.append(f"audited: {len(audit.audited)} packages, {len(audit.vulnerabilities)} known vulnerabilities")
    return verdict


def ask(service: str, lock: Path = LOCK) -> Audit:
    """Ask one service with pip-audit."""
    with tempfile.TemporaryDirectory(prefix="emostream-audit-") as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip_audit", "--vulnerability-service", service, "--require-hashes"]
        command += ["--disable-pip", "--progress-spinner", "off", "--format", "json", "--output", str(report)]
        command += ["--requirement", str(lock)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            return Audit(error=f"the service {service} did not answer within {TIMEOUT_S:g} s")
        if not report.exists():
            last = (done.stderr.strip() or f"pip-audit ended with status {done.returncode}").splitlines()[-1]
            return Audit(error=f"the service {service} cannot be reached ({last})")
        return read(json.loads(report.read_text(encoding="utf-8")))


def first_answer(services: Iterable[str], ask: Callable[[str], Audit]) -> Audit:
    """Return the answer of the first service that knows any package, or the last one's."""
    audit = Audit(error="no service was asked")
    for service in services:
        audit = ask(service)
        if audit.audited:
            break
    return audit


def main() -> int:
    """Audit the lock; return 1 for a vulnerability that is not accepted, or a list that breaks its rules."""
    try:
        allowed = exceptions(ADVISORIES.read_text(encoding="utf-8"), dt.datetime.now(dt.UTC).date())
    except AdvisoriesError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    verdict = judge(first_answer(SERVICES, ask), allowed)
    sys.stdout.write("".join(f"{line}\n" for line in verdict.lines))
    return int(verdict.failed)


if __name__ == "__main__":
    sys.exit(main())
