"""The generated schemas are up to date, and hold what really goes over the wire."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import tests.hypothesis_profile  # noqa: F401
from daemon.config import TopicSettings
from daemon.core.spec import Output
from schemas import HEADER_PREFIX, Forecast, Reason, Rejected, ResetCause, TickDecoder, generate
from tests.ticks import START, model, payloads, pipeline, raw, record, records

KNOWN = [Output(n, residual_variance=1.0, residual_quantiles=((0.05, -1.0), (0.95, 1.0))) for n in (1, 5)]


def validator(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_the_committed_files_are_what_the_classes_say():
    for path, text in generate.documents().items():
        assert path.read_text("utf-8") == text, f"run python -m schemas.generate: {path.name} is stale"
    written = {path.name for path in (generate.FOLDER / "json").iterdir()}
    assert written == {path.name for path in generate.documents() if path.suffix == ".json"}


def test_check_finds_a_stale_file_and_leaves_it_and_a_run_without_it_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0
    stale = tmp_path / "json" / "tick.schema.json"
    stale.write_text("{}")
    assert generate.main(["--check"]) == 1
    assert stale.read_text() == "{}"
    assert "tick.schema.json is stale" in capsys.readouterr().err
    assert generate.main(["--chekc"]) == 2


@pytest.mark.parametrize("outputs", [KNOWN, [Output(1)]], ids=["known", "unknown"])
def test_real_forecasts_are_valid_and_have_exactly_the_fields_of_the_class_in_its_order(outputs):
    check = validator(generate.forecast_schema())
    batch = pipeline(model(outputs=outputs)).advance(records([raw(0), raw(1, session="s"), raw(2, bid=1, ask=2)]))
    assert len(batch.forecasts) == 3
    for message in batch.forecasts:
        payload = json.loads(message.value)
        check.validate(payload)
        assert list(payload) == list(Forecast.model_fields)
        assert Forecast.model_validate_json(message.value).model_dump(mode="json") == payload


@pytest.mark.parametrize(
    "change",
    [{"mean": []}, {"reset": "other"}, {"step": -1}, {"more": 1}, {"schema_version": 2}, {"variance": [None]}],
    ids=str,
)
def test_the_forecast_schema_refuses_what_is_no_forecast(change):
    (payload,) = payloads(pipeline().advance([record(raw())]))
    with pytest.raises(jsonschema.ValidationError):
        validator(generate.forecast_schema()).validate(payload | change)


@pytest.mark.parametrize("letter", [record(b"x" * 100), record(None), record(raw(price=-1), key=b"\xff")], ids=str)
@pytest.mark.parametrize("bytes_max", [10, 1000])
def test_real_dead_letters_have_valid_headers(letter, bytes_max):
    made = pipeline()
    made.dead_letter_bytes_max = bytes_max
    (message,) = made.advance([letter]).dead_letters
    found = {name: value.decode() for name, value in message.headers}
    check = validator(generate.dead_letter_headers_schema())
    check.validate(found)
    with pytest.raises(jsonschema.ValidationError):
        check.validate(found | {HEADER_PREFIX + "reason": "other"})


finite = st.floats(allow_nan=False, allow_infinity=False)
some_json = st.one_of(
    st.none(), st.booleans(), finite, st.integers(-3, 3), st.text(max_size=3), st.just({"a": 1}), st.just({"A": 1})
)
ticks = st.fixed_dictionaries(
    {},
    optional={
        "instrument": st.one_of(st.text(max_size=3), st.just("x" * 65)),
        "ts": st.one_of(st.just(START), st.just("2024-01-02T15:00:00.5Z"), st.just(17), st.just(2**63)),
        **dict.fromkeys(("price", "size", "bid", "ask", "bid_size", "session", "seq", "fields", "other"), some_json),
        "aggressor": st.sampled_from(("buy", "sell", "hold", None)),
    },
)


@given(ticks)
def test_every_tick_that_is_taken_is_valid_under_the_schema(tick):
    """With the instrument and time of a good tick in it, so that enough of them are taken."""
    check = validator(generate.tick_schema())
    for candidate in (tick, {**tick, "instrument": "A", "ts": START}, {**raw(), **tick}):
        try:
            TickDecoder().decode(json.dumps(candidate).encode())
        except Rejected:
            continue
        check.validate(candidate)


@pytest.mark.parametrize(
    "tick",
    [
        {"instrument": "A", "ts": START},
        {"instrument": "A", "ts": START, "bid": 1.0},
        {"instrument": "A", "ts": START, "price": None},
        {"instrument": "A", "ts": 1_704_207_600_000, "price": 1},
        {"instrument": "A", "ts": START, "price": "1"},
        {"instrument": "A", "ts": START, "price": 1, "size": -1},
        {"instrument": "A", "ts": START, "price": 1, "fields": {"A": 1}},
        {"instrument": "", "ts": START, "price": 1},
    ],
    ids=str,
)
def test_the_tick_schema_refuses_what_the_decoder_refuses(tick):
    with pytest.raises(Rejected):
        TickDecoder().decode(json.dumps(tick).encode())
    with pytest.raises(jsonschema.ValidationError):
        validator(generate.tick_schema()).validate(tick)


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from references(child)


def test_every_reference_of_the_asyncapi_document_leads_somewhere():
    path = Path(generate.FOLDER) / "asyncapi.yaml"
    document = yaml.safe_load(path.read_text("utf-8"))
    found = list(references(document))
    assert len(found) == 13
    for reference in found:
        if reference.startswith("#/"):
            node = document
            for part in reference[2:].split("/"):
                node = node[part]
        else:
            assert (path.parent / reference).is_file()


def test_the_asyncapi_document_names_the_default_topics_and_what_users_do_with_them():
    document = generate.asyncapi()
    topics = TopicSettings()
    assert {name: channel["address"] for name, channel in document["channels"].items()} == {
        "ticks": topics.ticks,
        "forecasts": topics.forecasts,
        "deadLetters": topics.dead_letters,
        "scores": "scores",  # there is one only where it is named
        "state": topics.state,
    }
    actions = {each["channel"]["$ref"].rpartition("/")[2]: each["action"] for each in document["operations"].values()}
    assert actions == {"ticks": "send", "forecasts": "receive", "scores": "receive", "deadLetters": "receive"}


def test_every_reason_and_cause_has_a_meaning_that_the_schemas_print():
    for value in (*Reason, *ResetCause):
        assert re.fullmatch(r"\S.{10,}\.", value.meaning)
    printed = json.dumps([generate.dead_letter_headers_schema(), generate.forecast_schema()])
    assert all(json.dumps(value.meaning)[1:-1] in printed for value in (*Reason, *ResetCause))
