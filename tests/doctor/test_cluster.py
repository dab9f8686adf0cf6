"""Every finding on a cluster: a made case that triggers it, and one that does not; on real brokers, beside a daemon."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import kafka.codec
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ACLOperation, OffsetSpec, ResourceType
from typer.testing import CliRunner

from daemon.cli.doctor import app
from daemon.config import Settings
from daemon.core import marker as markers
from daemon.core import pin as pins
from daemon.core.marker import Marker
from daemon.core.pin import Pin
from daemon.dev.broker import free_port, start_broker
from daemon.dev.broker_properties import HOST
from daemon.dev.child import ChildDaemon, to_toml
from daemon.doctor.cluster import SAMPLE, examine_cluster
from daemon.doctor.cluster.brokers import NEEDED, judge_requests
from daemon.doctor.cluster.commands import Commands
from daemon.doctor.cluster.transactions import examine_transactions
from daemon.doctor.finding import Finding, Report, Skipped
from daemon.errors import AccessDenied, BrokerUnavailable
from daemon.tools.state_topic import newest_marker
from daemon.transport.admin import examine
from daemon.transport.connection import Connection, transactional_id
from daemon.transport.group import read_group
from daemon.transport.kafka_reader import KafkaReader
from daemon.transport.kafka_source import KafkaSource
from daemon.transport.kafka_view import ClusterView
from schemas import ResetCause
from tests.bundles import tiny_bundle
from tests.doctor.cases import clear, found, outcome
from tests.doctor.clusters import UNVERIFIED, Pair, Patient, await_that, feeding, leaders, quote, running_pair
from tests.kafka_fixture import AUTHORIZER

pytestmark = pytest.mark.kafka

#: All that a single broker gives reason for.
ALONE = ["no_spare_copy"]
MINUTE_MS = 60_000


class Site(NamedTuple):
    """The broker of this module, and its listener that asks for a login."""

    bootstrap: str
    login: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    port, login, controller = free_port(), free_port(), free_port()
    properties = (
        AUTHORIZER
        | UNVERIFIED
        | {
            "listeners": f"PLAINTEXT://{HOST}:{port},LOGIN://{HOST}:{login},CONTROLLER://{HOST}:{controller}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{port},LOGIN://{HOST}:{login}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT",
            "controller.quorum.voters": f"1@{HOST}:{controller}",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": (
                'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="right";'
            ),
        }
    )
    with start_broker(port, tmp_path_factory.mktemp("kafka"), properties=properties) as broker:
        yield Site(broker.bootstrap, f"{HOST}:{login}")


@pytest.fixture
def patient(site: Site, tmp_path: Path) -> Iterator[Patient]:
    patient = Patient(site.bootstrap, tmp_path, "patient")
    yield patient
    patient.close()


# --- a service that runs


class Service:
    """A daemon at work on topics of its own."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        tiny_bundle(patient.directory)
        settings = patient.settings().model_dump(include={"kafka": {"bootstrap_servers", "group_id"}, "topics": True})
        settings["model"] = {name: str(patient.directory / name) for name in ("bundle", "bundles")}
        settings["pipeline"] = {"checkpoint_seconds": 0.5}
        self.config = patient.directory / "tickcast.toml"
        self.config.write_text(to_toml(settings))
        self.daemon = ChildDaemon(patient.directory, settings).start()
        self._sent = 0

    def send(self) -> None:
        """Send a tick of one of eight instruments, each at home in one partition."""
        self._sent += 1
        name = f"I{self._sent % 8}"
        self.patient.send(quote(name, bid=100.0 + self._sent % 7, ask=110.0), name.encode(), self._sent % 2)

    def await_rest(self) -> None:
        """Wait until all is answered, and stands in checkpoints."""
        reader = KafkaReader(Connection(self.patient.bootstrap), {"state": self.patient.topics.state})

        def rests() -> bool:
            group = read_group(Connection(self.patient.bootstrap), self.patient.group, self.patient.topics.ticks)
            saved = [newest_marker(reader, row.partition) for row in group.partitions]
            return all(
                row.lag == 0 and marker is not None and marker.next_offset == row.committed
                for row, marker in zip(group.partitions, saved, strict=True)
            )

        await_that(rests, "the daemon answers and saves everything")
        reader.close()

    def traces(self) -> dict[str, Any]:
        """Return all that somebody who joins, commits or writes would change."""
        admin, group = self.patient.admin, self.patient.group
        places = [
            TopicPartition(topic["name"], each["partition_index"])
            for topic in admin.describe_topics()
            for each in topic["partitions"]
        ]
        metrics = self.daemon.metrics()
        return {
            "ends": admin.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST)),
            "committed": admin.list_group_offsets({group: None}),
            "group": admin.describe_groups([group]),
            "groups": sorted(each["group_id"] for each in admin.list_groups()),
            "transactions": sorted(each for found in admin.list_transactions().values() for each in found),
            "daemon": {
                name: value
                for name, value in metrics.items()
                if name.startswith(("tickcast_rebalances", "tickcast_transactions", "tickcast_assigned"))
            },
        }


