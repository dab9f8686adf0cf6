"""Findings on the ticks themselves: the newest of every partition, read as the daemon would read them."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from daemon.assembly import tick_decoder
from daemon.core.instrument import Instrument
from daemon.core.intake import Intake
from daemon.core.records import Record
from daemon.core.spec import Column, ModelSpec, Output
from daemon.doctor.cluster.commands import Commands
from daemon.doctor.cluster.looks import PARTITIONS_MAX, Ends
from daemon.doctor.finding import Check, Measurement, Outcome, judge, register, seen_in_part, skip_all
from daemon.doctor.material import Listener
from daemon.errors import BundleError, TickcastError
from daemon.model.bundle import Bundle
from daemon.tools.retrial import intake_of
from daemon.transport.kafka_view import is_missing_codec, missing_codecs
from daemon.transport.port import Reader
from schemas import Reason, Rejected, ResetCause, Tick, TickDecoder

DEAD_LETTERS = register(
    Check(
        code="sampled_dead_letters",
        of=("cluster",),
        severity="warning",
        title="ticks become dead letters",
        measures="share of the sampled ticks of a partition that the daemon refuses, by reason",
        limit=0.0,
        problem_limit=0.01,
        remedy="mend the producer, or map its fields with [ticks.map]; docs/messages.md says what each reason means",
    )
)
KEYS = register(
    Check(
        code="keys_differ",
        of=("cluster",),
        severity="warning",
        title="keys of ticks are not their instruments",
        measures="share of the sampled ticks of a partition whose key is missing or is not the instrument of the value",
        limit=0.0,
        remedy="send the instrument as the key: only so do all ticks of one instrument go to one partition, in order",
    )
)
TWO_PARTITIONS = register(
    Check(
        code="two_partitions",
        of=("cluster",),
        severity="problem",
        title="ticks of one instrument go to several partitions at the same time: it has a state in each, and no order",
        measures="partitions that hold sampled ticks of an instrument from overlapping spans of time",
        limit=1,
        form="count",
        remedy="let all producers choose the partition alike: the instrument as key, and one partitioner (librdkafka's "
        "default is another than Java's; set partitioner=murmur2_random there)",
    )
)
CLOCK_AHEAD = register(
    Check(
        code="clock_ahead",
        of=("cluster",),
        severity="warning",
        title="timestamps of ticks are ahead of our clock",
        measures="newest Kafka timestamp of a partition, the producer's or (append_time) the broker's, less our clock",
        limit=1,
        problem_limit=60,
        form="seconds",
        remedy="keep all clocks by NTP: latencies read too low, and retention keeps such ticks for longer",
    )
)
CLOCK_BEHIND = register(
    Check(
        code="clock_behind",
        of=("cluster",),
        severity="warning",
        title="ticks that come in now carry timestamps of the past",
        measures="our clock at the first look less the newest Kafka timestamp among the ticks appended since",
        limit=5,
        problem_limit=3600,
        form="seconds",
        remedy="let producers leave the Kafka timestamp to their client, and keep all clocks by NTP: latencies read "
        "too high, and retention deletes such ticks early",
    )
)
CODEC = register(
    Check(
        code="missing_codec",
        of=("cluster",),
        severity="warning",
        title="a codec of records is not installed",
        measures="codecs that cannot be read here: the producer of a tick chooses",
        limit=0,
        form="count",
        remedy="install what is missing: pip install lz4 python-snappy zstandard",
    )
)
OF_TICKS = (DEAD_LETTERS, KEYS, TWO_PARTITIONS, CLOCK_AHEAD)
OF_SAMPLE = (CODEC, *OF_TICKS)
OF_ARRIVALS = (CLOCK_BEHIND,)

#: All partitions together; some 50 MB.
SAMPLE_MAX = 50_000
SAMPLE_SECONDS = 20.0
READ_SECONDS = 0.5
#: Newest ticks of a partition that are looked at for when they came.
ARRIVALS = 100
#: Where the bundle is not here, nobody knows which fields it reads and whether prices may be negative.
NO_MODEL = ModelSpec("", (Column("change"),), (Output(1, "difference"),))


@dataclass
class Sample:
    """The newest ticks of each partition."""

    ticks: dict[int, list[Record]] = field(default_factory=dict)
    #: Partition -> why its ticks could not be read.
    failed: dict[int, TickcastError] = field(default_factory=dict)
    #: How many more partitions there are, that the time did not suffice for.
    left: int = 0

    @property
    def count(self) -> int:
        """Ticks of all partitions."""
        return sum(map(len, self.ticks.values()))

    @property
    def unread(self) -> str:
        """Why not all partitions were read; empty where they were."""
        if self.failed:
            return f"{len(self.failed)} partitions cannot be read: {next(iter(self.failed.values()))}"
        return f"{self.left} partitions could not be read within {SAMPLE_SECONDS:g} s" if self.left else ""


def take_sample(reader: Reader, ends: Ends, per_partition: int, listen: Listener) -> Sample:
    """Read the newest ticks of each partition, within `SAMPLE_MAX` and `SAMPLE_SECONDS`."""
    sample, bounds = Sample(), ends.bounds
    room = min(per_partition, SAMPLE_MAX // max(len(bounds), 1))
    deadline = time.monotonic() + SAMPLE_SECONDS
    for number, (partition, (first, stable, _)) in enumerate(bounds.items()):
        listen(f"reading ticks: partition {partition}", number / len(bounds))
        if time.monotonic() > deadline:
            sample.left = len(bounds) - number
            break
        try:
            sample.ticks[partition] = _read(reader, partition, max(first, stable - room), stable)
        except TickcastError as error:
            sample.failed[partition] = error
    return sample


def examine_sample(sample: Sample, ends: Ends, commands: Commands) -> Iterator[Outcome]:
    """Judge sampled ticks."""
    topic = ends.topic
    missing = missing_codecs()
    unread = {at: error for at, error in sample.failed.items() if is_missing_codec(error)}
    yield judge(
        CODEC,
        [Measurement(len(missing), resource=f"{topic}-{at}", detail=str(error)) for at, error in unread.items()]
        or [Measurement(len(missing), detail=", ".join(missing))],
        severity="problem" if unread else None,
    )
    if not sample.count:
        yield from skip_all(OF_TICKS, sample.unread or "there are no ticks, or --sample 0 reads none")
        return
    decoder, intake = tick_decoder(commands.settings), _intake(commands)
    judged = {at: list(_judged(records, decoder, intake)) for at, records in sample.ticks.items() if records}
    ahead = {at: max(record.timestamp for record, _ in each) - ends.at_ms for at, each in judged.items()}
    for outcome in (
        judge(DEAD_LETTERS, [_refused(f"{topic}-{at}", each) for at, each in judged.items()]),
        judge(KEYS, [_keys(f"{topic}-{at}", each) for at, each in judged.items()]),
        judge(TWO_PARTITIONS, _homes(judged), otherwise="none of them can be read as a tick"),
        judge(CLOCK_AHEAD, [Measurement(ms / 1000, resource=f"{topic}-{at}") for at, ms in ahead.items()]),
    ):
        yield seen_in_part(outcome, sample.unread)


def examine_arrivals(first: Ends, second: Ends, reader: Reader) -> Iterator[Outcome]:
    """Judge the timestamps of ticks that were appended between two looks."""
    found = []
    # Whatever stands behind an end was appended after the look at it.
    grown = {at: bounds for at, bounds in second.bounds.items() if bounds.stable > first.bounds[at].end}
    for partition, bounds in list(grown.items())[:PARTITIONS_MAX]:
        begin = max(first.bounds[partition].end, bounds.stable - ARRIVALS)
        records = _read(reader, partition, begin, bounds.stable)
        if records:
            behind = (first.at_ms - max(record.timestamp for record in records)) / 1000
            found.append(Measurement(behind, resource=f"{second.topic}-{partition}"))
    seconds = (second.at_ms - first.at_ms) / 1000
    yield judge(CLOCK_BEHIND, found, otherwise=f"no tick came within {seconds:.1f} s")


#: A record, and the tick that it is or why it is none.
Judged = tuple[Record, Tick | Rejected]


def _read(reader: Reader, partition: int, offset: int, end: int) -> list[Record]:
    records: list[Record] = []
    while offset < end:
        found, next_offset = reader.read("ticks", partition, offset, READ_SECONDS, end - offset)
        records += [record for record in found if record.offset < end]
        if next_offset == offset:
            break
        offset = next_offset
    return records


def _judged(records: Sequence[Record], decoder: TickDecoder, intake: Intake) -> Iterator[Judged]:
    """Take in the records of one partition; instruments begin with the first of them."""
    instruments: dict[str, Instrument] = {}
    for record in records:
        try:
            _check_key(record)
            tick = decoder.decode(record.value)
            instrument = instruments.get(tick.instrument)
            if instrument is None:
                instrument = Instrument(tick.instrument, -1, list(intake.features.start), ResetCause.COLD)
            intake.accept(tick, instrument, offset=record.offset, timestamp=record.timestamp)
            instruments[tick.instrument] = instrument
            yield record, tick
        except Rejected as rejected:
            yield record, rejected


def _intake(commands: Commands) -> Intake:
    try:
        spec = Bundle.load(commands.settings.model.bundle).spec
    except BundleError:
        spec = NO_MODEL
    return intake_of(commands.settings, spec)


def _check_key(record: Record) -> None:
    try:
        (record.key or b"").decode()
    except UnicodeDecodeError as error:
        raise Rejected(Reason.KEY_NOT_UTF8, f"the key is not UTF-8: {error.reason} at {error.start}") from None


def _refused(place: str, judged: Sequence[Judged]) -> Measurement:
    refused = [(record, each) for record, each in judged if isinstance(each, Rejected)]
    reasons = Counter(each.reason.value for _, each in refused)
    first = {each.reason.value: (record, each) for record, each in reversed(refused)}
    texts = [
        f"{count} {reason}, e.g. offset {first[reason][0].offset}: {first[reason][1].detail}"
        for reason, count in reasons.most_common()
    ]
    return Measurement(len(refused) / len(judged), resource=place, detail="; ".join(texts))


def _keys(place: str, judged: Sequence[Judged]) -> Measurement:
    ticks = [(record, each) for record, each in judged if isinstance(each, Tick)]
    none = [record for record, _ in ticks if record.key is None]
    other = [(record, tick) for record, tick in ticks if record.key not in (None, tick.instrument.encode())]
    texts = [f"{len(none)} without a key, e.g. offset {none[0].offset}"] if none else []
    if other:
        record, tick = other[0]
        texts.append(f"{len(other)} with another, e.g. offset {record.offset}: key {record.key!r} of {tick.instrument}")
    wrong = len(none) + len(other)
    return Measurement(wrong / max(len(ticks), 1), resource=place, detail="; ".join(texts))


def _homes(judged: Mapping[int, Sequence[Judged]]) -> Iterator[Measurement]:
    """Measure in how many partitions at a time each instrument is at home.

    One that has moved, because partitions were added, has a span of time in each; only spans that overlap tell of
    producers that choose differently.
    """
    spans: dict[str, dict[int, tuple[int, int]]] = defaultdict(dict)
    for partition, outcomes in judged.items():
        for record, tick in outcomes:
            if isinstance(tick, Tick):
                first, _ = spans[tick.instrument].get(partition, (record.timestamp, 0))
                spans[tick.instrument][partition] = (first, record.timestamp)
    for name, homes in spans.items():
        shared = [
            at
            for at, (first, last) in homes.items()
            if any(first <= ended and began <= last for other, (began, ended) in homes.items() if other != at)
        ]
        detail = f"partitions {', '.join(map(str, shared))}" if shared else ""
        yield Measurement(max(len(shared), 1), instrument=name, detail=detail)
