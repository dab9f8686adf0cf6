"""Examines the cluster of a service: brokers, rights, topics, the group, what a restart would meet, the ticks.

Everything is asked from outside, beside a daemon that may be running: no group is joined, nothing is committed or
written. Each family of checks asks its own questions; one that cannot be answered, for want of a right or a broker,
leaves out the checks that need it and no others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

from daemon.config import Settings
from daemon.doctor.cluster import brokers, configs, flow, group, recovery, rights, topics, transactions
from daemon.doctor.cluster.commands import Commands
from daemon.doctor.cluster.looks import Ends, Look
from daemon.doctor.finding import Check, Outcome, Report, registered, skip_all
from daemon.doctor.material import Listener
from daemon.errors import AccessDenied, BrokerUnavailable, TickcastError, TopicError
from daemon.transport.connection import Connection
from daemon.transport.kafka_hanging import OFFSETS_TOPIC, offsets_partition
from daemon.transport.kafka_reader import KafkaReader
from daemon.transport.kafka_view import ClusterView, Contact, ask_servers
from daemon.transport.topics import TopicFacts

#: Newest ticks read of each partition.
SAMPLE = 500
#: Time between the two looks at the group, at least.
WATCH_SECONDS = 3.0

Answer = TypeVar("Answer")


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
    AccessDenied : they refuse our login, or are not to be trusted
    SettingsError : a file with a secret cannot be read
    """
    connection = Connection.from_settings(settings.kafka)
    listen("asking the servers", None)
    contacts = ask_servers(connection)
    _require_one(contacts, settings.kafka.bootstrap_servers)
    view = ClusterView(connection)
    reader = KafkaReader(connection, {"ticks": settings.topics.ticks, "state": settings.topics.state})
    examination = _Examination(Commands(settings, config), view, reader, listen)
    try:
        examination.of_brokers(contacts)
        examination.of_topics()
        examination.of_restart()
        examination.of_flow(sample, watch_seconds)
    except BrokerUnavailable as error:
        examination.leave_out_the_rest(str(error))
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
    """The outcomes so far, and the questions that more than one family of checks rests on."""

    def __init__(self, commands: Commands, view: ClusterView, reader: KafkaReader, listen: Listener) -> None:
        self.outcomes: list[Outcome] = []
        self.facts: dict[str, Any] = {}
        self._commands = commands
        self._view = view
        self._reader = reader
        self._listen = listen
        self._group_id = commands.settings.kafka.group_id
        self._topics = _Asked(lambda: view.topics(commands.settings.topics))
        self._internal = _Asked(view.internal_places)
        self._checkpoints = _Asked(lambda: recovery.read_checkpoints(reader, self._topics(), self._group_id))
        self._ends = _Asked(self._look_at_ends)
        self._first = _Asked(lambda: self._look(self._ends))

    def of_brokers(self, contacts: Sequence[Contact]) -> None:
        """Ask the brokers; where none can be reached, nothing else is asked."""
        view = self._view
        self._listen("asking brokers", None)
        reached = brokers.reach(contacts, view)
        there = [each.broker for each in reached if each.error is None]
        self._make(brokers.ANSWERS, lambda: brokers.examine_answers(contacts, reached))
        if not there:
            raise BrokerUnavailable("no broker can be reached at the address that it gives to clients")
        self._make(brokers.SETTINGS, lambda: brokers.examine_settings(there, view))
        with suppress(TickcastError):
            self.facts |= {"cluster": view.cluster_id(), "kafka": view.release(), "brokers": len(reached)}

    def of_topics(self) -> None:
        """Ask for rights, topics and transactions."""
        view, commands = self._view, self._commands
        self._listen("asking for rights and topics", None)
        self._make(rights.CHECKS, lambda: rights.examine_rights(self._topics(), view, commands))
        self._make(topics.TOPICS, lambda: topics.examine_topics(self._topics(), commands))
        self._make(configs.CHECKS, lambda: configs.examine_configs(self._topics(), commands))
        self._make(topics.PLACES, lambda: topics.examine_places(self._topics(), self._internal()))
        self._listen("asking for transactions", None)
        self._make(
            transactions.CHECKS,
            lambda: transactions.examine_transactions(self._written(), view, _now_ms(), commands),
        )
        with suppress(TickcastError):
            self.facts["partitions"] = self._topics()["ticks"].partitions or 0

    def of_restart(self) -> None:
        """Read checkpoints, and look at the group for the first time.

        In this order: where a service is at work, checkpoints, committed offsets and ends are each ahead of the last.
        """
        reader, commands = self._reader, self._commands
        self._listen("reading checkpoints", None)
        self._make(
            recovery.OF_CHECKPOINTS,
            lambda: recovery.examine_checkpoints(self._checkpoints(), self._first(), self._topics(), reader, commands),
        )
        self._make(recovery.OF_PINS, lambda: recovery.examine_pin(self._checkpoints(), reader, commands))

    def of_flow(self, sample: int, watch_seconds: float) -> None:
        """Read ticks meanwhile, and look at the group for the second time."""
        reader, commands = self._reader, self._commands
        began = time.monotonic()
        taken = _Asked(lambda: flow.take_sample(reader, self._ends(), sample, self._listen))
        self._make(flow.OF_SAMPLE, lambda: flow.examine_sample(taken(), self._ends(), commands))
        self._listen("looking a second time", None)
        time.sleep(max(0.0, began + watch_seconds - time.monotonic()))
        ends = _Asked(self._look_at_ends)
        second = _Asked(lambda: self._look(ends))
        self._make(group.CHECKS, lambda: group.examine_group(self._first(), second(), reader, commands))
        self._make(flow.OF_ARRIVALS, lambda: flow.examine_arrivals(self._ends(), ends(), reader))
        with suppress(TickcastError):
            self.facts["ticks_sampled"] = taken().count
        with suppress(TickcastError):
            seen = second().group
            seconds = round((second().at_ms - self._first().at_ms) / 1000, 1)
            self.facts |= {"group": seen.state.lower(), "members": len(seen.members), "seconds_between_looks": seconds}

    def leave_out_the_rest(self, reason: str) -> None:
        """Say of all checks that have not been made why."""
        made = {outcome.check.code for outcome in self.outcomes}
        left = [check for check in registered() if "cluster" in check.of and check.code not in made]
        self.outcomes += skip_all(left, reason)

    def _make(self, checks: Sequence[Check], examine: Callable[[], Iterable[Outcome]]) -> None:
        """Make checks; where a question cannot be answered, those not made yet are left out, with the reason."""
        made: list[Outcome] = []
        try:
            for outcome in examine():
                made.append(outcome)  # noqa: PERF402 - what was made before a failure counts
        except TickcastError as error:
            done = {outcome.check.code for outcome in made}
            made += skip_all([check for check in checks if check.code not in done], str(error))
        self.outcomes += made

    def _written(self) -> dict[str, list[int]]:
        """Return the partitions that transactions of the service touch, by topic, as far as somebody leads them."""
        places = {topic.name: topic.led for topic in self._topics().values()}
        if kept := self._internal().get(OFFSETS_TOPIC):
            own = kept[offsets_partition(self._group_id, len(kept))]
            places[OFFSETS_TOPIC] = [] if own.leader is None else [own.partition]
        return {topic: partitions for topic, partitions in places.items() if partitions}

    def _look_at_ends(self) -> Ends:
        ticks = self._ticks()
        bounds = self._view.bounds(ticks.name, ticks.led)
        return Ends(_now_ms(), ticks.name, bounds)

    def _look(self, ends: _Asked[Ends]) -> Look:
        ticks = self._ticks()
        group = self._view.group(self._group_id, ticks.name, ticks.led)
        return Look(**vars(ends()), group=group)

    def _ticks(self) -> TopicFacts:
        ticks = self._topics()["ticks"]
        if not ticks.led:
            raise TopicError(f"no partition of {ticks.name} can be read")
        return ticks


def _require_one(contacts: Sequence[Contact], servers: str) -> None:
    """Raise unless a server answers."""
    errors = [contact.error for contact in contacts if contact.error is not None]
    if len(errors) < len(contacts):
        return
    for error in errors:  # a login that is refused says more than a server that is not there
        if isinstance(error, AccessDenied):
            raise error
    if len(errors) == 1:
        raise errors[0]
    raise BrokerUnavailable(
        f"no Kafka broker answered at any of {servers}; are they running, and is [kafka] bootstrap_servers right?"
    )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
