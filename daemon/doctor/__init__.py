"""The doctor: measured findings on ticks, models and bundles, each with its limit and a remedy."""

from __future__ import annotations

from importlib import import_module

from daemon.doctor.finding import Check, registered

#: Every module that registers checks, in the order of their table.
FAMILIES = ("ticks", "prices", "pauses", "leakage", "worth", "learning", "shapes", "scales", "answers", "bundle")


def all_checks() -> tuple[Check, ...]:
    """Return every check there is."""
    for family in FAMILIES:
        import_module(f"daemon.doctor.{family}")
    return registered()