@pytest.fixture(scope="module")
def service(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    patient = Patient(site.bootstrap, tmp_path_factory.mktemp("service"), "service")
    service = Service(patient)
    service.daemon.wait_ready()
    yield service
    service.daemon.stop()
    patient.close()


@pytest.fixture(scope="module")
def healthy(service: Service) -> Report:
    """The report on a service at work, while ticks come in."""
    with feeding(service.send):
        return service.patient.report(watch_seconds=1.0)


def test_a_service_at_work_has_no_finding_but_that_one_broker_is_no_cluster(healthy: Report):
    assert [finding.check.code for finding in healthy.findings] == ALONE
    assert [each for each in healthy.outcomes if isinstance(each, Skipped)] == []
    assert healthy.facts["group"] == "stable"
    assert 0 < healthy.facts["ticks_sampled"] <= 2 * SAMPLE


def test_looking_changes_nothing_and_disturbs_nobody(service: Service):
    service.send()
    service.await_rest()
    before = service.traces()
    result = CliRunner().invoke(app, ["cluster", "--config", str(service.config), "--json", "--watch", "0.5"])
    assert (result.exit_code, json.loads(result.stdout)["counts"]["problems"]) == (0, 0)
    assert service.traces() == before
    service.send()
    service.await_rest()


# --- brokers


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(tmp_path_factory.mktemp("pair")) as pair:
        yield pair


@pytest.fixture(scope="module")
def reports(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, Report]:
    """What is found on topics with two copies while both brokers run; then, with others, after one was killed."""
    patient = Patient(pair.one.bootstrap, tmp_path_factory.mktemp("two"), "two", copies=2)
    up = patient.report()
    alone = Patient(pair.one.bootstrap, patient.directory, "one", partitions=4)
    settings = alone.settings(kafka={"bootstrap_servers": pair.servers, "group_id": alone.group})
    pair.two.kill()
    await_that(lambda: -1 in leaders(alone.admin, alone.topics.ticks), "the broker that was killed is missed")
    down = examine_cluster(settings, watch_seconds=0.0)
    patient.close()
    alone.close()
    return up, down


def test_a_broker_that_was_killed_and_what_it_takes_along(reports: tuple[Report, Report], pair: Pair):
    up, down = reports
    assert [each.resource for each in found(down, "server_silent").evidence] == [pair.two.bootstrap]
    assert [each.resource for each in found(down, "broker_silent").evidence] == ["broker 2"]
    offline, behind = found(down, "offline_partition"), found(down, "out_of_sync")
    assert offline.severity == "problem"
    assert all("partition" in each.detail for each in offline.evidence)
    assert {each.detail.rpartition(" on ")[2] for each in behind.evidence} == {"broker 2"}
    clear(up, "server_silent")
    clear(up, "broker_silent")
    clear(up, "offline_partition")
    clear(up, "out_of_sync")
    clear(up, "no_spare_copy")
    clear(down, "missing_right")  # the other questions go on


def test_settings_of_a_broker_that_the_daemon_cannot_live_with(reports: tuple[Report, Report], healthy: Report):
    up, _ = reports
    for finding in (
        found(up, "auto_create"),
        found(up, "transaction_limit"),
        found(up, "slow_abort"),
        found(up, "session_limits"),
        found(up, "offsets_forgotten"),
    ):
        assert [each.resource for each in finding.evidence] == ["broker 2"]
        assert "=" in finding.evidence[0].detail
    assert found(up, "transaction_limit").measured == 5
    assert found(up, "session_limits").measured == 10
    clear(healthy, "auto_create")
    clear(healthy, "transaction_limit")
    clear(healthy, "slow_abort")
    clear(healthy, "session_limits")
    clear(healthy, "offsets_forgotten")


def test_a_broker_that_sends_clients_to_an_address_where_nobody_listens(pair: Pair):
    report = examine_cluster(Settings(kafka={"bootstrap_servers": pair.dead_end}))  # type: ignore[arg-type]
    evidence = found(report, "broker_silent").evidence
    assert "broker 1 at 127.0.0.1:" in evidence[-1].detail
    left = [each.reason for each in report.outcomes if isinstance(each, Skipped)]
    assert len(left) > 30
    assert "no broker can be reached at the address that it gives to clients" in left


def test_a_release_that_does_not_know_what_exactly_once_takes(healthy: Report):
    old = {**NEEDED, "OffsetFetch": 5, "JoinGroup": 4}
    del old["DescribeProducers"]
    finding = found([judge_requests({"broker 1": NEEDED, "broker 2": old})], "old_broker")
    assert (finding.measured, finding.evidence[0].resource) == (3, "broker 2")
    assert finding.evidence[0].detail == "OffsetFetch 7, JoinGroup 5, DescribeProducers 0"
    clear(healthy, "old_broker")


# --- rights


def test_missing_rights_are_told_and_leave_out_only_what_needs_them(patient: Patient, healthy: Report):
    topics, group, writer = patient.topics, patient.group, f"{patient.group}/0"
    patient.send(quote(), b"A")
    patient.allow(ResourceType.TOPIC, topics.ticks, ACLOperation.DESCRIBE)
    patient.allow(ResourceType.TOPIC, topics.forecasts, ACLOperation.WRITE)
    patient.allow(ResourceType.TOPIC, topics.dead_letters, ACLOperation.WRITE, "User:somebody-else")
    patient.allow(ResourceType.GROUP, group, ACLOperation.DESCRIBE)
    # Who may describe an id need not be allowed to write it.
    patient.allow(ResourceType.TRANSACTIONAL_ID, writer, ACLOperation.DESCRIBE)

    def report() -> Report:
        return patient.report(watch_seconds=0.0)

    def lacking() -> dict[str | None, str]:
        each = outcome(report(), "missing_right")
        return {at.resource: at.detail for at in each.evidence} if isinstance(each, Finding) else {}

    expected = {
        f"topic {topics.ticks}": "READ",
        f"topic {topics.dead_letters}": "WRITE",
        f"group {group}": "READ",
        f"transactional-id {writer}": "WRITE",
    }
    await_that(lambda: lacking() == expected, "the rules count")  # they do a moment after they were accepted
    examined = report()
    assert (
        f"kafka-acls.sh --bootstrap-server {patient.bootstrap} --add --allow-principal User:NAME "
        f"--operation Write --transactional-id {writer}"
    ) in (found(examined, "missing_right").command or "").splitlines()
    reasons = {each.check.code: each.reason for each in examined.outcomes if isinstance(each, Skipped)}
    assert f"no right to READ {topics.ticks}, {topics.forecasts}" in reasons["open_transaction"]
    assert "TopicAuthorizationFailed" in reasons["keys_differ"]
    assert "DESCRIBE_CONFIGS" in reasons["short_retention"]
    clear(examined, "broker_silent")
    clear(examined, "state_not_compacted")  # the state topic has no rule
    clear(examined, "unequal_partitions")
    clear(examined, "foreign_state")
    clear(healthy, "missing_right")
    assert {type(problem) for problem in examine(Connection(patient.bootstrap), patient.settings())[1]} == {
        AccessDenied
    }


# --- topics


@pytest.fixture(scope="module")
def misshapen(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Patient, Report, Settings]]:
    """Topics with everything wrong that one broker lets us do."""
    patient = Patient(site.bootstrap, tmp_path_factory.mktemp("misshapen"), "misshapen", partitions=3)
    topics = patient.topics
    settings = patient.settings(
        topics={
            **topics.model_dump(),
            "forecasts": f"{topics.ticks}-f",
            "state": f"{topics.ticks}-s",
            "scores": "nowhere",
        }
    )
    configs: dict[str, tuple[int, dict[str, str]]] = {
        f"{topics.ticks}-f": (2, {"cleanup.policy": "compact,delete", "max.message.bytes": "100000"}),
        f"{topics.ticks}-s": (3, {"delete.retention.ms": "1000", "min.insync.replicas": "2"}),
    }
    for name, (partitions, config) in configs.items():
        patient.admin.create_topics({name: {"num_partitions": partitions, "configs": config}}, wait_for_metadata=True)
    patient.configure(
        topics.ticks,
        **{
            "max.message.bytes": "2000000",
            "retention.ms": "30000",
            "message.timestamp.type": "LogAppendTime",
            "unclean.leader.election.enable": "true",
        },
    )
    yield patient, examine_cluster(settings, config=Path("my.toml"), watch_seconds=0.0), settings
    patient.close()


