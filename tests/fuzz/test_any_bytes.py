"""Whatever bytes come in, each record becomes a forecast or a dead letter that keeps them; nothing else is raised."""

import json

from hypothesis import example, given
from hypothesis import strategies as st

from daemon.core.records import InputRecord
from daemon.core.spec import Column
from schemas import HEADER_PREFIX, TickDecoder
from tests.ticks import headers, model, outcomes, payloads, pipeline, raw, record, records

SPEC = model([Column("return", "running"), Column("log:field:volume"), Column("ema:3:diff:spread", "running")])
MAPPED = TickDecoder(
    {"instrument": "s", "ts": "data.E", "price": "data.p", "session": "data.s"}, {"volume": "data.v"}, time_unit="ms"
)

VALID = raw(price=1.5, size=2, bid=1.4, ask=1.6, aggressor="buy", seq=1, session="s", fields={"volume": 1.0})
VALID_MAPPED = {"s": "A", "data": {"E": 1704207600000, "p": "1.5", "s": "x", "v": "2"}}

#: Values that JSON can say and a tick cannot, or hardly.
WEIRD = [
    b"null", b"true", b"-0", b"-1", b"0.0", b"1e999", b"-1e999", b"NaN", b"-Infinity", b"5e-324", b"1.7e308",
    b"-1.7e308", b"9" * 400, b"9" * 4000, b"9" * 5000, b"1" + b"0" * 4299,
    b"1704207600000000000", b"1704207600000", b"1704207600000.5", b'"1704207600000"',
    b'""', b'"A"', b'" "', b'"\\u0000"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\xc3\xa9"', b'"\xff"',
    b'"NaN"', b'"1e400"', b'"' + b"9" * 5000 + b'"', '"\u0661"'.encode(),
    b'"2024-01-01T00:00:00Z"', b'"2024-01-01T00:00:00"', b'"2024-02-30T00:00:00Z"', b'"0000-01-01T00:00:00Z"',
    b'"9999-12-31T23:59:59-23:59"', b'"2024-01-01T00:00:00+99:99"',
    b"[]", b"{}", b"[" * 150 + b"]" * 150, b"[" * 100_000, b'{"volume": 1, "volume": 2}', b'{"volume": -1}',
    b'{"": 1}', b'{"volume": "1"}', b'{"volume": 1e400}', json.dumps({f"f{n}": n for n in range(65)}).encode(),
]  # fmt: skip


@st.composite
def edited(draw: st.DrawFn, tick: dict) -> bytes:
    """A valid tick with one or two of its values replaced, or a name said twice."""
    parts = {json.dumps(name).encode(): json.dumps(value).encode() for name, value in tick.items()}
    pairs = list(parts.items())
    for _ in range(draw(st.integers(1, 2))):
        name, value = draw(st.sampled_from(list(parts))), draw(st.sampled_from(WEIRD))
        if draw(st.booleans()):
            pairs = [(known, value if known == name else old) for known, old in pairs]
        else:
            pairs.append((name, value))
    return b"{" + b", ".join(name + b": " + value for name, value in pairs) + b"}"


