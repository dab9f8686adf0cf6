"""Findings on brokers: who answers, what they know, and settings of theirs that the daemon has to live with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

from daemon.doctor.finding import Check, Measurement, Outcome, judge, register
from daemon.errors import BrokerUnavailable, TickcastError
from daemon.transport.kafka_source import SESSION_TIMEOUT_MS
from daemon.transport.kafka_view import KNOCK_SECONDS, Broker, ClusterView, Contact
from daemon.transport.transactional_sink import TRANSACTION_TIMEOUT_SECONDS

SERVER_SILENT = register(
    Check(
        code="server_silent",
        of=("cluster",),
        severity="warning",
        title="a bootstrap server does not answer",
        measures="time until a server of [kafka] bootstrap_servers answered",
        limit=KNOCK_SECONDS,
        form="seconds",
        remedy="start it, or take it out of [kafka] bootstrap_servers: a start may knock there first",
    )
)
BROKER_SILENT = register(
    Check(
        code="broker_silent",
        of=("cluster",),
        severity="problem",
        title="a broker does not answer at the address that it gives to clients",
        measures="time until a broker of the cluster's metadata answered",
        limit=KNOCK_SECONDS,
        form="seconds",
        remedy="start it; or its advertised.listeners names an address that cannot be reached from here",
    )
)
OLD_BROKER = register(
    Check(
        code="old_broker",
        of=("cluster",),
        severity="problem",
        title="a broker does not know what exactly-once takes",
        measures="requests that the daemon sends and a broker does not know in the version that is needed",
        limit=0,
        form="count",
        remedy="run Apache Kafka 3.0 or newer",
    )
)
ANSWERS = (SERVER_SILENT, BROKER_SILENT, OLD_BROKER)

AUTO_CREATE = register(
    Check(
        code="auto_create",
        of=("cluster",),
        severity="warning",
        title="brokers create topics that somebody mistyped",
        measures="1 where auto.create.topics.enable is true",
        limit=0,
        form="count",
        remedy="set auto.create.topics.enable=false on the brokers: no client can be told not to do it",
    )
)
TRANSACTION_LIMIT = register(
    Check(
        code="transaction_limit",
        of=("cluster",),
        severity="problem",
        title="brokers do not grant transactions of the daemon's length",
        measures="transaction.max.timeout.ms",
        limit=TRANSACTION_TIMEOUT_SECONDS,
        beyond="below",
        form="seconds",
        remedy="set transaction.max.timeout.ms on the brokers to its default, 900000",
    )
)
SLOW_ABORT = register(
    Check(
        code="slow_abort",
        of=("cluster",),
        severity="warning",
        title="transactions of killed processes hold readers up for long",
        measures="transaction.abort.timed.out.transaction.cleanup.interval.ms, on top of the timeout of 10 s",
        limit=10,
        form="seconds",
        remedy="set transaction.abort.timed.out.transaction.cleanup.interval.ms on the brokers to 10000 or less",
    )
)
SESSION_LIMITS = register(
    Check(
        code="session_limits",
        of=("cluster",),
        severity="problem",
        title="brokers do not take the daemon's session timeout, so it cannot join its group",
        measures="how far 10 s are below group.min.session.timeout.ms or above group.max.session.timeout.ms",
        limit=0,
        form="seconds",
        remedy="set both on the brokers to their defaults, 6000 and 1800000",
    )
)
OFFSETS_FORGOTTEN = register(
    Check(
        code="offsets_forgotten",
        of=("cluster",),
        severity="warning",
        title="offsets of a stopped group are soon forgotten",
        measures="offsets.retention.minutes; a group without offsets goes on at its checkpoint, and repeats forecasts",
        limit=86_400,
        beyond="below",
        form="seconds",
        remedy="set offsets.retention.minutes on the brokers to its default, 10080",
    )
)
SETTINGS = (AUTO_CREATE, TRANSACTION_LIMIT, SLOW_ABORT, SESSION_LIMITS, OFFSETS_FORGOTTEN)

SESSION = SESSION_TIMEOUT_MS / 1000
#: Request -> version without which the daemon cannot keep its promises.
NEEDED = {
    "Produce": 3,  # records with headers and transactions, KIP-98
    "Fetch": 4,  # read_committed, KIP-98
    "OffsetFetch": 7,  # offsets that no open transaction holds, KIP-447
    "TxnOffsetCommit": 3,  # fenced by the group's generation, KIP-447
    "InitProducerId": 0,
    "JoinGroup": 5,  # static members, KIP-345
    "LeaveGroup": 3,
    "DescribeProducers": 0,  # transactions that Kafka forgot, KIP-664
    "DescribeTransactions": 0,
}


class Reached(NamedTuple):
    """What came of asking one broker for the requests that it knows."""

    broker: Broker
    seconds: float
    requests: Mapping[str, int]
    error: TickcastError | None


def reach(contacts: Sequence[Contact], view: ClusterView) -> list[Reached]:
    """Ask each broker at the address that it gives to clients, also one that the cluster has lost."""
    brokers = {broker: False for contact in contacts for broker in contact.brokers}
    with suppress(TickcastError):  # where none can be reached, those are all there is to know
        brokers |= view.brokers()
    found = []
    for broker, lost in sorted(brokers.items()):
        began, requests, failure = time.monotonic(), {}, None
        try:
            if lost:
                raise BrokerUnavailable(f"it is registered at {broker.address}, and the cluster hears nothing of it")
            requests = view.requests(broker)
        except TickcastError as error:
            failure = error
        found.append(Reached(broker, time.monotonic() - began, requests, failure))
    return found


def examine_answers(contacts: Sequence[Contact], reached: Sequence[Reached]) -> Iterator[Outcome]:
    """Judge who answers: the bootstrap servers, and the brokers that they name."""
    yield judge(SERVER_SILENT, [_answered(each.server, each.error, each.seconds) for each in contacts])
    yield judge(BROKER_SILENT, [_answered(_name(each.broker), each.error, each.seconds) for each in reached])
    yield judge_requests({_name(each.broker): each.requests for each in reached if each.error is None})


def judge_requests(known: Mapping[str, Mapping[str, int]]) -> Outcome:
    """Judge which requests brokers know: broker -> request -> highest version."""
    found = []
    for broker, versions in known.items():
        lacking = [f"{name} {needed}" for name, needed in NEEDED.items() if versions.get(name, -1) < needed]
        found.append(Measurement(len(lacking), resource=broker, detail=", ".join(lacking)))
    return judge(OLD_BROKER, found, otherwise="no broker answered")


def examine_settings(brokers: Sequence[Broker], view: ClusterView) -> Iterator[Outcome]:
    """Judge the settings of brokers."""
    settings = {_name(broker): view.broker_settings(broker) for broker in brokers}
    yield _judged(AUTO_CREATE, settings, "auto.create.topics.enable", lambda text: float(text == "true"))
    yield _judged(TRANSACTION_LIMIT, settings, "transaction.max.timeout.ms", _ms)
    yield _judged(SLOW_ABORT, settings, "transaction.abort.timed.out.transaction.cleanup.interval.ms", _ms)
    least = _measured(settings, "group.min.session.timeout.ms", lambda text: _ms(text) - SESSION)
    most = _measured(settings, "group.max.session.timeout.ms", lambda text: SESSION - _ms(text))
    yield judge(SESSION_LIMITS, [*least, *most], otherwise="the brokers do not show their limits")
    yield _judged(OFFSETS_FORGOTTEN, settings, "offsets.retention.minutes", lambda text: 60 * int(text))


def _answered(name: str, error: TickcastError | None, seconds: float) -> Measurement:
    return Measurement(seconds if error is None else math.inf, resource=name, detail=str(error or ""))


def _judged(
    check: Check, settings: Mapping[str, Mapping[str, str]], key: str, number: Callable[[str], float]
) -> Outcome:
    return judge(check, _measured(settings, key, number), otherwise=f"the brokers do not show {key}")


def _measured(settings: Mapping[str, Mapping[str, str]], key: str, number: Callable[[str], float]) -> list[Measurement]:
    """Measure one setting of each broker; managed clusters show only some of them."""
    return [
        Measurement(number(values[key]), resource=broker, detail=f"{key}={values[key]}")
        for broker, values in settings.items()
        if values.get(key)
    ]


def _ms(text: str) -> float:
    return int(text) / 1000


def _name(broker: Broker) -> str:
    return f"broker {broker.id}"