def test_topics_that_are_missing_or_do_not_fit_together(misshapen: tuple[Patient, Report, Settings], healthy: Report):
    patient, report, _ = misshapen
    missing, unequal = found(report, "missing_topic"), found(report, "unequal_partitions")
    assert ([each.resource for each in missing.evidence], missing.command) == (
        ["nowhere"],
        "tickcast topics create --config my.toml",
    )
    assert (unequal.measured, unequal.evidence[0].detail) == (1, "2 partitions, the ticks have 3")
    assert unequal.command == "tickcast topics grow --partitions 3 --config my.toml"
    small = found(report, "small_dead_letters")
    assert (small.evidence[0].resource, small.measured) == (patient.topics.dead_letters, 2_000_000 - 1_114_124)
    clear(healthy, "missing_topic")
    clear(healthy, "unequal_partitions")
    clear(healthy, "small_dead_letters")


def test_settings_of_topics_that_lose_something(misshapen: tuple[Patient, Report, Settings], healthy: Report):
    patient, report, _ = misshapen
    ticks = patient.topics.ticks
    assert found(report, "state_not_compacted").evidence[0].detail == "cleanup.policy=delete"
    assert found(report, "short_tombstones").measured == 1
    assert found(report, "large_segments").measured == 1024
    assert found(report, "compacted_topic").evidence[0].resource == f"{ticks}-f"
    assert found(report, "small_messages").evidence[0].detail == "max.message.bytes=100000"
    retention = found(report, "short_retention")
    assert (retention.severity, retention.measured) == ("problem", 30)
    assert retention.command == (
        f"kafka-configs.sh --bootstrap-server {patient.bootstrap} --alter --entity-type topics --entity-name {ticks} "
        "--add-config retention.ms=604800000"
    )
    assert [each.resource for each in found(report, "unclean_election").evidence] == [ticks]
    assert found(report, "append_time").severity == "note"
    spare = found(report, "no_spare_copy")
    assert (spare.severity, spare.evidence[0].resource, spare.measured) == ("problem", f"{ticks}-s", -1)
    clear(healthy, "state_not_compacted")
    clear(healthy, "short_tombstones")
    clear(healthy, "large_segments")
    clear(healthy, "compacted_topic")
    clear(healthy, "small_messages")
    clear(healthy, "short_retention")
    clear(healthy, "unclean_election")
    clear(healthy, "append_time")


