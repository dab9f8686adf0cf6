"""`tickcast deadletters`: ticks that could not be used, shown and put back."""

from __future__ import annotations

import base64
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from daemon.cli.tables import table
from daemon.cli.topics import ConfigFile, Servers, load
from daemon.logs import printable

if TYPE_CHECKING:
    from daemon.config import Settings
    from daemon.core.records import Message
    from daemon.stored import Stored
    from daemon.tools.dead_letters import Letter, LetterBox
    from daemon.tools.retrial import Outcome
    from daemon.transport.connection import Connection
    from daemon.transport.group import PartitionStatus
    from daemon.transport.kafka_writer import KafkaWriter
    from daemon.transport.port import Reader

app = typer.Typer(no_args_is_help=True, help="Show the ticks that could not be used, and put them back.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

COLUMNS = ("partition", "offset", "written", "tick", "reason", "attempt", "key", "value", "detail")
#: Characters of a value or key, and of a detail, in a table.
VALUE_SHOWN = 60
DETAIL_SHOWN = 80


@app.command()
def show(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    reason: Annotated[str | None, typer.Option(help="Only those with this reason.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, help="The newest so many.")] = 50,
    as_json: Json = False,
) -> None:
    """Show the newest dead letters, and how many there are of each reason.

    Example: tickcast deadletters show --reason late --limit 10 --config tickcast.toml
    """
    from daemon.errors import SettingsError
    from daemon.tools.dead_letters import FOREIGN
    from schemas import Reason

    known = [*(each.value for each in Reason), FOREIGN]
    if reason is not None and reason not in known:
        raise SettingsError(f"there is no reason {reason!r}; known are {', '.join(known)}")
    counts: Counter[str] = Counter()
    newest: list[Letter] = []
    with _letters(config, bootstrap_servers) as opened:
        for row in opened.rows:
            tail: deque[Letter] = deque(maxlen=limit)
            for letter in opened.box.letters(row.partition, 0, row.end):
                if reason in (None, letter.reason):
                    counts[letter.reason] += 1
                    tail.append(letter)
            newest = sorted([*newest, *tail], key=lambda each: (each.written_ms, each.partition, each.offset))[-limit:]
    topic = opened.settings.topics.dead_letters
    if as_json:
        typer.echo(json.dumps({"topic": topic, "counts": counts, "letters": [_as_json(each) for each in newest]}))
        return
    if newest:
        typer.echo(table(COLUMNS, map(_row, newest)))
    total = ", ".join(f"{count} {name}" for name, count in counts.most_common())
    typer.echo(f"{counts.total()} dead letters in {topic}" + (f": {total}" if total else ""))


@app.command()
def replay(
    config: ConfigFile = None,
    bootstrap_servers: Servers = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be put back.")] = False,
    as_json: Json = False,
) -> None:
    """Put dead letters back as new ticks, each once: a second run begins behind the last one put back.

    What would only be rejected again, because it still cannot be decoded or its instrument has moved on since, stays a
    dead letter. Kafka keeps the place of a command that never runs for `offsets.retention.minutes`, a week by default.

    Example: tickcast deadletters replay --dry-run --config tickcast.toml
    """
    from daemon.assembly import tick_decoder
    from daemon.model.bundle import Bundle
    from daemon.tools.retrial import Court, Outcome, intake_of, retry

    outcome = Outcome()
    with _letters(config, bootstrap_servers) as opened, _writing(opened, dry_run=dry_run) as outbox:
        settings = opened.settings
        intake, decoder = intake_of(settings, Bundle.load(settings.model.bundle).spec), tick_decoder(settings)
        for row in opened.place():
            start = row.committed if row.committed is not None and row.committed <= row.end else 0  # created anew
            letters = opened.box.letters(row.partition, start, row.end)
            first = next(letters, None)
            if first is not None:
                court = Court(settings.topics.ticks, decoder, intake, opened.stored(row.partition))
                retry(_with(first, letters), court, outbox, outcome)
    if as_json:
        typer.echo(json.dumps(_outcome_json(outcome, dry_run=dry_run)))
    else:
        typer.echo(_outcome_text(outcome, dry_run=dry_run))


@dataclass(frozen=True)
class _Opened:
    """The dead letters of a service, and the place of their retrials."""

    settings: Settings
    connection: Connection
    reader: Reader
    box: LetterBox
    #: As the group of the retrials sees the topic.
    rows: tuple[PartitionStatus, ...]

    @property
    def group_id(self) -> str:
        return f"{self.settings.kafka.group_id}.deadletters"

    def place(self) -> tuple[PartitionStatus, ...]:
        """Read the place anew; once a writer is open, nobody else moves it."""
        from daemon.transport.group import read_group

        return read_group(self.connection, self.group_id, self.settings.topics.dead_letters).partitions

    def stored(self, partition: int) -> Stored:
        from daemon.tools.state_topic import read_stored

        return read_stored(self.reader, partition)


@contextmanager
def _letters(config: Path | None, bootstrap_servers: str | None) -> Iterator[_Opened]:
    from daemon.tools.dead_letters import LetterBox
    from daemon.transport.connection import Connection
    from daemon.transport.group import read_group
    from daemon.transport.kafka_reader import KafkaReader

    settings = load(config, bootstrap_servers)
    connection, topics = Connection.from_settings(settings.kafka), settings.topics
    rows = read_group(connection, f"{settings.kafka.group_id}.deadletters", topics.dead_letters).partitions
    # What this reader takes for ticks are the letters; the ticks themselves nobody asks for here.
    reader = KafkaReader(connection, topics={"dead_letters": topics.dead_letters, "state": topics.state})
    try:
        yield _Opened(settings, connection, reader, LetterBox(reader), rows)
    finally:
        reader.close()


class _KafkaOutbox:
    """Puts ticks back in transactions with the place of the retrials."""

    def __init__(self, writer: KafkaWriter, opened: _Opened) -> None:
        self._writer = writer
        self._opened = opened

    def put_back(self, ticks: Iterable[Message], partition: int, next_letter: int) -> None:
        topics = self._opened.settings.topics
        with self._writer.transaction() as transaction:
            for tick in ticks:
                transaction.send(topics.ticks, tick)
            transaction.flush()
            transaction.commit_offsets(self._opened.group_id, topics.dead_letters, {partition: next_letter})


@contextmanager
def _writing(opened: _Opened, *, dry_run: bool) -> Iterator[_KafkaOutbox | None]:
    """Claim the right to put letters back, which ends every other command that is doing so."""
    from daemon.transport.connection import transactional_id
    from daemon.transport.kafka_writer import KafkaWriter

    if dry_run:
        yield None
        return
    name = transactional_id(opened.settings.kafka.group_id, "deadletters")
    with KafkaWriter(opened.connection, name) as writer:
        yield _KafkaOutbox(writer, opened)


def _with(first: Letter, rest: Iterator[Letter]) -> Iterator[Letter]:
    yield first
    yield from rest


def _row(letter: Letter) -> tuple[object, ...]:
    tick = f"{letter.tick_topic}-{letter.tick_partition}-{letter.tick_offset}" if letter.tick_topic else None
    value = _printable(letter.value, VALUE_SHOWN)
    return (
        letter.partition,
        letter.offset,
        _iso(letter.written_ms),
        tick,
        letter.reason,
        letter.attempt,
        _printable(letter.key, VALUE_SHOWN),
        value,
        _cut(letter.detail, DETAIL_SHOWN),
    )


def _as_json(letter: Letter) -> dict[str, Any]:
    return {
        "partition": letter.partition,
        "offset": letter.offset,
        "written": _iso(letter.written_ms),
        "tick": {
            "topic": letter.tick_topic,
            "partition": letter.tick_partition,
            "offset": letter.tick_offset,
            "timestamp_ms": letter.tick_timestamp,
        },
        "reason": letter.reason,
        "detail": letter.detail,
        "attempt": letter.attempt,
        "truncated": letter.truncated,
        "key": _printable(letter.key, None),
        "value": _printable(letter.value, None),
        "value_base64": None if letter.value is None else base64.b64encode(letter.value).decode(),
    }


def _outcome_json(outcome: Outcome, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "put_back": outcome.put_back,
        "rejected_again": outcome.refused.total(),
        "reasons": {
            reason: {"count": count, "example": outcome.examples[reason][1]}
            for reason, count in outcome.refused.most_common()
        },
    }


def _outcome_text(outcome: Outcome, *, dry_run: bool) -> str:
    refused = outcome.refused
    lines = [
        f"{outcome.put_back} {'can be put back' if dry_run else 'put back'}, "
        f"{refused.total()} would only be rejected again" + (":" if refused else "")
    ]
    for reason, count in refused.most_common():
        letter, detail = outcome.examples[reason]
        lines.append(
            f"  {count} {reason}, such as {letter.partition}-{letter.offset}: {printable(_cut(detail, DETAIL_SHOWN))}"
        )
    return "\n".join(lines)


def _printable(value: bytes | None, length: int | None) -> str | None:
    """Write bytes as text in which everything can be printed, cut to a length."""
    if value is None:
        return None
    part = value if length is None else value[: 4 * length]
    text = part.decode("utf-8", "backslashreplace")
    shown = printable(text)
    return shown if length is None else _cut(shown, length)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _iso(ms: int) -> str | None:
    return None if ms < 0 else datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")