@st.composite
def damaged(draw: st.DrawFn, tick: dict) -> bytes:
    """A valid tick with some bytes lost, put in or changed."""
    text = bytearray(json.dumps(tick).encode())
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        text[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(text)


@st.composite
def wrapped(draw: st.DrawFn, tick: dict) -> bytes:
    """A valid tick in another encoding or framing."""
    text = json.dumps(tick)
    frame = b"\x00" + draw(st.binary(max_size=5))
    encodings = [text.encode(name) for name in ("utf-8-sig", "utf-16", "utf-16-be", "utf-32")]
    return draw(st.sampled_from([*encodings, frame + text.encode(), frame, text.encode() * 2, text.encode() + b"\x00"]))


def values(tick: dict) -> st.SearchStrategy[bytes | None]:
    made = [edited(tick), edited(tick), damaged(tick), wrapped(tick)]
    return st.one_of(*made, st.none(), st.binary(max_size=60), st.sampled_from(WEIRD))


keys = st.one_of(st.none(), st.just(b"A"), st.binary(max_size=8))
header_lists = st.lists(
    st.tuples(
        st.sampled_from((HEADER_PREFIX + "attempt", "trace")),
        st.one_of(st.none(), st.binary(max_size=4), st.sampled_from((b"2", b"9" * 5000, "\u0661".encode()))),
    ),
    max_size=2,
)
timestamps = st.sampled_from((-1, 0, 1704207600000, 2**63 - 1))


def check(made, log: list[InputRecord]) -> None:
    """Advance, and hold that each record has one outcome and that dead letters keep the bytes."""
    found = outcomes([made.advance(log)])
    assert set(found) == {(0, each.offset) for each in log}
    for each in log:
        message = found[0, each.offset]
        if message.headers:
            assert (message.key, message.value) == (each.key, each.value)
            assert all(isinstance(value, bytes) and value.decode() is not None for _, value in message.headers)
        else:
            assert json.loads(message.value)["mean"]


def logs_of(tick: dict) -> st.SearchStrategy[list[InputRecord]]:
    parts = st.tuples(values(tick), keys, header_lists, timestamps)
    return st.lists(parts, min_size=1, max_size=8).map(
        lambda drawn: [
            record(value, offset, key=key, headers=facts, timestamp=timestamp)
            for offset, (value, key, facts, timestamp) in enumerate(drawn)
        ]
    )


@given(logs_of(VALID))
@example(records(WEIRD))
def test_any_bytes_give_a_forecast_or_a_dead_letter(log):
    check(pipeline(SPEC), log)


@given(logs_of(VALID_MAPPED))
@example(records(WEIRD))
def test_any_bytes_under_a_map_give_a_forecast_or_a_dead_letter(log):
    check(pipeline(SPEC, decoder=MAPPED), log)


@given(st.sampled_from(sorted(VALID)), st.sampled_from(sorted(VALID_MAPPED["data"])))
def test_every_value_in_every_place(name, mapped_name):
    """All pairs of place and weird value, so that none is left to luck."""
    ours = {other: json.dumps(value).encode() for other, value in VALID.items()}
    theirs = {other: json.dumps(value).encode() for other, value in VALID_MAPPED["data"].items()}
    check(pipeline(SPEC), records(_object(ours | {name: value}) for value in WEIRD))
    framed = [b'{"s": "A", "data": ' + _object(theirs | {mapped_name: value}) + b"}" for value in WEIRD]
    check(pipeline(SPEC, decoder=MAPPED), records(framed))


def _object(parts: dict[str, bytes]) -> bytes:
    return b"{" + b", ".join(json.dumps(name).encode() + b": " + value for name, value in parts.items()) + b"}"


def test_the_ticks_these_are_made_from_are_good_ones():
    assert len(payloads(pipeline(SPEC).advance(records([json.dumps(VALID).encode()])))) == 1
    assert len(payloads(pipeline(SPEC, decoder=MAPPED).advance(records([json.dumps(VALID_MAPPED).encode()])))) == 1


numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
COLUMNS = (
    "return", "change", "price", "spread", "imbalance", "micro", "signed_size", "wait", "session_time", "field:volume",
    "log:price", "return:field:volume", "diff:change", "ema:2:diff:price", "ema:1:ema:3:field:volume",
)  # fmt: skip
WIDE = model([Column(name, scale, mean=1.0, std=0.5) for name in COLUMNS for scale in ("frozen", "running")])
DIFFERENCES = model(WIDE.columns, [type(WIDE.outputs[0])(1, "difference"), type(WIDE.outputs[0])(2, "difference")])


@given(
    st.lists(
        st.tuples(numbers, positive, positive, positive, positive, st.integers(-(10**9), 10**9)), min_size=1, max_size=8
    ),
    st.booleans(),
)
def test_any_finite_numbers_give_a_forecast_or_a_dead_letter(drawn, negative):
    """Subnormal and huge prices, sizes, fields and waits, under every feature and both scales."""
    sign = -1 if negative else 1
    ticks = [
        raw(seconds, price=sign * price, size=size, bid=min(sign * price, ask), ask=max(sign * price, ask),
            bid_size=size, ask_size=other, aggressor="sell", fields={"volume": flow})
        for flow, price, ask, size, other, seconds in drawn
    ]  # fmt: skip
    check(pipeline(DIFFERENCES if negative else WIDE), records(ticks))


def test_headers_of_a_dead_letter_name_its_record():
    (letter,) = pipeline().advance([record(b"\xff{", 7, key=b"\x80", timestamp=5)]).dead_letters
    assert headers(letter)["reason"] == "key_not_utf8"
    assert {name: headers(letter)[name] for name in ("topic", "partition", "offset", "timestamp", "attempt")} == {
        "topic": "ticks", "partition": "0", "offset": "7", "timestamp": "5", "attempt": "1",
    }  # fmt: skip
