"""Examines the cluster of a service: brokers, rights, topics, the group, what a restart would meet, the ticks.

Everything is asked from outside, beside a daemon that may be running: no group is joined, nothing is committed or
written. Each family of checks asks its own questions; one that cannot be answered, for want of a right or a broker,
leaves out the checks that need it and no others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from daemon.config import Settings
from daemon.doctor.cluster import brokers, flow, group, recovery, rights, topics, transactions
from daemon.doctor.cluster.commands import Commands
from daemon.doctor.cluster.looks import Ends, Look
from daemon.doctor.finding import Check, Outcome, Report, registered, skip_all
from daemon.doctor.material import Listener
from daemon.errors import AccessDenied, BrokerUnavailable, TickcastError, TopicError
from daemon.transport.connection import Connection
from daemon.transport.kafka_hanging import OFFSETS_TOPIC, offsets_partition
from daemon.transport.kafka_reader import KafkaReader
from daemon.transport.kafka_view import ClusterView, Contact, knock
from daemon.transport.topics import Place, TopicFacts

#: Newest ticks read of each partition.
SAMPLE = 500
#: Time between the two looks at the group, at least.
WATCH_SECONDS = 3.0

Answer = TypeVar("Answer")
#: Topic -> partitions.
Places = dict[str, list[int]]


def examine_cluster(
    settings: Settings,
    *,
    config: Path | None = None,
    sample: int = SAMPLE,
    watch_seconds: float = WATCH_SECONDS,
    listen: Listener = lambda stage, done: None,
) -> Report:
    """Examine a cluster.

    Parameters
    ----------
    config : the settings file, for the commands of remedies
    sample : newest ticks read of each partition, `flow.SAMPLE_MAX` of all
    watch_seconds : between the two looks at the group

    Raises
    ------
    BrokerUnavailable : none of the bootstrap servers answers
    AccessDenied : they refuse our login
    """
    connection = Connection.from_settings(settings.kafka)
    listen("asking the servers", None)
    contacts = knock(connection)
    _require_one(contacts, settings.kafka.bootstrap_servers)
    view = ClusterView(connection)
    reader = KafkaReader(connection, {"ticks": settings.topics.ticks, "state": settings.topics.state})
    examination = _Examination(Commands(settings, config), view, reader, listen)
    try:
        examination.run(contacts, sample, watch_seconds)
    finally:
        reader.close()
        view.close()
    subject = f"{settings.kafka.bootstrap_servers}, group {settings.kafka.group_id}"
    return Report("cluster", subject, examination.facts, tuple(examination.outcomes))


class _Asked(Generic[Answer]):
    """A question that is asked when its answer is first needed, and once: a failure stays one."""

    def __init__(self, ask: Callable[[], Answer]) -> None:
        self._ask = ask
        self._outcome: tuple[Answer, None] | tuple[None, TickcastError] | None = None

    def __call__(self) -> Answer:
        if self._outcome is None:
            try:
                self._outcome = (self._ask(), None)
            except TickcastError as error:
                self._outcome = (None, error)
        answer, failure = self._outcome
        if failure is not None:
            raise failure
        return answer  # type: ignore[return-value]


class _Examination:
    """The outcomes so far, and what was learned on the way."""

    def __init__(self, commands: Commands, view: ClusterView, reader: KafkaReader, listen: Listener) -> None:
        self.outcomes: list[Outcome] = []
        self.facts: dict[str, Any] = {}
        self._commands = commands
        self._view = view
        self._reader = reader
        self._listen = listen

    def run(self, contacts: Sequence[Contact], sample: int, watch_seconds: float) -> None:
        """Ask, and judge the answers, family by family."""
        view, reader, commands, settings = self._view, self._reader, self._commands, self._commands.settings
        reached = brokers.reach(contacts, view)
        described = _Asked(lambda: self._describe(len(reached)))
        internal = _Asked(view.internal_places)
        self._make("asking brokers", brokers.ANSWERS, lambda: brokers.examine_answers(contacts, reached))
        there = [each.broker for each in reached if each.error is None]
        if not there:
            self.outcomes += skip_all(self._left(), "no broker can be reached at the address that it gives to clients")
            return
        self._make("asking brokers", brokers.SETTINGS, lambda: brokers.examine_settings(there, view))
        self._make("asking for rights", rights.CHECKS, lambda: rights.examine_rights(described(), view, commands))
        self._make("asking for topics", topics.TOPICS, lambda: topics.examine_topics(described(), commands))
        self._make("asking for topics", topics.CONFIGS, lambda: topics.examine_configs(described(), commands))
        self._make("asking for topics", topics.PLACES, lambda: topics.examine_places(described(), internal()))
        self._make(
            "asking for transactions",
            transactions.CHECKS,
            lambda: transactions.examine_transactions(
                self._written(described(), internal()), view, _now_ms(), commands
            ),
        )

        ends = _Asked(lambda: self._ends(described()))
        first = _Asked(lambda: self._look(described(), ends))
        # In this order: where a service is at work, checkpoints, then offsets, then ends of ticks are each the further.
        kept = _Asked(lambda: recovery.read_checkpoints(reader, described(), settings.kafka.group_id))
        self._make(
            "reading checkpoints",
            recovery.OF_CHECKPOINTS,
            lambda: recovery.examine_checkpoints(kept(), first(), described(), reader, commands),
        )
        self._make(
            "reading checkpoints", (recovery.PINNED_MISSING,), lambda: recovery.examine_pin(kept(), reader, commands)
        )
        began = time.monotonic()
        taken = _Asked(lambda: flow.take_sample(reader, ends(), sample, self._listen))
        self._make("reading ticks", flow.OF_SAMPLE, lambda: flow.examine_sample(taken(), ends(), commands))

        self._listen("looking a second time", None)
        time.sleep(max(0.0, began + watch_seconds - time.monotonic()))
        later = _Asked(lambda: self._ends(described()))
        second = _Asked(lambda: self._look(described(), later))
        self._make(
            "looking a second time", group.CHECKS, lambda: group.examine_group(first(), second(), reader, commands)
        )
        self._make(
            "looking a second time", (flow.CLOCK_BEHIND,), lambda: flow.examine_arrivals(ends(), later(), reader)
        )
        with suppress(TickcastError):
            self.facts |= {"group": second().group.state.lower(), "members": len(second().group.members)}
        with suppress(TickcastError):
            self.facts |= {"ticks_sampled": taken().count, "partitions_not_sampled": taken().left}
        self.facts["seconds_between_looks"] = round(time.monotonic() - began, 1)

    def _make(self, stage: str, checks: Sequence[Check], examine: Callable[[], Iterable[Outcome]]) -> None:
        """Make checks; where a question cannot be answered, those not made yet are left out, with the reason."""
        self._listen(stage, None)
        made: list[Outcome] = []
        try:
            for outcome in examine():
                made.append(outcome)  # noqa: PERF402 - what was made before a failure counts
        except TickcastError as error:
            done = {outcome.check.code for outcome in made}
            made += skip_all([check for check in checks if check.code not in done], str(error))
        self.outcomes += made

    def _left(self) -> list[Check]:
        """Return the checks that have not been made."""
        made = {outcome.check.code for outcome in self.outcomes}
        return [check for check in registered() if "cluster" in check.of and check.code not in made]

    def _describe(self, broker_count: int) -> dict[str, TopicFacts]:
        view = self._view
        self.facts |= {"cluster": view.cluster_id(), "kafka": view.release(), "brokers": broker_count}
        found = view.topics(self._commands.settings.topics)
        self.facts["partitions"] = found["ticks"].partitions or 0
        return found

    def _written(self, described: Mapping[str, TopicFacts], internal: Mapping[str, Sequence[Place]]) -> Places:
        """Return the partitions that transactions of the service touch, as far as somebody leads them."""
        places = {topic.name: topic.led for topic in described.values()}
        if kept := internal.get(OFFSETS_TOPIC):
            own = kept[offsets_partition(self._commands.settings.kafka.group_id, len(kept))]
            places[OFFSETS_TOPIC] = [] if own.leader is None else [own.partition]
        return {topic: partitions for topic, partitions in places.items() if partitions}

    def _ends(self, described: Mapping[str, TopicFacts]) -> Ends:
        ticks = described["ticks"]
        return Ends(_now_ms(), ticks.name, self._view.bounds(ticks.name, _led(ticks)))

    def _look(self, described: Mapping[str, TopicFacts], ends: _Asked[Ends]) -> Look:
        ticks = described["ticks"]
        group = self._view.group(self._commands.settings.kafka.group_id, ticks.name, _led(ticks))
        return Look(**vars(ends()), group=group)


def _require_one(contacts: Sequence[Contact], servers: str) -> None:
    """Raise unless a server answers."""
    errors = [contact.error for contact in contacts if contact.error is not None]
    if len(errors) < len(contacts):
        return
    for error in errors:  # a login that is refused says more than a server that is not there
        if isinstance(error, AccessDenied):
            raise error
    raise (
        errors[0]
        if len(errors) == 1
        else BrokerUnavailable(
            f"no Kafka broker answered at any of {servers}; are they running, and is [kafka] bootstrap_servers right?"
        )
    )


def _led(ticks: TopicFacts) -> list[int]:
    """Return the partitions of the ticks that somebody leads.

    Raises
    ------
    TopicError : there is none
    """
    if not ticks.led:
        raise TopicError(f"no partition of {ticks.name} can be read")
    return ticks.led


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
