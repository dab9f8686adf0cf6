"""The revision: one hash of everything that can reach a payload.

Within one revision and one CPU type the same log gives the same bits. It stands in `build_info`, in snapshots and in
markers: a state of another revision is no state of ours.
"""

from __future__ import annotations

import hashlib
import json
import platform
from typing import Any

import numpy as np

from daemon.config import PipelineSettings, Settings
from daemon.core.sessions import Rules
from daemon.core.step import Step

#: Raise it when a change of the core's code changes payloads or states.
CORE_VERSION = 3
#: The settings marked (revision).
SHAPING = (
    "warmup_ticks",
    "future_skew_seconds",
    "max_lateness_seconds",
    "seq_restart_seconds",
    "coverage",
    "instruments_per_partition_max",
)


def revision(model_id: str, settings: Settings, rules: Rules, step: Step) -> str:
    """Return the revision, 12 hexadecimal digits.

    Parameters
    ----------
    model_id : the bundle's id
    rules : the resolved rules; their boundary tables count, not only their settings
    step : its engine and tile size count
    """
    pipeline: PipelineSettings = settings.pipeline
    parts: dict[str, Any] = {
        "core": CORE_VERSION,
        "model": model_id,
        "pipeline": {name: getattr(pipeline, name) for name in SHAPING},
        "sessions": [rule.model_dump() for rule in settings.session],
        "boundaries": rules.digest(),
        "map": settings.ticks.map.model_dump() if settings.ticks.map else None,
        "engine": _engine(step),
        "tile_rows": step.tile_rows,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


def _engine(step: Step) -> str:
    """Name a step, and the step that it runs: a window over numpy has other bits than one over TensorFlow."""
    inner = getattr(step, "inner", None)
    return type(step).__name__ + ("" if inner is None else f"({_engine(inner)})")
