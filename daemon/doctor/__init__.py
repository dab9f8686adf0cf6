"""The doctor: measured findings on ticks, models, bundles and clusters, each with its limit and a remedy."""

from __future__ import annotations

from importlib import import_module

from daemon.doctor.finding import Check

#: Every module that registers checks, in the order of their table; none imports TensorFlow.
FAMILIES = (
    "ticks",
    "prices",
    "pauses",
    "leakage",
    "worth",
    "learning",
    "shapes",
    "scales",
    "answers",
    "bundle",
    "cluster.brokers",
    "cluster.rights",
    "cluster.topics",
    "cluster.configs",
    "cluster.group",
    "cluster.recovery",
    "cluster.transactions",
    "cluster.flow",
)


def all_checks() -> tuple[Check, ...]:
    """Return every check there is, in the order of the families, whatever was imported before."""
    modules = [import_module(f"daemon.doctor.{family}") for family in FAMILIES]
    checks = {value.code: value for module in modules for value in vars(module).values() if isinstance(value, Check)}
    return tuple(checks.values())
