"""The dashboards of Grafana as code: what each panel asks, in which unit, and from where on it is bad.

    python -m daemon.dev.dashboards                  writes deploy/grafana/dashboards/*.json anew
    python -m daemon.dev.dashboards --queries URL    prints every panel with its present values, asked of a Prometheus

The JSON is written for people's Grafanas and read by tests; nobody edits it by hand.
"""

from __future__ import annotations

from daemon.dev.dashboards.grafana import Dashboard
from daemon.dev.dashboards.models import MODELS
from daemon.dev.dashboards.operations import OPERATIONS
from daemon.dev.dashboards.overview import OVERVIEW

DASHBOARDS: tuple[Dashboard, ...] = (OVERVIEW, MODELS, OPERATIONS)