def test_what_a_start_refuses_is_a_problem_here(misshapen: tuple[Patient, Report, Settings]):
    patient, report, settings = misshapen
    refused = examine(Connection(patient.bootstrap), settings)[1]
    problems = {finding.check.code for finding in report.findings if finding.severity == "problem"}
    expected = {"missing_topic", "unequal_partitions", "small_dead_letters", "state_not_compacted", "short_tombstones"}
    assert len(refused) == len(expected)
    assert problems >= expected


# --- the group


def state_of(patient: Patient) -> str:
    return read_group(Connection(patient.bootstrap), patient.group, patient.topics.ticks).state


@contextmanager
def member(patient: Patient, name: str) -> Iterator[KafkaSource]:
    connection = Connection(patient.bootstrap)
    source = KafkaSource(connection, topic=patient.topics.ticks, group_id=patient.group, instance_id=name)
    try:
        yield source
    finally:
        source.close(leave=True)


def own_all(source: KafkaSource) -> None:
    await_that(lambda: source.poll(0.1, 10) and source.assignment() == (0, 1), "it owns both partitions")


def test_a_member_that_is_not_ours(patient: Patient, healthy: Report):
    consumer = KafkaConsumer(patient.topics.forecasts, bootstrap_servers=patient.bootstrap, group_id=patient.group)
    try:
        await_that(lambda: consumer.poll(100) is not None and state_of(patient) == "Stable", "the stranger joins")
        report = patient.report()
    finally:
        consumer.close()
    foreign = found(report, "foreign_members")
    assert foreign.evidence[0].detail.endswith("(no instance id)")
    assert found(report, "unowned_partitions").measured == 2
    clear(healthy, "foreign_members")
    clear(healthy, "unowned_partitions")


