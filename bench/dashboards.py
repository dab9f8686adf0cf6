"""What the dashboards show of a real run: a market, a model trained on its past, the daemon, a real Prometheus.

python -m bench.dashboards docs/dashboards.md [--seconds S]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

from bench.rig import machine, rig
from daemon.config import SessionSettings
from daemon.dev.dashboards import DASHBOARDS
from daemon.dev.dashboards.values import listed
from daemon.dev.demo.feed import SimulatedTicks
from daemon.training import TrainingOptions, train
from tests.deploy.stage import GAP_SECONDS, running_stage

HEAD = """# The dashboards, panel by panel

Every panel of the three dashboards in `deploy/grafana/dashboards/`, with what its query gave in a real run: a simulated
market of eight instruments and 200 ticks/s, a model trained on five minutes of its past, one daemon, one Kafka and one
Prometheus on one machine, {seconds:.0f} s after the first tick. The model is small and knows this market; its figures
say how to read a panel, not what to expect of yours.

Measured {machine}; load {load:.0f} on {cores} cores.
`python -m bench.dashboards docs/dashboards.md` measures it again, and `python -m daemon.dev.dashboards --queries URL`
writes the same list of your own Prometheus.
"""


def main() -> None:
    """Run it and write the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--seconds", type=float, default=300.0)
    options = parser.parse_args()
    market = SimulatedTicks()
    sessions = (SessionSettings(rule="gap", gap_seconds=GAP_SECONDS),)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder) / "bundle"
        train(list(market.past()), TrainingOptions(units=32, layers=1, epochs=6, sessions=sessions), bundle)
        with (
            rig(Path(folder)) as on,
            running_stage(on.bootstrap, on.topics("shown"), bundle, Path(folder) / "stage", market.present()) as stage,
        ):
            time.sleep(options.seconds)
            shown = ["\n".join(listed(dashboard, stage.prometheus)) for dashboard in DASHBOARDS]
    head = HEAD.format(seconds=options.seconds, machine=machine(), load=os.getloadavg()[0], cores=os.cpu_count())
    options.document.write_text("\n".join([head, *shown]).rstrip() + "\n", "utf-8")


if __name__ == "__main__":
    main()
