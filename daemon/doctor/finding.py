"""What the doctor looks for and what came of it: checks, measurements, outcomes.

A *check* is one kind of finding: what it measures, the limit, how grave it is beyond it, and the remedy. Checks are
values in a registry, so that `docs/doctor.md`, `--json` and the text on the screen say the same.

Invariants
----------
- A finding holds a number and the limit that it is beyond, and where it was measured.
- A check that was not made says why; nothing passes for healthy because it was not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["problem", "warning", "note"]
Patient = Literal["data", "model", "bundle", "cluster"]
#: How a number is shown: a share as a percentage, a plain number, a whole number, a time.
Form = Literal["share", "number", "count", "seconds"]

SEVERITIES: tuple[Severity, ...] = ("problem", "warning", "note")
#: Places named in a finding; the worst come first.
PLACES_MAX = 8


@dataclass(frozen=True, kw_only=True)
class Check:
    """One kind of finding."""

    code: str
    #: What of: the commands that make this check.
    of: tuple[Patient, ...]
    severity: Severity
    #: What is wrong, once found.
    title: str
    #: What the number is.
    measures: str
    limit: float
    #: On which side of the limit it is found.
    beyond: Literal["above", "below"] = "above"
    form: Form = "share"
    #: The limit for a problem, where a weaker one only warns.
    problem_limit: float | None = None
    remedy: str

    def found_at(self, value: float) -> bool:
        """Tell whether a number is beyond the limit; one that is not finite is."""
        return _is_beyond(value, self.limit, self.beyond)

    def severity_at(self, value: float) -> Severity:
        """Return how grave a number beyond the limit is."""
        if self.problem_limit is not None and _is_beyond(value, self.problem_limit, self.beyond):
            return "problem"
        return self.severity

    def limit_at(self, value: float) -> float:
        """Return the limit that a number is beyond: the one for a problem, or the weaker one."""
        return self.limit if self.problem_limit is None or self.severity_at(value) != "problem" else self.problem_limit

    def shown(self, value: float | None) -> str:
        """Return a number of this check for people."""
        return shown(value, self.form)

    @property
    def threshold(self) -> str:
        """The limits for people."""
        text = f"{self.severity} {self.beyond} {self.shown(self.limit)}"
        if self.problem_limit is not None:
            text += f", problem {self.beyond} {self.shown(self.problem_limit)}"
        return text


@dataclass(frozen=True)
class Measurement:
    """A number and where it was measured."""

    value: float
    instrument: str | None = None
    column: str | None = None
    #: Rows of the file or array, or a span of time.
    rows: str | None = None
    #: What else there is to know, in a few words.
    detail: str = ""
    #: Of a cluster: the broker, topic, partition or group.
    resource: str | None = None

    @property
    def place(self) -> str:
        """Where, for people."""
        return ", ".join(part for part in (self.resource, self.instrument, self.column, self.rows) if part)


@dataclass(frozen=True)
class Finding:
    """A check whose number is beyond its limit."""

    check: Check
    #: Those beyond the limit, worst first.
    evidence: tuple[Measurement, ...]
    severity: Severity
    remedy: str
    #: A command or setting that helps, where there is one; several stand on lines of their own.
    command: str | None = None

    @property
    def measured(self) -> float:
        """The worst number."""
        return self.evidence[0].value

    def as_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {
            "code": self.check.code,
            "severity": self.severity,
            "title": self.check.title,
            "measures": self.check.measures,
            "measured": _finite(self.measured),
            "threshold": self.check.limit_at(self.measured),
            "beyond": self.check.beyond,
            "evidence": [
                {
                    "measured": _finite(each.value),
                    "instrument": each.instrument,
                    "column": each.column,
                    "rows": each.rows,
                    "resource": each.resource,
                    "detail": each.detail,
                }
                for each in self.evidence
            ],
            "remedy": self.remedy,
            "command": self.command,
        }


@dataclass(frozen=True)
class Clear:
    """A check that found nothing, with the number nearest to its limit."""

    check: Check
    measured: float
    detail: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        measured, limit = _finite(self.measured), self.check.limit
        return {"code": self.check.code, "measured": measured, "threshold": limit, "detail": self.detail}


@dataclass(frozen=True)
class Skipped:
    """A check that could not be made, and why."""

    check: Check
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        return {"code": self.check.code, "reason": self.reason}


Outcome = Finding | Clear | Skipped


@dataclass(frozen=True)
class Report:
    """All that an examination found."""

    patient: Patient
    subject: str
    #: What was looked at, in a few numbers.
    facts: dict[str, Any] = field(default_factory=dict)
    outcomes: tuple[Outcome, ...] = ()

    @property
    def findings(self) -> list[Finding]:
        """The gravest first."""
        found = [outcome for outcome in self.outcomes if isinstance(outcome, Finding)]
        return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))

    def count(self, severity: Severity) -> int:
        """Return how many findings are so grave."""
        return sum(finding.severity == severity for finding in self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return what a program reads."""
        kinds: tuple[type[Clear | Skipped], ...] = (Clear, Skipped)
        clear, skipped = ([each.as_json() for each in self.outcomes if isinstance(each, kind)] for kind in kinds)
        return {
            "of": self.patient,
            "subject": self.subject,
            "facts": self.facts,
            "counts": {f"{severity}s": self.count(severity) for severity in SEVERITIES},
            "findings": [finding.as_json() for finding in self.findings],
            "clear": clear,
            "not_made": skipped,
        }