def test_an_owner_that_stands_still_while_ticks_wait(patient: Patient, healthy: Report):
    patient.send(quote(), b"A", at_ms=now_ms() - 10 * MINUTE_MS)
    patient.commit({0: 0, 1: 0})
    with member(patient, "sleepy") as source:
        own_all(source)
        report = patient.report()
    still, wait = found(report, "standstill"), found(report, "ticks_wait")
    assert [(each.resource, each.value) for each in still.evidence] == [(f"{patient.topics.ticks}-0", 1)]
    assert "sleepy stands at 0" in still.evidence[0].detail
    assert wait.severity == "problem"
    assert 600 <= wait.measured < 700
    clear(healthy, "standstill")
    clear(healthy, "ticks_wait")


def test_a_group_that_does_not_come_to_rest(patient: Patient, healthy: Report):
    with member(patient, "first") as first, member(patient, "second") as second:
        own_all(first)
        # It heartbeats on, but does not join anew for the second one: that takes a poll.
        with feeding(lambda: second.poll(0.1, 10)):
            await_that(lambda: state_of(patient) == "PreparingRebalance", "the group rebalances")
            report = patient.report()
    assert found(report, "rebalancing").measured >= 0.5
    clear(healthy, "rebalancing")


def now_ms() -> int:
    return time.time_ns() // 1_000_000


# --- what a restart would meet


