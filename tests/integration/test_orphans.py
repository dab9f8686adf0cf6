"""Partitions that a static member was to give up when it died, and that nobody asks for."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

import pytest

from daemon.transport.connection import Connection
from daemon.transport.port import Source
from tests.contract.worlds import CLIENTS, source_class
from tests.kafka_fixture import make_topics

pytestmark = pytest.mark.kafka

PATIENCE_SECONDS = 30.0

#: Joins, and dies in the middle of a rebalance: it knows what it is to give up, and has not said that it has.
DIES = """
import os, signal, sys
from daemon.transport.connection import Connection
from tests.contract.worlds import source_class

client, bootstrap, topic, group = sys.argv[1:]
source = source_class(client)(Connection(bootstrap), topic=topic, group_id=group, instance_id="one")
source._changes.note_gone = lambda gone, how: os.kill(os.getpid(), signal.SIGKILL) if gone else None
while True:
    source.poll(0.1, 1)
    if len(source.assignment()) == 4:
        print("has all", flush=True)
"""


@pytest.mark.parametrize("client", CLIENTS)
def test_partitions_that_belong_to_nobody_are_shared_out_when_somebody_looks(kafka: str, client: str) -> None:
    join = partial(source_class(client), Connection(kafka))
    topic = make_topics(kafka, "orphans").ticks
    group = topic + "-group"
    command = [sys.executable, "-c", DIES, client, kafka, topic, group]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as dying:
        assert dying.stdout is not None
        assert dying.stdout.readline() == "has all\n"
        other = join(topic=topic, group_id=group, instance_id="two")
        threading.Thread(target=dying.stdout.read, daemon=True).start()
        await_with(lambda: dying.poll() is not None, other)
    again = join(topic=topic, group_id=group, instance_id="one")
    await_with(lambda: len(again.assignment()) == 2, other, again)
    for _ in range(20):
        other.poll(0.05, 1)
        again.poll(0.05, 1)
    assert other.assignment() == (), "the client mends it by itself now: the look for orphans can go"
    for source in (other, again):
        source.confirm()
        source.confirm()  # librdkafka's acts on what it sees twice
    await_with(lambda: len(other.assignment()) == len(again.assignment()) == 2, other, again)
    assert sorted([*other.assignment(), *again.assignment()]) == [0, 1, 2, 3]
    for source in (other, again):
        source.close(leave=True)


def await_with(condition: Callable[[], bool], *sources: Source) -> None:
    """Poll, each source on a thread of its own, until the condition holds."""
    deadline = time.monotonic() + PATIENCE_SECONDS

    def turn(source: Source) -> None:
        while not condition() and time.monotonic() < deadline:
            source.poll(0.1, 1)

    threads = [threading.Thread(target=turn, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert condition(), [source.assignment() for source in sources]