_registry: dict[str, Check] = {}


def register(check: Check) -> Check:
    """Add a check to the registry and return it."""
    assert check.code not in _registry, check.code
    _registry[check.code] = check
    return check


def registered() -> tuple[Check, ...]:
    """Return the checks of all modules imported so far; `daemon.doctor.all_checks` imports them all."""
    return tuple(_registry.values())


def judge(
    check: Check,
    measurements: Iterable[Measurement],
    *,
    remedy: str | None = None,
    command: str | None = None,
    severity: Severity | None = None,
    otherwise: str = "there was nothing to measure",
) -> Outcome:
    """Hold measurements against the limit of their check.

    Parameters
    ----------
    remedy, command, severity : more to the point than the check's own
    otherwise : why there are no measurements, where there are none
    """
    taken = list(measurements)
    if not taken:
        return Skipped(check, otherwise)
    worst_first = sorted(taken, key=lambda each: _badness(check, each.value), reverse=True)
    beyond = [each for each in worst_first if check.found_at(each.value)]
    if not beyond:
        return Clear(check, worst_first[0].value, worst_first[0].detail)
    grave = severity or check.severity_at(beyond[0].value)
    return Finding(check, tuple(beyond[:PLACES_MAX]), grave, remedy or check.remedy, command)


def seen_in_part(outcome: Outcome, unseen: str) -> Outcome:
    """Return an outcome; one that found nothing was not made where some of it could not be seen, and why not."""
    return Skipped(outcome.check, unseen) if unseen and isinstance(outcome, Clear) else outcome


def skip_all(checks: Sequence[Check], reason: str) -> list[Outcome]:
    """Return that none of these checks could be made."""
    return [Skipped(check, reason) for check in checks]


def shown(value: float | None, form: Form) -> str:
    """Return a number for people."""
    if value is None or not math.isfinite(value):
        return "no finite number" if value is None or math.isnan(value) else f"{value}"
    if form == "share":
        return f"{100 * value:.3g} %" if abs(value) < 1 else f"{100 * value:.0f} %"
    if form == "count":
        return f"{value:.0f}"
    if form == "seconds":
        return f"{value:.3g} s" if value < 1000 else f"{value:.0f} s"
    return f"{value:.3g}"


def _is_beyond(value: float, limit: float, side: Literal["above", "below"]) -> bool:
    return not value <= limit if side == "above" else not value >= limit


def _badness(check: Check, value: float) -> float:
    if math.isnan(value):
        return math.inf
    return value if check.beyond == "above" else -value


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