@pytest.fixture(scope="module")
def stopped(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on a service that was stopped for too long, on topics that others have touched meanwhile."""
    patient = Patient(site.bootstrap, tmp_path_factory.mktemp("stopped"), "stopped", partitions=6)
    ticks, ours = patient.topics.ticks, patient.group
    patient.configure(ticks, **{"retention.ms": str(30 * MINUTE_MS)})
    for partition in range(6):
        for _ in range(3):
            patient.send(quote(), b"A", partition, at_ms=now_ms() - 20 * MINUTE_MS)
    patient.admin.delete_records({TopicPartition(ticks, 0): 2})
    patient.commit({0: 0, 1: 99, 5: 0})
    (described,) = patient.admin.describe_topics([ticks])
    marker = Marker(ours, str(described["topic_id"]), "revision", 1, 0, 0, ResetCause.FIRST)
    for partition, each in {
        0: replace(marker, next_offset=0),
        2: replace(marker, group_id="another"),
        3: replace(marker, topic_id="another"),
    }.items():
        patient.write_state(markers.KEY, markers.encode(each), partition)
    patient.write_state(b"A", b"no snapshot", 4)
    patient.write_state(pins.KEY, pins.encode(Pin(ours, "0123456789abcdef", "", 1, "2026-01-01T00:00:00Z")), 0)
    report = patient.report(watch_seconds=0.0)
    patient.close()
    return report


def test_offsets_and_checkpoints_that_cannot_be_gone_on_from(stopped: Report, healthy: Report):
    lost, recreated, foreign = (
        found(stopped, "lost_ticks"),
        found(stopped, "recreated_topic"),
        found(stopped, "foreign_state"),
    )
    assert [(each.resource or "")[-1] for each in lost.evidence] == ["0"]
    assert lost.measured == 2
    assert {(each.resource or "")[-1]: each.detail.split(" is ")[0] for each in recreated.evidence} == {
        "1": "the committed offset",
        "3": "the checkpoint",
    }
    assert {(each.resource or "")[-1]: each.detail for each in foreign.evidence} == {
        "2": "a checkpoint of group another",
        "4": "records, and no checkpoint among them",
    }
    clear(healthy, "lost_ticks")
    clear(healthy, "recreated_topic")
    clear(healthy, "foreign_state")


def test_ticks_that_recovery_needs_will_soon_be_deleted(stopped: Report, healthy: Report):
    finding = found(stopped, "old_checkpoint")
    assert finding.severity == "warning"
    assert finding.measured == pytest.approx(20 / 30, abs=0.05)
    clear(healthy, "old_checkpoint")


def test_a_pinned_bundle_that_is_not_here(stopped: Report, healthy: Report):
    evidence = found(stopped, "pinned_bundle_missing").evidence[0]
    assert evidence.resource == "0123456789abcdef"
    assert "there is no bundle 0123456789abcdef" in evidence.detail
    clear(healthy, "pinned_bundle_missing")


def test_nobody_runs_is_no_problem_whatever_waits(stopped: Report, healthy: Report):
    assert found(stopped, "nobody_runs").severity == "note"
    assert found(stopped, "ticks_wait").severity == "note"
    clear(healthy, "nobody_runs")


# --- transactions


def test_transactions_that_stand_open_and_those_that_kafka_forgot(patient: Patient, healthy: Report):
    topic, ours, theirs = patient.topics.forecasts, transactional_id(patient.group, "0"), "somebody"
    busy, careless = (
        KafkaProducer(bootstrap_servers=patient.bootstrap, transactional_id=each) for each in (ours, theirs)
    )
    view, commands = ClusterView(Connection(patient.bootstrap)), Commands(patient.settings())
    try:
        for producer in (busy, careless):
            producer.init_transactions()
            producer.begin_transaction()
        busy.send(topic, b"open", partition=1).get(30)
        # Nobody but the partition's leader hears of this one, so the end of the transaction leaves it out.
        careless._transaction_manager._partitions_in_transaction.add(TopicPartition(topic, 0))
        careless.send(topic, b"left", partition=0).get(30)
        careless.send(patient.topics.dead_letters, b"there", partition=0).get(30)
        careless.commit_transaction()
        later = now_ms() + 60_000
        outcomes = list(examine_transactions({topic: [0, 1]}, view, later, commands))
        young = list(examine_transactions({topic: [1]}, view, now_ms(), commands))
        busy.abort_transaction()
    finally:
        view.close()
        busy.close(timeout=5)
        careless.close(timeout=5)
    open_, forgotten = found(outcomes, "open_transaction"), found(outcomes, "forgotten_transaction")
    assert open_.evidence[0].detail == f"{ours}, partition 1 from offset 0"
    assert 60 <= open_.measured < 200
    assert forgotten.evidence[0].detail == f"{theirs}, partition 0 from offset 0"
    assert forgotten.command == (
        f"kafka-transactions.sh --bootstrap-server {patient.bootstrap} abort --topic {topic} --partition 0 "
        "--start-offset 0"
    )
    clear(young, "open_transaction")  # one of ours at work is no finding
    clear(young, "forgotten_transaction")
    clear(healthy, "open_transaction")
    clear(healthy, "forgotten_transaction")


# --- ticks


@pytest.fixture(scope="module")
def unruly(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Report:
    """The report on ticks of producers that do not agree, and whose clocks are wrong."""
    patient = Patient(site.bootstrap, tmp_path_factory.mktemp("unruly"), "unruly")
    begin = now_ms() - 30_000
    for second in range(10):
        at_ms = begin + 1000 * second
        patient.send(quote("BOTH", at_ms * 10**6), b"BOTH", second % 2, at_ms)
        patient.send(quote("MOVED", at_ms * 10**6), b"MOVED", second // 5, at_ms)
    patient.send(quote("A", ask=99.0), b"A", at_ms=begin + 20_000)
    patient.send(quote("A"), None, at_ms=begin + 21_000)
    patient.send(quote("A"), b"B", at_ms=begin + 22_000)
    patient.send(b"no json", b"A", at_ms=begin + 23_000)
    with feeding(lambda: patient.send(quote("OLD"), b"OLD", 1, now_ms() - MINUTE_MS)):
        patient.send(quote("A"), b"A", 0, now_ms() + 50_000)
        report = patient.report(watch_seconds=1.0)
    patient.close()
    return report


def test_ticks_that_would_be_dead_letters(unruly: Report, healthy: Report):
    finding = found(unruly, "sampled_dead_letters")
    (mine,) = [each for each in finding.evidence if (each.resource or "").endswith("-0")]
    assert "1 crossed_quote, e.g. offset 10: ask 99.0 is below bid 100.0" in mine.detail
    assert "1 not_json, e.g. offset 13" in mine.detail
    clear(healthy, "sampled_dead_letters")


def test_keys_that_are_not_the_instrument(unruly: Report, healthy: Report):
    finding = found(unruly, "keys_differ")
    assert (
        finding.evidence[0].detail == "1 without a key, e.g. offset 11; 1 with another, e.g. offset 12: key b'B' of A"
    )
    clear(healthy, "keys_differ")


def test_one_instrument_in_two_partitions_at_a_time(unruly: Report, healthy: Report):
    finding = found(unruly, "two_partitions")
    assert [(each.instrument, each.detail) for each in finding.evidence] == [("BOTH", "partitions 0, 1")]
    clear(healthy, "two_partitions")  # and MOVED above went from one to the other, as when partitions are added


def test_clocks_that_are_wrong(unruly: Report, healthy: Report):
    ahead, behind = found(unruly, "clock_ahead"), found(unruly, "clock_behind")
    assert 1 < ahead.measured <= 50  # less what has passed since
    assert 5 < behind.measured <= 61
    clear(healthy, "clock_ahead")
    clear(healthy, "clock_behind")


def test_a_codec_that_is_not_installed_here(patient: Patient, healthy: Report, monkeypatch: pytest.MonkeyPatch):
    producer = KafkaProducer(bootstrap_servers=patient.bootstrap, compression_type="zstd")
    producer.send(patient.topics.ticks, json.dumps(quote()).encode() * 20, b"A", partition=1).get(30)
    producer.close()
    monkeypatch.setattr(kafka.codec, "zstd", None)
    report = patient.report(watch_seconds=0.0)
    finding = found(report, "missing_codec")
    assert (finding.severity, finding.evidence[0].resource) == ("problem", f"{patient.topics.ticks}-1")
    assert isinstance(outcome(report, "keys_differ"), Skipped)
    clear(healthy, "missing_codec")


def test_ticks_are_decoded_as_the_settings_map_them(patient: Patient):
    patient.send({"s": "A", "t": now_ms(), "p": "100.5"}, b"A")
    plain = patient.settings()
    mapped = patient.settings(ticks={"map": {"instrument": "s", "ts": "t", "price": "p", "time_unit": "ms"}})
    assert found(examine_cluster(plain, watch_seconds=0.0), "sampled_dead_letters").measured == 1
    clear(examine_cluster(mapped, watch_seconds=0.0), "sampled_dead_letters")
    clear(examine_cluster(mapped, watch_seconds=0.0), "keys_differ")
    nothing = examine_cluster(mapped, sample=0, watch_seconds=0.0)
    assert isinstance(outcome(nothing, "sampled_dead_letters"), Skipped)


# --- the command


def test_the_command_says_what_was_found_and_exits_with_1_on_a_problem(patient: Patient):
    patient.admin.delete_topics([patient.topics.state])
    await_that(lambda: patient.topics.state not in patient.admin.list_topics(), "the topic is gone")
    config = patient.directory / "tickcast.toml"
    config.write_text(to_toml({"kafka": {"group_id": patient.group}, "topics": patient.topics.model_dump()}))
    arguments = ["cluster", "--config", str(config), "--bootstrap-servers", patient.bootstrap, "--watch", "0"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 1
    assert "problem  missing_topic: a topic does not exist" in result.stdout
    assert f"tickcast topics create --config {config}" in result.stdout.replace("\n", "")
    assert "asking brokers" in result.stderr


def test_no_broker_and_no_login_have_exit_codes_of_their_own(site: Site):
    with socket.socket() as nobody:
        nobody.bind((HOST, 0))  # bound, not listening: nobody else can answer here
        with pytest.raises(BrokerUnavailable) as away:
            examine_cluster(Settings(kafka={"bootstrap_servers": f"{HOST}:{nobody.getsockname()[1]}"}))  # type: ignore[arg-type]
    login = {"protocol": "SASL_PLAINTEXT", "mechanism": "PLAIN", "username": "ann", "password": "wrong"}
    with pytest.raises(AccessDenied) as refused:
        examine_cluster(Settings(kafka={"bootstrap_servers": site.login, "security": login}))  # type: ignore[arg-type]
    assert [error.value.exit_code for error in (away, refused)] == [4, 6]
