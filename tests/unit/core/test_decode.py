"""From bytes to a tick, or to the one reason why not."""

import json

import pytest

from daemon.core.spec import Output
from schemas import Reason, Rejected, TickDecoder
from schemas.tick import TS_NS_MIN
from tests.ticks import START, headers, model, pipeline, raw, reasons, record


def refusal(value: bytes | None, decoder: TickDecoder | None = None) -> Rejected:
    with pytest.raises(Rejected) as caught:
        (decoder or TickDecoder()).decode(value)
    return caught.value


def encoded(**changes) -> bytes:
    return json.dumps(raw(price=1.5, bid=1.0, ask=2.0) | changes).encode()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, Reason.EMPTY),
        (b"", Reason.EMPTY),
        (b"{", Reason.NOT_JSON),
        (b"[]", Reason.NOT_JSON),
        (b'"tick"', Reason.NOT_JSON),
        (b"null", Reason.NOT_JSON),
        (b"\xef\xbb\xbf" + encoded(), Reason.NOT_JSON),
        (encoded().decode().encode("utf-16"), Reason.NOT_JSON),
        (b"[" * 100_000, Reason.NOT_JSON),
        (b"{}", Reason.MISSING_FIELD),
        (encoded(bid=None), Reason.MISSING_FIELD),
        (encoded(ask=None), Reason.MISSING_FIELD),
        (encoded(price=None, bid=None, ask=None), Reason.MISSING_FIELD),
        (encoded(price="1.5"), Reason.WRONG_TYPE),
        (encoded(price=True), Reason.WRONG_TYPE),
        (encoded(instrument=7), Reason.WRONG_TYPE),
        (encoded(seq=1.5), Reason.WRONG_TYPE),
        (encoded(ts=1.5e18), Reason.WRONG_TYPE),
        (encoded(ts=None), Reason.WRONG_TYPE),
        (encoded(fields=[1]), Reason.WRONG_TYPE),
        (encoded(instrument=""), Reason.INVALID_VALUE),
        (encoded(instrument="x" * 65), Reason.INVALID_VALUE),
        (encoded(instrument="A\x00"), Reason.INVALID_VALUE),
        (encoded(instrument="A\n"), Reason.INVALID_VALUE),
        (encoded(aggressor="both"), Reason.INVALID_VALUE),
        (encoded(size=-1), Reason.INVALID_VALUE),
        (encoded(seq=2**63), Reason.INVALID_VALUE),
        (encoded(ts="yesterday"), Reason.INVALID_VALUE),
        (encoded(ts="2024-02-30T00:00:00Z"), Reason.INVALID_VALUE),
        (encoded(fields={"Upper": 1}), Reason.INVALID_VALUE),
        (encoded(fields={f"f{n}": n for n in range(65)}), Reason.INVALID_VALUE),
        (encoded(price=float("nan")), Reason.NOT_FINITE),
        (encoded(bid=float("-inf")), Reason.NOT_FINITE),
        (encoded(fields={"f": float("inf")}), Reason.NOT_FINITE),
        (encoded().replace(b"1.5", b"1e999"), Reason.NOT_FINITE),
        (encoded(bid=2.5), Reason.CROSSED_QUOTE),
        (encoded(ts="2024-01-02T15:00:00"), Reason.NAIVE_TIME),
        (encoded(ts=START // 10**6), Reason.TIME_UNIT),
        (encoded(ts=START // 10**3), Reason.TIME_UNIT),
        (encoded(ts=TS_NS_MIN - 1), Reason.TIME_UNIT),
        (encoded(ts=-START), Reason.TIME_UNIT),
        (encoded(ts=2**63), Reason.TIME_UNIT),
    ],
)
def test_what_cannot_be_a_tick_has_its_reason(value, reason):
    found = refusal(value)
    assert found.reason is reason
    assert found.detail


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2024-01-02T15:00:00Z", 0),
        ("2024-01-02T15:00Z", 0),
        ("2024-01-02 16:00:00+01:00", 0),
        ("2024-01-02T20:30:00+0530", 0),
        ("2024-01-02T10:00:00.000000001-05:00", 1),
        ("2024-01-02T15:00:00.5z", 500_000_000),
        ("2024-01-02T15:00:00,1234567899Z", 123_456_789),
    ],
)
def test_iso_times_are_exact_to_the_nanosecond(text, ns):
    assert TickDecoder().decode(encoded(ts=text)).ts == START + ns


def test_unknown_fields_are_ignored_and_known_ones_read():
    found = TickDecoder().decode(encoded(venue="X", seq=-(2**63), session="", fields={"open_interest": 2}))
    assert (found.price, found.bid, found.seq, found.session) == (1.5, 1.0, -(2**63), "")
    assert found.fields == {"open_interest": 2.0}
    assert not hasattr(found, "venue")


