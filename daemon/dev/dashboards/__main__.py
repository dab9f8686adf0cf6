"""Writes the dashboards, or lists what their panels show now. See the package."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from daemon.dev.dashboards import DASHBOARDS
from daemon.dev.dashboards.grafana import Dashboard, to_json
from daemon.dev.dashboards.values import Prometheus, listed

FOLDER = Path("deploy/grafana/dashboards")


def text_of(dashboard: Dashboard) -> str:
    """Return the file of a dashboard."""
    return json.dumps(to_json(dashboard), indent=2, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments say; without any, those of the command line."""
    parser = argparse.ArgumentParser(prog="python -m daemon.dev.dashboards", description=__doc__)
    parser.add_argument("--queries", metavar="URL", help="list every panel with its values, asked of this Prometheus")
    options = parser.parse_args(arguments)
    if options.queries is None:
        FOLDER.mkdir(parents=True, exist_ok=True)
        for dashboard in DASHBOARDS:
            (FOLDER / f"{dashboard.uid}.json").write_text(text_of(dashboard), "utf-8")
        return 0
    prometheus = Prometheus(options.queries)
    try:
        for dashboard in DASHBOARDS:
            print("\n".join(listed(dashboard, prometheus)))
    except OSError as error:
        print(f"{options.queries}: {error}; is a Prometheus running there?", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
