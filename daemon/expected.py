"""How many instruments are expected to tick now, so that a closed market is no alarm and a silent feed is one.

Only event time decides what is published; here, where people look, the clock does. By rule, as `Rule.expected_from`
says in the core:

    calendar       within the opening hours of its exchange, outside its breaks
    never          always: its market does not close
    gap            until it has been silent for `gap_seconds`
    daily          the same; a day's boundary does not say whether the market is open
    field          until it has been silent for an hour

So only the first two can tell a feed that died from a market that closed, and alerts on silence look at them alone. An
instrument that has been silent for two weeks is expected by no rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import get_args

from daemon.core.instrument import Instrument
from daemon.core.sessions import Kind, Rule, Rules


class ExpectedInstruments:
    """Counts instruments that are expected to tick, by the kind of their session rule.

    It remembers the rule of each instrument it has just counted, since trying the globs costs microseconds; those that
    are gone are forgotten with the next count.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._rule_of: dict[str, Rule] = {}

    def count(self, instruments: Iterable[Instrument], now: int) -> dict[Kind, int]:
        """Return how many are expected, for every kind of rule.

        Parameters
        ----------
        now : Unix time, ns
        """
        known, seen = self._rule_of, dict[str, Rule]()
        since: dict[Rule, int] = {}
        found: Counter[Kind] = Counter()
        for instrument in instruments:
            name = instrument.name
            rule = seen[name] = known.get(name) or self._rules.find(name)
            if rule not in since:
                since[rule] = rule.expected_from(now)
            if instrument.last_ts >= since[rule]:
                found[rule.kind] += 1
        self._rule_of = seen
        return {kind: found[kind] for kind in get_args(Kind)}
