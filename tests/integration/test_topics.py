"""Topics, rights and groups on a real cluster: what is created, what is refused, and in which words."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ResourcePattern, ResourceType
from pydantic import SecretStr

from daemon.config import KafkaSettings, SecuritySettings, Settings, TopicSettings
from daemon.dev.broker import free_port, start_broker
from daemon.dev.broker_properties import HOST
from daemon.errors import AccessDenied, BrokerUnavailable, TickcastError, TopicError
from daemon.transport.admin import create_topics, examine, grow_topics, preflight
from daemon.transport.connection import Connection
from daemon.transport.group import read_group
from tests.kafka_fixture import make_topics, topic_names

pytestmark = pytest.mark.kafka

TICKCAST = (sys.executable, "-c", "from daemon.cli.main import main; main()")


@pytest.fixture
def admin(kafka: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka)
    yield client
    client.close()


def settings_for(topics: TopicSettings, group_id: str = "nobody") -> Settings:
    return Settings(topics=topics, kafka=KafkaSettings(group_id=group_id, broker_timeout_seconds=5))


def create(admin: KafkaAdminClient, name: str, partitions: int, **configs: str) -> None:
    options = {key.replace("_", "."): value for key, value in configs.items()}
    admin.create_topics({name: {"num_partitions": partitions, "configs": options}}, wait_for_metadata=True)


def tickcast(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TICKCAST, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_created_topics_pass_the_preflight_and_a_second_create_changes_nothing(kafka: str):
    connection, topics = Connection(kafka), topic_names("created")
    assert sorted(create_topics(connection, topics, partitions=3)) == sorted(
        [topics.ticks, topics.forecasts, topics.state, topics.dead_letters]
    )
    assert preflight(connection, settings_for(topics))["ticks"].partitions == 3
    assert create_topics(connection, topics) == []


def test_created_topics_are_set_up_for_their_role(kafka: str, admin: KafkaAdminClient):
    topics = topic_names("roles")
    create(admin, topics.ticks, 2, max_message_bytes="2000000")
    create_topics(Connection(kafka), topics)
    facts, problems = examine(Connection(kafka), settings_for(topics))
    assert problems == []
    assert {topic.partitions for topic in facts.values()} == {2}
    assert facts["dead_letters"].message_bytes_max == 2_000_000 + 64 * 1024
    assert facts["state"].config["cleanup.policy"] == "compact"
    assert facts["state"].config["segment.bytes"] == str(4 * 1024 * 1024)
    assert int(facts["state"].config["delete.retention.ms"]) >= 3_600_000


def test_missing_topics_are_named_with_the_command_that_creates_them(kafka: str):
    topics = topic_names("missing")
    with pytest.raises(TopicError, match=rf"{topics.ticks} does not exist.*topics create.*\(and 3 more") as raised:
        preflight(Connection(kafka), settings_for(topics))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("role", ["forecasts", "state"])
def test_other_partition_counts_than_those_of_the_ticks_are_refused(kafka: str, admin: KafkaAdminClient, role: str):
    topics = topic_names("counts")
    create(admin, topics.ticks, 4)
    create(admin, getattr(topics, role), 1, cleanup_policy="compact")
    with pytest.raises(TopicError, match=rf"{getattr(topics, role)} has 1 partition, but {topics.ticks} has 4"):
        create_topics(Connection(kafka), topics)
    with pytest.raises(TopicError, match=rf"{getattr(topics, role)} has 1 partition, but {topics.ticks} has 4"):
        preflight(Connection(kafka), settings_for(topics))


def test_more_partitions_than_those_of_the_ticks_cannot_be_taken_away(kafka: str, admin: KafkaAdminClient):
    topics = topic_names("shrink")
    create(admin, topics.ticks, 1)
    create(admin, topics.state, 2, cleanup_policy="compact")
    with pytest.raises(TopicError, match=rf"{topics.state} has 2 .* delete {topics.state} and run"):
        create_topics(Connection(kafka), topics)


def test_fewer_partitions_than_those_of_the_ticks_can_grow(kafka: str, admin: KafkaAdminClient):
    connection, topics = Connection(kafka), topic_names("uneven")
    create(admin, topics.ticks, 3)
    for name in (topics.state, topics.forecasts, topics.dead_letters):
        create(admin, name, 2, cleanup_policy="compact" if name == topics.state else "delete")
    _, problems = examine(connection, settings_for(topics))
    assert len([p for p in problems if "run `tickcast topics grow --partitions 3`" in str(p)]) == 3
    list(grow_topics(connection, topics, 3))
    assert preflight(connection, settings_for(topics))["ticks"].partitions == 3


def test_growing_makes_room_before_the_ticks_come_and_goes_on_where_it_was_stopped(kafka: str):
    connection, topics = Connection(kafka), make_topics(kafka, "grow", partitions=2)
    steps = grow_topics(connection, topics, 5)
    assert next(steps) == f"{topics.state} grew from 2 to 5 partitions"
    steps.close()
    assert list(grow_topics(connection, topics, 5)) == [
        f"{topics.state} has 5 partitions already",
        f"{topics.forecasts} grew from 2 to 5 partitions",
        f"{topics.dead_letters} grew from 2 to 5 partitions",
        f"{topics.ticks} grew from 2 to 5 partitions",
    ]
    facts = preflight(connection, settings_for(topics))
    assert {topic.partitions for topic in facts.values()} == {5}


def test_topics_do_not_shrink(kafka: str):
    connection, topics = Connection(kafka), make_topics(kafka, "shrinking", partitions=3)
    with pytest.raises(TopicError, match="has 3 partitions already, and Kafka takes none away"):
        list(grow_topics(connection, topics, 2))
    with pytest.raises(TopicError, match="does not exist"):
        list(grow_topics(connection, topic_names("nothing"), 2))


def test_dead_letters_too_small_for_a_tick_and_a_state_that_is_deleted_by_age_are_refused(
    kafka: str, admin: KafkaAdminClient
):
    topics = topic_names("configs")
    create(admin, topics.dead_letters, 4, max_message_bytes="1000")
    create(admin, topics.state, 4, cleanup_policy="compact,delete", delete_retention_ms="1000")
    with pytest.raises(TopicError, match=r"takes 1000 bytes.*max\.message\.bytes to 1114124"):
        create_topics(Connection(kafka), topics)
    _, problems = examine(Connection(kafka), settings_for(topics))
    assert [type(problem) for problem in problems] == [TopicError] * 3
    assert "cleanup.policy=compact,delete" in str(problems[1])
    assert "delete.retention.ms=1000" in str(problems[2])


def test_a_replication_that_the_cluster_cannot_give_is_said_in_one_line(kafka: str):
    with pytest.raises(TopicError, match=r"cannot create topic .*replication") as raised:
        create_topics(Connection(kafka), topic_names("copies"), replication=3)
    assert "\n" not in str(raised.value)


def test_every_missing_right_is_named(kafka: str, admin: KafkaAdminClient):
    topics = make_topics(kafka, "denied")
    # A rule on a resource takes everything else on it away.
    allow(admin, ResourceType.TOPIC, topics.ticks, ACLOperation.DESCRIBE)
    allow(admin, ResourceType.TOPIC, topics.forecasts, ACLOperation.READ)
    allow(admin, ResourceType.TOPIC, topics.state, ACLOperation.WRITE)
    allow(admin, ResourceType.TOPIC, topics.dead_letters, ACLOperation.WRITE, "User:somebody-else")
    allow(admin, ResourceType.GROUP, "denied-group", ACLOperation.DESCRIBE)
    allow(admin, ResourceType.TRANSACTIONAL_ID, "denied-group/0", ACLOperation.DESCRIBE)  # not enough to write as it
    settings = settings_for(topics, "denied-group")
    expected = [
        "no right to READ group denied-group",
        "no right to WRITE transactional id denied-group/0",
        f"no right to READ topic {topics.ticks}",
        f"no right to WRITE topic {topics.forecasts}",
        f"no right to READ topic {topics.state}",
        f"no right to WRITE topic {topics.dead_letters}",
    ]
    problems = await_problems(kafka, settings, len(expected))
    assert [str(problem).partition(";")[0] for problem in problems] == expected
    assert {type(problem) for problem in problems} == {AccessDenied}
    with pytest.raises(AccessDenied, match=r"READ group denied-group.*\(and 5 more"):
        preflight(Connection(kafka), settings)


def allow(
    admin: KafkaAdminClient, kind: ResourceType, name: str, operation: ACLOperation, user: str = "User:ANONYMOUS"
) -> None:
    admin.create_acls([ACL(user, "*", operation, ACLPermissionType.ALLOW, ResourcePattern(kind, name))])


def await_problems(kafka: str, settings: Settings, count: int) -> list[TickcastError]:
    """Rules reach the broker a moment after they were accepted."""
    deadline = time.monotonic() + 30
    while True:
        _, problems = examine(Connection(kafka), settings)
        if len(problems) >= count or time.monotonic() > deadline:
            return problems


def test_an_absent_broker_is_reported_after_the_time_allowed():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can answer here
        connection = Connection(f"127.0.0.1:{nobody.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=r"no Kafka broker answered at 127\.0\.0\.1:\d+ within 5 s"):
            preflight(connection, settings_for(TopicSettings()))
        assert 4 < time.monotonic() - began < 20


def test_a_wrong_password_is_no_absent_broker(tmp_path: Path):
    port, controller_port, login_port = free_port(), free_port(), free_port()
    properties = {
        "listeners": f"PLAINTEXT://{HOST}:{port},CONTROLLER://{HOST}:{controller_port},LOGIN://{HOST}:{login_port}",
        "advertised.listeners": f"PLAINTEXT://{HOST}:{port},LOGIN://{HOST}:{login_port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT",
        "controller.quorum.voters": f"1@{HOST}:{controller_port}",
        "sasl.enabled.mechanisms": "PLAIN",
        "listener.name.login.plain.sasl.jaas.config": (
            'org.apache.kafka.common.security.plain.PlainLoginModule required user_ann="right";'
        ),
    }

    def connection(password: str) -> Connection:
        security = SecuritySettings(
            protocol="SASL_PLAINTEXT", mechanism="PLAIN", username="ann", password=SecretStr(password)
        )
        return Connection.from_settings(KafkaSettings(bootstrap_servers=f"{HOST}:{login_port}", security=security))

    with start_broker(port, tmp_path, properties=properties):
        with pytest.raises(AccessDenied, match=r"login.*check \[kafka"):
            preflight(connection("wrong"), settings_for(TopicSettings()))
        with pytest.raises(TopicError, match="does not exist"):
            preflight(connection("right"), settings_for(TopicSettings()))


def test_group_status_tells_owner_and_lag_of_every_partition(kafka: str):
    topics, connection = make_topics(kafka, "status", partitions=2), Connection(kafka)
    assert [row.phase for row in read_group(connection, "status-group", topics.ticks).partitions] == ["unassigned"] * 2
    producer = KafkaProducer(bootstrap_servers=kafka)
    for _ in range(5):
        producer.send(topics.ticks, b"tick", partition=1)
    producer.close()
    consumer = KafkaConsumer(
        topics.ticks,
        bootstrap_servers=kafka,
        group_id="status-group",
        group_instance_id="north",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        records = consumer.poll(timeout_ms=30_000, max_records=2)
        assert sum(map(len, records.values())) == 2
        consumer.commit()
        group = read_group(connection, "status-group", topics.ticks)
    finally:
        consumer.close()
    assert group.state == "Stable"
    assert [(row.partition, row.owner, row.phase) for row in group.partitions] == [
        (0, "north", "assigned"),
        (1, "north", "assigned"),
    ]
    assert (group.partitions[1].committed, group.partitions[1].end, group.partitions[1].lag) == (2, 5, 3)


def test_status_of_a_topic_that_is_not_there_is_an_error(kafka: str):
    with pytest.raises(TopicError, match="nowhere cannot be read"):
        read_group(Connection(kafka), "status-group", "nowhere")


def test_commands_create_check_and_show_topics(kafka: str, tmp_path: Path):
    names = topic_names("commands").model_dump()
    names["scores"] = names["ticks"] + "-scores"
    config = tmp_path / "tickcast.toml"
    lines = [f'{role} = "{name}"' for role, name in names.items()]
    config.write_text("\n".join([f'[kafka]\nbootstrap_servers = "{kafka}"', "[topics]", *lines]))

    missing = tickcast("topics", "check", "--config", str(config))
    assert missing.returncode == TopicError.exit_code
    assert missing.stderr.count("problem: ") == 5
    for verb in ("created", "was there"):
        created = tickcast("topics", "create", "--config", str(config), "--partitions", "2")
        assert created.returncode == 0, created.stderr
        assert created.stdout.splitlines() == [f"{name} {verb}" for name in names.values()]
    grown = tickcast("topics", "grow", "--config", str(config), "--partitions", "2")
    assert (grown.returncode, grown.stdout.count("has 2 partitions already")) == (0, 5), grown.stderr
    assert tickcast("topics", "grow", "--config", str(config), "--partitions", "1").returncode == TopicError.exit_code
    found = json.loads(tickcast("topics", "check", "--config", str(config), "--json").stdout)
    assert found["problems"] == []
    assert {role: (topic["name"], topic["partitions"]) for role, topic in found["topics"].items()} == {
        role: (name, 2) for role, name in names.items()
    }
    status = tickcast("status", "--config", str(config), "--json")
    assert [row["partition"] for row in json.loads(status.stdout)["partitions"]] == [0, 1]
    table = tickcast("status", "--config", str(config)).stdout.splitlines()
    assert table[1].split() == ["partition", "owner", "phase", "committed", "end", "lag", "revision", "model"]
    assert table[2].split() == ["0", "-", "unassigned", "-", "0", "-", "-", "-"]
