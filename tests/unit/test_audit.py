"""The audit on the in-memory transport: an honest service passes, whatever it went through, and every lie is found."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import typer
from prometheus_client import CollectorRegistry

from daemon.checkpoints import Checkpoints
from daemon.cli.audit import _as_text, _raise_verdict, _window
from daemon.core import marker as markers
from daemon.core.instrument import Instrument
from daemon.core.marker import Marker
from daemon.core.pipeline import Pipeline
from daemon.core.records import InputRecord, Message
from daemon.core.sessions import Gap, Rules
from daemon.core.snapshot import Snapshot, decode, encode, encode_reset
from daemon.errors import TickcastError
from daemon.health import Health
from daemon.metrics import Metrics
from daemon.recovery import Recovery
from daemon.resume import Terms
from daemon.service import LoopOptions, Service
from daemon.spread import PredictionSpread
from daemon.stored import Stored
from daemon.tools.audit import Logs, Window, audit_partition
from daemon.tools.audit_start import Setting, Start, start_of
from daemon.tools.published import TopicLog
from daemon.tools.state_topic import newest_marker, read_stored
from daemon.tools.verdict import Findings, total
from daemon.transport.memory import MemoryReader, MemorySink, MemorySource
from daemon.transport.memory_log import MemoryLog, Point
from daemon.transport.port import Outgoing
from daemon.watched import Watch
from schemas import HEADER_PREFIX, ResetCause, TickDecoder
from tests.ticks import OUTPUTS, at, pipeline, raw

PARTITIONS = 2
INSTRUMENTS = 6
GROUP = "desk"
REVISION = "revision-one"
#: Idle for 60 s of event time opens a session.
RULES = Rules((), Gap(60))

Tamper = Callable[[Outgoing], Outgoing]


class StillClock:
    """Time that only waiting moves."""

    def __init__(self) -> None:
        self.now = at(0) / 1e9

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


class LyingSink(MemorySink):
    """Writes something else than it was told; offsets are committed all the same."""

    tamper: Tamper = staticmethod(lambda outgoing: outgoing)

    def commit(self, outgoing: Outgoing, offsets, group_metadata) -> None:
        super().commit(self.tamper(outgoing), offsets, group_metadata)


class Instance:
    """One service on a log."""

    def __init__(
        self,
        log: MemoryLog,
        instance_id: str = "0",
        *,
        tamper: Tamper | None = None,
        revision: str = REVISION,
        on_lost_ticks: str = "stop",
        checkpoint_ticks: int = 12,
        **options: int,
    ) -> None:
        self.source = MemorySource(log, group_id=GROUP, instance_id=instance_id)
        self.sink = LyingSink(log, group_id=GROUP, instance_id=instance_id)
        if tamper is not None:
            self.sink.tamper = tamper
        clock = StillClock()
        made = fresh(**options)
        terms = Terms(GROUP, self.source.topic_id(), revision, on_lost_ticks=on_lost_ticks)  # type: ignore[arg-type]
        self.service = Service(
            self.source,
            self.sink,
            made,
            Recovery(self.source, MemoryReader(log), made, terms, monotonic=clock.monotonic),
            Checkpoints(made, 5.0, checkpoint_ticks, clock.monotonic),
            Metrics(CollectorRegistry(), Watch(PredictionSpread(len(OUTPUTS), 5))),
            Health(60, clock.monotonic),
            LoopOptions(max_batch_ticks=5),
            clock,
        )

    def turn(self, times: int = 1) -> None:
        for _ in range(times):
            self.service.turn()

    def serve(self, turns: int, *, save: bool = True) -> None:
        """Turn so often, then end as SIGTERM would, or without the last checkpoint."""
        self.turn(turns)
        if save:
            self.service._save_all()
        self.source.close(leave=True)
        self.sink.close()


def take_turns(times: int, *instances: Instance) -> None:
    for _ in range(times):
        for instance in instances:
            instance.turn()


def fresh(**options: int) -> Pipeline:
    return pipeline(partitions=(), rules=RULES, **options)


def new_log() -> MemoryLog:
    log = MemoryLog(PARTITIONS)
    log.now_ms = at(100_000) // 10**6
    return log


def fill(log: MemoryLog, ticks: int, *, start: int = 0, instruments: int = INSTRUMENTS, pause: float = 0) -> None:
    """Write ticks of instruments that take turns, some of them no ticks at all, some late, one session a pause."""
    for n in range(start, start + ticks):
        # More than six come in a rhythm of their own each, so that some stay and some are evicted.
        name = f"I{n % instruments if instruments < 10 else n * n // 7 % instruments}"
        late = -40 if n % 13 == 12 else 0
        value = json.dumps(raw(pause + n + late, name, price=100 + n % 5)).encode()
        log.produce(n % PARTITIONS, name.encode(), b"no tick" if n % 11 == 10 else value)


def served(ticks: int = 120, **options) -> MemoryLog:
    """Return a log that one service has answered."""
    log = new_log()
    fill(log, ticks)
    Instance(log, **options).serve(ticks)
    return log


def audit(
    log: MemoryLog,
    *,
    revision: str = REVISION,
    window: Window = Window(),  # noqa: B008
    exports: dict[int, Stored] | None = None,
    **options: int,
) -> list[Findings]:
    """Audit all partitions, each topic through a reader of its own."""
    made, reader = fresh(**options), MemoryReader(log)
    logs = Logs(
        TopicLog(reader, "ticks"),
        {"forecast": TopicLog(reader, "forecasts"), "dead_letter": TopicLog(reader, "dead_letters")},  # type: ignore[arg-type]
        "ticks",
    )
    found = []
    for partition in range(PARTITIONS):
        setting = Setting(
            partition,
            GROUP,
            log.topic_id("ticks"),
            revision,
            reader.bounds("ticks", partition)[0],
            log.group(GROUP).offsets.get(partition),
            newest_marker(reader, partition),
            (exports or {}).get(partition),
        )
        found.append(audit_partition(made, TickDecoder(), setting, logs, window))
    assert made.instrument_count == 0
    return found


def exported(log: MemoryLog) -> dict[int, Stored]:
    return {partition: read_stored(MemoryReader(log), partition) for partition in range(PARTITIONS)}


def assert_passed(found: Sequence[Findings], judged: int | None = None) -> Findings:
    whole = total(list(found))
    assert whole.first_fault is None, "\n".join(whole.first_fault.lines())
    assert whole.passed
    if judged is not None:
        assert whole.judged == judged
    return whole


# --- honest ---------------------------------------------------------------------------------------------------------


def test_an_honest_run_is_equal_in_every_forecast_and_dead_letter() -> None:
    log = served(120)
    whole = assert_passed(audit(log), 120)
    assert whole.equal == {"forecast": len(log.read("forecasts")), "dead_letter": len(log.read("dead_letters"))}
    assert whole.equal["dead_letter"] > 15
    assert (whole.not_judged, whole.resets_taken_over, whole.earlier) == (0, 0, 0)


@pytest.mark.parametrize("point", ["send", "offsets", "commit", "committed"])
def test_instances_that_come_go_and_die_are_equal(point: Point) -> None:
    class Dead(BaseException):
        pass

    def die(here: Point) -> None:
        if here == point:
            log.on_point = lambda point: None
            raise Dead

    log = new_log()
    fill(log, 60)
    one, two = Instance(log, "1"), Instance(log, "2")
    take_turns(12, one, two)
    log.on_point = die
    fill(log, 60, start=60)
    with pytest.raises(Dead):
        take_turns(20, one, two)
    log.group(GROUP).expel("1")
    log.group(GROUP).expel("2")
    three = Instance(log, "3")
    log.claim(f"{GROUP}/1")  # what the transaction timeout does
    log.claim(f"{GROUP}/2")
    three.turn(60)
    assert_passed(audit(log), 120)


def test_evictions_follow_from_the_log() -> None:
    log = new_log()
    fill(log, 200, instruments=14)
    Instance(log, instruments_per_partition_max=3).serve(200)
    assert sum(b'"reset":"first"' in (r.value or b"") for r in log.read("forecasts")) > 50
    assert_passed(audit(log, instruments_per_partition_max=3), 200)
    assert total(audit(log, instruments_per_partition_max=4)).different["forecast"] > 0


def test_a_session_opens_in_the_re_run_as_well() -> None:
    log = served(60)
    fill(log, 60, start=60, pause=500)
    Instance(log, "1").serve(60)
    assert sum(b'"reset":"session"' in (r.value or b"") for r in log.read("forecasts")) == INSTRUMENTS
    assert_passed(audit(log), 120)


def test_outcomes_that_are_not_committed_yet_are_not_missing() -> None:
    log = served(60)
    fill(log, 30, start=60)
    assert_passed(audit(log), 60)


def test_an_open_transaction_hides_nothing_that_is_committed() -> None:
    log = served(60)
    claim = log.claim("stranger")
    log.begin(claim)
    log.append(claim, "forecasts", Message(0, b"I0", b"{}"))
    assert_passed(audit(log), 60)


# --- lies -----------------------------------------------------------------------------------------------------------


def changed(role: str, change: Callable[[Message], list[Message]]) -> Tamper:
    """Return a tamper that changes the messages of one topic."""

    def tamper(outgoing: Outgoing) -> Outgoing:
        messages = dict(outgoing.messages)
        messages[role] = [made for message in messages.get(role, ()) for made in change(message)]
        return Outgoing(messages)

    return tamper


def is_of(message: Message, partition: int, offset: int) -> bool:
    return (message.value or b"").startswith(b'{"id":"ticks-%d-%d"' % (partition, offset))


def test_one_changed_digit_is_found_and_shown_with_both_payloads() -> None:
    def lie(message: Message) -> list[Message]:
        value = message.value or b""
        if is_of(message, 1, 20):
            digit = value.index(b'"mean":[') + 13
            value = value[:digit] + bytes([value[digit] ^ 1]) + value[digit + 1 :]
        return [message._replace(value=value)]

    log = served(tamper=changed("forecasts", lie))
    first, second = audit(log)
    assert_passed([first])
    assert second.different == {"forecast": 1}
    assert second.equal["forecast"] > 40
    assert not second.passed
    assert second.first_fault is not None
    head, tick, published, expected = second.first_fault.lines()
    assert head == "partition 1, tick 20: another outcome than expected"
    assert json.loads(tick.partition(" value ")[2])["instrument"] in expected
    assert published.removeprefix("  published") != expected.removeprefix("  expected ")
    assert json.loads(published.partition("{")[1] + published.partition("{")[2])["id"] == "ticks-1-20"


def test_a_forecast_under_another_key_is_different() -> None:
    log = served(tamper=changed("forecasts", lambda m: [m._replace(key=b"I9") if is_of(m, 0, 7) else m]))
    assert total(audit(log)).different == {"forecast": 1}


def test_a_missing_forecast_is_found() -> None:
    log = served(tamper=changed("forecasts", lambda m: [] if is_of(m, 0, 30) else [m]))
    whole = total(audit(log))
    assert (whole.missing, whole.judged, whole.passed) == (1, 119, False)
    assert whole.first_fault is not None
    assert whole.first_fault.lines()[0] == "partition 0, tick 30: no outcome"


def test_the_last_forecast_is_missed_too() -> None:
    log = served(60, tamper=changed("forecasts", lambda m: [] if is_of(m, 1, 29) else [m]))
    assert total(audit(log)).missing == 1


@pytest.mark.parametrize("apart", [False, True])
def test_a_doubled_forecast_is_found(apart: bool) -> None:
    kept: list[Message] = []

    def twice(message: Message) -> list[Message]:
        if is_of(message, 0, 13):
            kept.append(message)
            return [message] if apart else [message, message]
        return [message, *kept] if apart and is_of(message, 0, 57) else [message]

    log = served(tamper=changed("forecasts", twice))
    whole = total(audit(log))
    assert (whole.twice, whole.missing, whole.judged, whole.passed) == (1, 0, 120, False)


def test_a_forecast_and_a_dead_letter_of_one_tick_are_one_too_many() -> None:
    def both(outgoing: Outgoing) -> Outgoing:
        messages = {"forecasts": [], "dead_letters": [], **outgoing.messages}
        letters = [m for m in messages["dead_letters"] if m.partition == 0]
        extra = [Message(0, b"I0", b'{"id":"ticks-0-%s"}' % dict(m.headers)[HEADER_PREFIX + "offset"]) for m in letters]
        return Outgoing({**messages, "forecasts": [*messages["forecasts"], *extra]})

    whole = total(audit(served(tamper=both)))
    assert whole.twice > 3
    assert not whole.passed


@pytest.mark.parametrize("fact", ["reason", "timestamp"])
def test_a_dead_letter_that_says_something_else_is_found(fact: str) -> None:
    def lie(message: Message) -> list[Message]:
        headers = [(name, b"7" if name == HEADER_PREFIX + fact else value) for name, value in message.headers]
        return [message._replace(headers=headers)]

    whole = total(audit(served(tamper=changed("dead_letters", lie))))
    assert whole.equal["dead_letter"] == 0
    assert whole.different["dead_letter"] > 15


def test_a_dead_letter_whose_value_was_changed_is_found_and_a_truncated_one_is_not_wrong() -> None:
    log = served(tamper=changed("dead_letters", lambda m: [m._replace(value=(m.value or b"")[:4])]))
    assert total(audit(log)).different["dead_letter"] > 15
    header = (HEADER_PREFIX + "truncated", b"true")
    cut = changed("dead_letters", lambda m: [m._replace(value=(m.value or b"")[:4], headers=[*m.headers, header])])
    assert_passed(audit(served(tamper=cut)), 120)


def test_a_dead_letter_in_place_of_a_forecast_is_different() -> None:
    def refuse(outgoing: Outgoing) -> Outgoing:
        messages = {"forecasts": [], "dead_letters": [], **outgoing.messages}
        gone = [m for m in messages["forecasts"] if is_of(m, 0, 9)]
        facts = {"topic": "ticks", "partition": "0", "offset": "9", "reason": "late", "timestamp": "1"}
        letters = [
            Message(0, m.key, b"x", [(HEADER_PREFIX + name, text.encode()) for name, text in facts.items()])
            for m in gone
        ]
        kept = [m for m in messages["forecasts"] if m not in gone]
        return Outgoing({**messages, "forecasts": kept, "dead_letters": [*messages["dead_letters"], *letters]})

    assert total(audit(served(tamper=refuse))).different == {"forecast": 1}


def test_outcomes_of_no_tick_are_found() -> None:
    log = served()
    claim = log.claim("stranger")
    log.begin(claim)
    log.append(claim, "forecasts", Message(0, b"I0", b"hello"))
    log.append(claim, "dead_letters", Message(1, b"I0", b"hello"))
    log.end(claim, committed=True)
    whole = total(audit(log))
    assert (whole.astray_count, whole.judged, whole.passed) == (2, 120, False)


def test_a_state_that_is_one_bit_off_shows() -> None:
    """The defect that the whole audit is there for: nothing is lost or doubled, and a forecast is not what it was."""
    log = new_log()
    fill(log, 60)
    Instance(log).serve(40)
    original = exported(log)[0]
    key, value = next(iter(original.values.items()))
    claim = log.claim("stranger")
    log.begin(claim)
    log.append(claim, "state", Message(0, key, one_bit_off(key, value)))
    log.append(claim, "state", Message(0, markers.KEY, markers.encode(marker_of(original))))
    log.end(claim, committed=True)
    fill(log, 60, start=60)
    Instance(log, "1").serve(40)
    found = audit(log)
    assert found[0].different["forecast"] > 2
    assert_passed([found[1]])


def one_bit_off(key: bytes, value: bytes) -> bytes:
    snapshot = decode(key.decode(), value)
    state = snapshot.state.copy()
    state.view(np.uint32)[0] ^= 1 << 15
    return encode(snapshot.revision, snapshot.next_offset, snapshot.instrument, state.tobytes())


def marker_of(stored: Stored) -> Marker:
    marker = stored.marker()
    assert marker is not None
    return marker


# --- where states start ---------------------------------------------------------------------------------------------


def halfway(**options: int) -> tuple[MemoryLog, dict[int, Stored]]:
    """Return a log served in two halves, and an export from between them."""
    log = new_log()
    fill(log, 60)
    Instance(log, **options).serve(40)
    exports = exported(log)
    fill(log, 60, start=60)
    Instance(log, "1", **options).serve(40)
    return log, exports


def test_an_export_is_a_start_where_the_first_tick_is_gone() -> None:
    log, exports = halfway()
    for partition in range(PARTITIONS):
        log.trim("ticks", partition, 25)
    found = audit(log, exports=exports)
    assert_passed(found, 60)
    assert found[0].line == "from the snapshots at tick 30"


def test_evictions_follow_from_an_export() -> None:
    log, exports = halfway(instruments_per_partition_max=2)
    assert_passed(audit(log, exports=exports, instruments_per_partition_max=2), 60)


def test_a_wrong_state_in_an_export_is_found() -> None:
    log, exports = halfway()
    key, value = next(iter(exports[1].values.items()))
    exports[1].add([InputRecord("state", 1, 0, 0, key, one_bit_off(key, value))])
    first, second = audit(log, exports=exports)
    assert_passed([first])
    assert second.different["forecast"] > 2


@pytest.mark.parametrize("shape", ["nonsense", "of another model"])
def test_a_snapshot_in_an_export_that_cannot_be_used_costs_its_instrument_only(shape: str) -> None:
    log, exports = halfway()
    key, value = next(iter(exports[1].values.items()))
    snapshot = decode(key.decode(), value)
    other = encode(snapshot.revision, snapshot.next_offset, snapshot.instrument, b"\0" * 4)
    exports[1].add([InputRecord("state", 1, 0, 0, key, b"TCS" if shape == "nonsense" else other)])
    whole = assert_passed(audit(log, exports=exports))
    assert whole.instruments_not_judged == 1
    assert 5 < whole.not_judged < 60 - whole.judged + 1


def test_without_a_start_state_an_instrument_is_judged_from_its_first_reset_on() -> None:
    log, _ = halfway()
    fill(log, 24, start=120, instruments=8)  # I6 and I7 are new
    Instance(log, "2").serve(30)
    for partition in range(PARTITIONS):
        log.trim("ticks", partition, 25)
    found = audit(log)
    assert "no longer retained" in found[0].line
    whole = assert_passed(found)
    assert whole.instruments_not_judged == INSTRUMENTS
    judged = {json.loads(r.value or b"")["instrument"] for r in log.read("forecasts")}
    assert judged >= {"I6", "I7"}
    letters = [r for r in log.read("dead_letters") if dict(r.headers)[HEADER_PREFIX + "reason"] == b"not_json"]
    assert whole.equal["dead_letter"] == sum(int(dict(r.headers)[HEADER_PREFIX + "offset"]) >= 25 for r in letters)
    assert whole.equal["forecast"] == sum(
        json.loads(r.value or b"")["instrument"] > "I5" for r in log.read("forecasts")
    )


def test_a_lie_about_an_instrument_that_began_later_is_found_without_any_start_state() -> None:
    def lie(message: Message) -> list[Message]:
        value = (message.value or b"").replace(b'"step":1,', b'"step":2,') if message.key == b"I7" else message.value
        return [message._replace(value=value)]

    log, _ = halfway()
    fill(log, 24, start=120, instruments=8)
    Instance(log, "2", tamper=changed("forecasts", lie)).serve(30)
    log.trim("ticks", 1, 25)
    assert total(audit(log)).different == {"forecast": 1}


def test_evictions_cannot_be_judged_without_all_states_but_are_followed() -> None:
    log = new_log()
    fill(log, 200, instruments=14)
    Instance(log, instruments_per_partition_max=3).serve(200)
    for partition in range(PARTITIONS):
        log.trim("ticks", partition, 40)
    whole = assert_passed(audit(log, instruments_per_partition_max=3))
    assert whole.equal["forecast"] > 80


def test_another_revision_is_judged_not_at_all() -> None:
    found = audit(served(), revision="revision-two")
    assert total(found).judged == 0
    assert "revision-one" in found[0].line
    assert "revision-two" in found[0].line
    assert not total(found).passed


def test_a_new_revision_is_judged_from_where_it_took_over() -> None:
    log = served(60)
    fill(log, 60, start=60)
    Instance(log, "1", revision="revision-two").serve(60)
    fill(log, 30, start=120)
    Instance(log, "2", revision="revision-two").serve(60)
    whole = assert_passed(audit(log, revision="revision-two"), 90)
    assert whole.resets_taken_over == 0
    assert sum(b'"reset":"revision"' in (r.value or b"") for r in log.read("forecasts")) == INSTRUMENTS


def test_an_old_revision_is_judged_up_to_where_the_new_one_took_over() -> None:
    log, exports = halfway()
    fill(log, 30, start=120)
    Instance(log, "2", revision="revision-two").serve(60)
    assert_passed(audit(log, exports=exports), 60)
    assert "is of revision revision-one" in audit(log, exports=exports, revision="revision-two")[0].line
    assert_passed(audit(log, revision="revision-two"), 30)


def test_nothing_committed_is_nothing_judged() -> None:
    log = new_log()
    fill(log, 20)
    found = audit(log)
    assert found[0].line == "nothing is judged: the group has committed nothing"
    assert not total(found).passed


# --- resets that do not follow from the log ---------------------------------------------------------------------------


def write_reset(log: MemoryLog, partition: int, name: str) -> None:
    """Do what an operator does to a stopped group."""
    offset = log.group(GROUP).offsets[partition]
    last = decode(name, exported(log)[partition].values[name.encode()]).instrument.last_offset
    claim = log.claim("operator")
    log.begin(claim)
    value = encode_reset(REVISION, offset, name, ResetCause.OPERATOR, last)
    log.append(claim, "state", Message(partition, name.encode(), value))
    log.end(claim, committed=True)


def reset_log() -> tuple[MemoryLog, dict[int, Stored]]:
    log = new_log()
    fill(log, 60)
    Instance(log).serve(9, save=False)
    write_reset(log, 0, "I2")
    exports = exported(log)
    Instance(log, "1").serve(60)
    return log, exports


def test_a_reset_by_an_operator_is_taken_over() -> None:
    log, _ = reset_log()
    assert sum(b'"reset":"operator"' in (r.value or b"") for r in log.read("forecasts")) == 1
    assert assert_passed(audit(log), 60).resets_taken_over == 1


def test_a_reset_in_an_export_happens_where_it_did() -> None:
    log, exports = reset_log()
    whole = assert_passed(audit(log, exports=exports))
    assert whole.resets_taken_over == 0
    assert whole.instruments_not_judged <= 1


def test_a_reset_that_was_not_done_all_the_way_is_found() -> None:
    """The forecast says `operator`, yet the state went on: the next payloads give it away."""

    def lie(message: Message) -> list[Message]:
        value = message.value or b""
        if is_of(message, 0, 20):
            step = json.loads(value)["step"]
            value = value.replace(b'"step":%d,"reset":null' % step, b'"step":0,"reset":"operator"')
        return [message._replace(value=value)]

    whole = total(audit(served(tamper=changed("forecasts", lie))))
    assert whole.resets_taken_over == 1
    assert whole.different["forecast"] > 5


def test_a_state_that_was_lost_is_taken_over() -> None:
    log = new_log()
    fill(log, 60)
    Instance(log).serve(40)
    claim = log.claim("stranger")
    log.begin(claim)
    log.append(claim, "state", Message(0, b"I0", b"damaged"))
    log.end(claim, committed=True)
    fill(log, 60, start=60)
    Instance(log, "1").serve(40)
    assert assert_passed(audit(log), 120).resets_taken_over == 1


def test_a_group_that_was_set_back_is_judged_by_what_it_published_last() -> None:
    log = served(120)
    log.group(GROUP).offsets.update({0: 40, 1: 45})
    Instance(log, "1").serve(60)
    whole = assert_passed(audit(log), 20 + 15)
    assert whole.earlier == 20 + 15
    assert audit(log)[0].line == "from tick 40, where the states began"


def test_a_lie_after_the_group_was_set_back_is_found() -> None:
    log = served(120)
    log.group(GROUP).offsets.update({0: 40, 1: 45})
    drop = changed("forecasts", lambda m: [] if is_of(m, 0, 50) else [m])
    Instance(log, "1", tamper=drop).serve(60)
    assert total(audit(log)).missing == 1


def test_an_export_of_states_given_up_is_good_up_to_there() -> None:
    log, exports = halfway()
    log.group(GROUP).offsets.update({0: 50, 1: 20})
    Instance(log, "2").serve(60)
    first, second = audit(log, exports=exports)
    assert "begins anew" in first.line or "began anew" in first.line
    assert_passed([first], 20)
    assert second.line == "from tick 20, where the states began"
    assert_passed([second], 40)


# --- windows and retention ------------------------------------------------------------------------------------------


def test_a_window_bounds_what_is_compared_and_not_where_states_start() -> None:
    log = served(tamper=changed("forecasts", lambda m: [] if is_of(m, 0, 20) else [m]))
    assert_passed(audit(log, window=Window(from_offset=21, to_offset=50)), 58)
    assert total(audit(log, window=Window(from_offset=20, to_offset=50))).missing == 1


def test_a_window_of_time_goes_by_the_records_own_timestamps() -> None:
    log = new_log()
    begin = log.now_ms
    for n in range(12):
        log.now_ms = begin + 1000 * n
        fill(log, 10, start=10 * n)
    Instance(log).serve(80)
    window = Window(from_ms=begin + 3000, to_ms=begin + 7000)
    assert_passed(audit(log, window=window), 40)
    assert total(audit(log, window=Window(from_ms=begin + 20_000))).judged == 0


def test_a_doubled_forecast_outside_the_window_is_no_fault_of_the_window() -> None:
    log = served(tamper=changed("forecasts", lambda m: [m, m] if is_of(m, 0, 10) else [m]))
    assert_passed(audit(log, window=Window(from_offset=11)), 98)
    assert total(audit(log, window=Window(to_offset=11))).twice == 1


def test_outcomes_deleted_by_retention_are_not_missing() -> None:
    log = served(120)
    for topic in ("forecasts", "dead_letters"):
        first = log.bounds(topic, 0, "read_committed")[1] // 2
        log.trim(topic, 0, first)
    whole = assert_passed(audit(log))
    assert whole.not_retained > 10
    assert whole.judged + whole.not_retained == 120


# --- the table of starts --------------------------------------------------------------------------------------------

LIFE = Marker(GROUP, "id", REVISION, 50, 10, 20, ResetCause.REVISION)
SETTING = Setting(0, GROUP, "id", REVISION, 0, 60, LIFE)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (replace(SETTING, group_id="other"), "belongs to group 'desk'"),
        (replace(SETTING, topic_id="other"), "created anew"),
        (replace(SETTING, revision="other"), "is of revision revision-one"),
        (replace(SETTING, committed=None, marker=None), "has committed nothing"),
    ],
)
def test_why_nothing_is_judged(setting: Setting, words: str) -> None:
    start = start_of(setting)
    assert isinstance(start, str)
    assert words in start


@pytest.mark.parametrize(
    ("setting", "offset", "live_from", "until", "whole"),
    [
        (SETTING, 10, 20, 60, True),
        (replace(SETTING, first=10), 10, 20, 60, True),
        (replace(SETTING, first=11), 20, 20, 60, False),
        (replace(SETTING, first=30), 30, 30, 60, False),
        (replace(SETTING, committed=None), 10, 20, 50, True),
        (replace(SETTING, marker=None, first=5), 5, 5, 60, False),
    ],
)
def test_where_states_start(setting: Setting, offset: int, live_from: int, until: int, whole: bool) -> None:
    start = start_of(setting)
    assert isinstance(start, Start)
    assert (start.offset, start.live_from, start.until, start.whole) == (offset, live_from, until, whole)


def test_a_reset_in_an_export_leaves_its_instrument_unsure_until_then() -> None:
    stored = Stored()
    gone = encode_reset(REVISION, 55, "A", ResetCause.OPERATOR, 44)
    alive = encode(REVISION, 50, Instrument("B", 0, [1.0], None), b"\0" * 4)
    for key, value in ((b"A", gone), (b"B", alive), (markers.KEY, markers.encode(LIFE))):
        stored.add([InputRecord("state", 0, 0, 0, key, value)])
    start = start_of(replace(SETTING, exported=stored))
    assert isinstance(start, Start)
    assert (start.offset, start.whole, start.unsure) == (50, True, ("A",))
    assert start.resets == {55: (("A", ResetCause.OPERATOR),)}
    assert [type(each) for each in start.snapshots] == [Snapshot, Snapshot]


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begin", "end", "window"),
    [
        (None, None, Window()),
        ("12", "40", Window(from_offset=12, to_offset=40)),
        ("1970-01-01T00:00:02Z", None, Window(from_ms=2000)),
        ("5", "1970-01-01T01:00:00.25+01:00", Window(from_offset=5, to_ms=250)),
    ],
)
def test_bounds_are_offsets_or_times(begin: str | None, end: str | None, window: Window) -> None:
    assert _window(begin, end) == window


@pytest.mark.parametrize("text", ["2024-01-01", "2024-01-01T00:00:00", "-5", "tomorrow", "²"])
def test_a_bound_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="neither an offset nor a time"):
        _window(text, None)


def test_the_text_names_the_fault_and_adds_up() -> None:
    found = audit(served(tamper=changed("forecasts", lambda m: [] if is_of(m, 1, 20) else [m])))
    lines = _as_text(found, total(found)).splitlines()
    assert lines[3].split() == ["all", "120", *map(str, (total(found).equal["forecast"], 0)), *lines[3].split()[4:]]
    assert lines[3].split()[6:8] == ["1", "0"]
    assert "the first fault:" in lines
    assert lines[lines.index("the first fault:") + 1] == "partition 1, tick 20: no outcome"


def test_the_verdict_is_an_error_unless_something_was_judged_and_nothing_is_wrong() -> None:
    _raise_verdict(total(audit(served())))
    with pytest.raises(TickcastError, match="1 outcome is not what the ticks lead to"):
        _raise_verdict(total(audit(served(tamper=changed("forecasts", lambda m: [] if is_of(m, 1, 20) else [m])))))
    with pytest.raises(TickcastError, match="nothing was judged"):
        _raise_verdict(total(audit(served(), revision="revision-two")))
