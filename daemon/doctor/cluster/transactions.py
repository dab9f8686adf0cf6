"""Findings on transactions that stand open: `read_committed` readers wait behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from daemon.doctor.cluster.commands import Commands
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register, seen_in_part
from daemon.errors import AccessDenied
from daemon.transport.connection import transactional_id
from daemon.transport.kafka_view import ClusterView, OpenTransaction

OPEN = register(
    Check(
        code="open_transaction",
        of=("cluster",),
        severity="warning",
        title="a transaction stands open for long, and readers wait behind it",
        measures="age of a transaction that a partition holds open; ours last 10 s at most, a killed process' 20",
        limit=20,
        problem_limit=120,
        form="seconds",
        remedy="one of ours ends when its instance starts again, any other by its producer or at its timeout",
    )
)
FORGOTTEN = register(
    Check(
        code="forgotten_transaction",
        of=("cluster",),
        severity="problem",
        title="Kafka has ended a transaction and left a partition out: readers wait there for ever",
        measures="transactions that a partition holds open and their coordinator does not",
        limit=0,
        form="count",
        remedy="start the instance, which ends it as it was decided (that takes CLUSTER_ACTION); one that is not "
        "ours has to be aborted by hand",
    )
)
CHECKS = (OPEN, FORGOTTEN)


def examine_transactions(
    places: Mapping[str, Sequence[int]], view: ClusterView, now_ms: int, commands: Commands
) -> Iterator[Outcome]:
    """Judge the transactions that partitions hold open: topic -> partitions."""
    kafka = commands.settings.kafka
    ours = transactional_id(kafka.group_id, "")
    ages, forgotten, aborts, refused = [], [], [], []
    for topic, partitions in places.items():
        try:
            found = view.open_transactions(topic, partitions)
        except AccessDenied:
            refused.append(topic)
            continue
        in_work, left = ([each for each in found if each.forgotten is is_left] for is_left in (False, True))
        ages += [_age(topic, each, now_ms) for each in in_work] or [Measurement(0.0, resource=topic)]
        detail = ", ".join(_named(each) for each in left)
        forgotten.append(Measurement(len(left), resource=topic, detail=detail))
        aborts += [_abort(topic, each, commands) for each in left if not each.transactional_id.startswith(ours)]
    unseen = f"no right to READ {', '.join(refused)}" if refused else ""
    command = "\n".join(aborts) or commands.tickcast("run")
    yield seen_in_part(judge(OPEN, ages, otherwise=unseen), unseen)
    yield seen_in_part(judge(FORGOTTEN, forgotten, command=command, otherwise=unseen), unseen)


def _age(topic: str, each: OpenTransaction, now_ms: int) -> Measurement:
    age = max(now_ms - each.since_ms, 0) / 1000
    return Measurement(age, resource=f"{topic}-{each.partition}", detail=_named(each))


def _named(each: OpenTransaction) -> str:
    whose = each.transactional_id or f"producer {each.producer_id}, whose name we may not see"
    return f"{whose}, partition {each.partition} from offset {each.start_offset}"


def _abort(topic: str, each: OpenTransaction, commands: Commands) -> str:
    place = f"--topic {topic} --partition {each.partition} --start-offset {each.start_offset}"
    return commands.kafka("kafka-transactions", f"abort {place}")