def test_confluent_framing_is_seen_and_counted():
    decoder = TickDecoder()
    assert decoder.decode(b"\x00\x00\x00\x00\x07" + encoded()) == decoder.decode(encoded())
    assert decoder.framed_count == 1
    assert refusal(b"\x00\x00\x00\x00\x07").reason is Reason.NOT_JSON


MAPPED = TickDecoder({"instrument": "s", "ts": "data.E", "price": "data.p"}, {"funding": "data.f"}, time_unit="ms")


def test_a_map_reads_the_users_own_names_units_and_numbers_in_text():
    value = {"s": "A", "data": {"E": START // 10**6, "p": "1.5", "f": "-0.25"}, "size": 3, "fields": {"x": 1}}
    found = MAPPED.decode(json.dumps(value).encode())
    assert (found.instrument, found.ts, found.price, found.size) == ("A", START, 1.5, 3.0)
    assert found.fields == {"funding": -0.25}


@pytest.mark.parametrize("time", [START // 10**6, str(START // 10**6), START / 10**6, "2024-01-02T15:00:00Z"], ids=str)
def test_a_map_takes_times_as_numbers_numbers_in_text_and_iso(time):
    assert MAPPED.decode(json.dumps({"s": "A", "data": {"E": time, "p": 1}}).encode()).ts == START


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", Reason.NOT_JSON),
        (b"[1]", Reason.NOT_JSON),
        ({"s": "A"}, Reason.MISSING_FIELD),
        ({"s": "A", "data": 5}, Reason.MISSING_FIELD),
        ({"s": "A", "data": {"E": START // 10**6}}, Reason.MISSING_FIELD),
        ({"s": "A", "data": {"E": START, "p": 1}}, Reason.TIME_UNIT),
        ({"s": "A", "data": {"E": "soon", "p": 1}}, Reason.INVALID_VALUE),
        ({"s": "A", "data": {"E": "2024-01-02T15:00:00", "p": 1}}, Reason.NAIVE_TIME),
        ({"s": "A", "data": {"E": [], "p": 1}}, Reason.WRONG_TYPE),
        ({"s": "A", "data": {"E": START // 10**6, "p": "NaN"}}, Reason.NOT_FINITE),
        ({"s": "A", "data": {"E": START // 10**6, "p": "much"}}, Reason.WRONG_TYPE),
        ({"s": "A", "data": {"E": START // 10**6, "p": 1, "f": {}}}, Reason.WRONG_TYPE),
    ],
)
def test_what_a_map_cannot_read_has_its_reason(value, reason):
    assert refusal(value if isinstance(value, bytes) else json.dumps(value).encode(), MAPPED).reason is reason


def test_a_map_names_the_users_own_field_where_the_time_is_missing():
    assert refusal(b'{"s": "A"}', MAPPED).detail.startswith("data.E")


@pytest.mark.parametrize(
    ("value", "facts", "reason"),
    [
        (raw(), {"key": b"\xff\xfe"}, Reason.KEY_NOT_UTF8),
        (raw(price=0), {}, Reason.PRICE_NOT_POSITIVE),
        (raw(price=-1), {}, Reason.PRICE_NOT_POSITIVE),
        (raw(bid=0, ask=1), {}, Reason.PRICE_NOT_POSITIVE),
        (raw(60.001), {"timestamp": START // 10**6}, Reason.FUTURE_TIME),
    ],
)
def test_what_only_the_pipeline_can_judge_has_its_reason(value, facts, reason):
    batch = pipeline().advance([record(value, **facts)])
    assert reasons(batch) == [reason]
    assert batch.reasons == {reason: 1}
    assert batch.dead_letters[0].key == facts.get("key", b"A")
    assert headers(batch.dead_letters[0])["detail"]


@pytest.mark.parametrize(
    ("value", "facts"),
    [
        (raw(60), {"timestamp": START // 10**6}),
        (raw(10**6), {"timestamp": -1}),
        (raw(), {"key": None}),
        (raw(), {"key": "é".encode()}),
    ],
)
def test_what_is_just_within_bounds_gives_a_forecast(value, facts):
    assert len(pipeline().advance([record(value, **facts)]).forecasts) == 1


def test_prices_may_be_negative_where_the_model_works_on_differences_only():
    differences = [Output(1, "difference"), Output(2, "difference")]
    assert len(pipeline(model(outputs=differences)).advance([record(raw(price=-37.6))]).forecasts) == 1
    mixed = [Output(1, "difference"), Output(2, "log_return")]
    assert reasons(pipeline(model(outputs=mixed)).advance([record(raw(price=-37.6))])) == ["price_not_positive"]
