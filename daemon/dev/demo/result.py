"""What the demo counted, as one line for programs, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from daemon.dev.demo.ledger import Ledger
from daemon.dev.demo.table import Facts

#: Ids named where many are missing.
NAMED_COUNT = 3


@dataclass
class Result:
    """The books of a run; empty until there is something to count."""

    #: Ticks that the broker acknowledged to the producer.
    tick_count: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    facts: Facts = field(default_factory=Facts)
    daemon_code: int = 0
    #: Last lines of the daemon's log, where it ended by itself.
    daemon_words: str = ""
    #: Whether the topics were read to their ends.
    is_whole: bool = True

    def line(self) -> str:
        """Return the JSON object."""
        return json.dumps(
            {
                "ticks": self.tick_count,
                "forecasts": self.ledger.forecast_count,
                "dead_letters": self.ledger.dead_letter_count,
                "latency_ms": {
                    "p50": _rounded(self.ledger.latency_ms(50)),
                    "p99": _rounded(self.ledger.latency_ms(99)),
                },
                "probe_runs": self.facts.probe_runs,
                "probe_variance": self.facts.probe_variance,
            }
        )

    def problems(self) -> list[str]:
        """Return what broke a promise, in words; nothing when every tick has exactly one outcome."""
        ledger, found = self.ledger, []
        if self.daemon_code or self.daemon_words:
            found.append(f"the daemon ended with code {self.daemon_code}: {self.daemon_words or 'not stopped in time'}")
        if not self.is_whole:
            found.append("the topics could not be read to their ends")
        if ledger.outcome_count != self.tick_count:
            found.append(f"{self.tick_count} ticks have {ledger.outcome_count} outcomes")
        if open_ticks := ledger.open_ticks():
            found.append(f"no outcome for {_named(open_ticks)}")
        if ledger.repeated:
            found.append(f"more than one outcome for {_named(ledger.repeated)}")
        if self.facts.probe_variance:
            found.append(f"the canary's answers differ, variance {self.facts.probe_variance:g}")
        return found


def _named(ids: Sequence[str]) -> str:
    more = len(ids) - NAMED_COUNT
    return ", ".join(ids[:NAMED_COUNT]) + (f" and {more} more" if more > 0 else "")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
