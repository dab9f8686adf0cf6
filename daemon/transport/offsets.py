"""The committed offsets of a group that stands still: read, looked up by time, set.

Who sets offsets commits them as nobody in particular; the broker takes that from a stranger only while the group has
no members, so a group that starts meanwhile is never set back under its feet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from kafka import KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, KafkaTimeoutError, UnknownMemberIdError, for_code
from kafka.protocol.consumer import IsolationLevel
from kafka.structs import OffsetAndMetadata

from daemon.errors import BrokerUnavailable, SettingsError
from daemon.transport.admin_client import WAIT_SECONDS, admin_client, coordinated, describe_group
from daemon.transport.connection import Connection
from daemon.transport.group import read_group
from daemon.transport.kafka_client import connect, translate

#: Kafka's word for a group whose last member left; Dead is one that never was.
STOPPED = ("Empty", "Dead")
#: The transaction of a killed instance holds its offsets until its timeout of 10 s, plus up to 10 s until the broker
#: looks.
SETTLED_SECONDS = 30.0

#: A place in a partition: an end of it, or the Kafka timestamp of a record, ms since the epoch.
When = Literal["earliest", "latest"] | int


def require_stopped(connection: Connection, group_id: str, remedy: str) -> None:
    """Make sure that a group has no members.

    Raises
    ------
    SettingsError : it has; the message ends with the remedy
    BrokerUnavailable, AccessDenied
    """
    with admin_client(connection, WAIT_SECONDS) as admin:
        group = describe_group(admin, group_id)
    if group["group_state"] not in STOPPED:
        names = sorted(member["group_instance_id"] or member["client_id"] for member in group["members"])
        raise SettingsError(f"group {group_id} is running ({', '.join(names) or 'members are joining'}); {remedy}")


def settled_offsets(
    connection: Connection, group_id: str, topic: str, partitions: Sequence[int]
) -> dict[int, int | None]:
    """Return the committed offset of each partition, None where there is none, waiting out open transactions.

    Raises
    ------
    BrokerUnavailable : no answer, or an open transaction holds one for longer than `SETTLED_SECONDS`
    AccessDenied
    """
    consumer: KafkaConsumer = connect(
        KafkaConsumer,
        connection,
        WAIT_SECONDS,
        group_id=group_id,
        enable_auto_commit=False,
        isolation_level="read_committed",  # asked so, the broker does not answer while a transaction holds the offset
        metrics_enabled=False,
    )
    try:
        timeout_ms = SETTLED_SECONDS * 1000
        return {p: consumer.committed(TopicPartition(topic, p), timeout_ms=timeout_ms) for p in partitions}
    except KafkaTimeoutError as error:
        raise BrokerUnavailable(
            f"the offsets of group {group_id} were not settled within {SETTLED_SECONDS:g} s: the broker is away, or a "
            "killed instance left a transaction open; try again"
        ) from error
    except KafkaError as error:
        raise translate(error, f"reading the offsets of group {group_id}") from error
    finally:
        consumer.close(autocommit=False)


def offsets_at(connection: Connection, topic: str, partitions: Sequence[int], when: When) -> dict[int, int]:
    """Return the offset of the first record at or after a time in each partition, or its end where there is none.

    Raises
    ------
    BrokerUnavailable, AccessDenied
    """
    wanted = [TopicPartition(topic, partition) for partition in partitions]
    with admin_client(connection, WAIT_SECONDS) as admin:

        def ask(spec: OffsetSpec | int) -> dict[int, int]:
            found = admin.list_partition_offsets(
                dict.fromkeys(wanted, spec), isolation_level=IsolationLevel.READ_COMMITTED
            )
            return {tp.partition: found[tp].offset for tp in wanted}

        if when == "earliest":
            return ask(OffsetSpec.EARLIEST)
        ends = ask(OffsetSpec.LATEST)
        if when == "latest":
            return ends
        return {p: offset if offset >= 0 else ends[p] for p, offset in ask(when).items()}


def set_offsets(connection: Connection, group_id: str, topic: str, offsets: Mapping[int, int], remedy: str) -> None:
    """Commit offsets for a group without members, whether it exists already or not.

    Raises
    ------
    SettingsError : the group has members; nothing was changed, and the message ends with the remedy
    BrokerUnavailable, AccessDenied
    """
    require_stopped(connection, group_id, remedy)
    positions = {TopicPartition(topic, p): OffsetAndMetadata(offset, "", -1) for p, offset in offsets.items()}
    with admin_client(connection, WAIT_SECONDS) as admin:
        errors = coordinated(lambda: admin.alter_group_offsets(group_id, positions))
    for tp, error in errors.items():
        if error is UnknownMemberIdError:
            raise SettingsError(f"group {group_id} has just been started, nothing was changed; {remedy}")
        if error is not for_code(0):
            raise translate(error(), f"setting the offset of {tp.topic}-{tp.partition}")


def begin_at_end(connection: Connection, group_id: str, topic: str) -> bool:
    """Let a group without any offsets begin at the end of a topic; return whether it does so now.

    Once and for all partitions, before the group has members: later nobody could tell a partition that has just been
    added, whose first ticks must be answered, from one that the group has never seen.

    Raises
    ------
    TopicError, BrokerUnavailable, AccessDenied
    """
    group = read_group(connection, group_id, topic)
    if any(partition.committed is not None for partition in group.partitions):
        return False
    ends = {partition.partition: partition.end for partition in group.partitions}
    try:
        set_offsets(connection, group_id, topic, ends, "it begins where it stands")
    except SettingsError:  # another instance was quicker, and has joined since
        return False
    return True
