"""The backtest end to end, on files: the daemon's payloads, scores computed anew from prices, and what it refuses."""

from __future__ import annotations

import csv
import gzip
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from daemon.assembly import build_engine
from daemon.cli import main
from daemon.config import load_settings
from daemon.core.spec import Output
from daemon.dev.replay import partition_of
from daemon.errors import BundleError, SettingsError, TickFileError
from tests.bundles import COLUMNS, OUTPUTS, tiny_bundle
from tests.ticks import raw, record
from tests.training.market_ticks import market_ticks

COUNT = 3000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("backtest")
    tiny_bundle(made)
    write(made / "ticks.jsonl", market_ticks(COUNT))
    return made


def write(file: Path, ticks: Iterable[Mapping[str, Any]]) -> Path:
    file.write_text("".join(json.dumps(tick) + "\n" for tick in ticks))
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main.app, ["backtest", *map(str, arguments)])


def scored(*arguments: object) -> dict[str, Any]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def by_place(found: Mapping[str, Any]) -> dict[tuple[str, int], dict[str, Any]]:
    return {(score["instrument"], score["horizon"]): score for score in found["scores"]}


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


# --- what it forecasts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("partitions", [1, 3])
def test_forecasts_are_those_of_the_daemons_pipeline_one_tick_at_a_time(folder: Path, tmp_path: Path, partitions: int):
    out = tmp_path / "forecasts.jsonl"
    scored(
        folder / "bundle", folder / "ticks.jsonl", "--forecasts", out, "--topic", "my-ticks", "--partitions", partitions
    )
    engine = build_engine(load_settings(None, {"model": {"bundle": str(folder / "bundle")}}))
    expected, ends = set(), [0] * partitions
    for partition in range(partitions):
        engine.pipeline.assign(partition)
    for tick in lines(folder / "ticks.jsonl"):
        partition = partition_of(tick["instrument"], partitions)
        key = tick["instrument"].encode()
        fed = record(tick, ends[partition], partition, topic="my-ticks", timestamp=tick["ts"] // 10**6, key=key)
        expected |= {message.value for message in engine.pipeline.advance([fed]).forecasts}
        ends[partition] += 1
    found = out.read_bytes().splitlines()
    assert len(found) == COUNT
    assert set(found) == expected


def test_compressed_forecasts_are_the_same_lines_and_the_same_file_again(folder: Path, tmp_path: Path):
    files = [tmp_path / name for name in ("a.jsonl", "b.jsonl.gz", "c.jsonl.gz")]
    for file in files:
        scored(folder / "bundle", folder / "ticks.jsonl", "--forecasts", file)
    assert gzip.decompress(files[1].read_bytes()) == files[0].read_bytes()
    assert files[1].read_bytes() == files[2].read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(file.name for file in files)


def test_settings_reach_the_pipeline_but_names_of_a_mapped_topic_do_not(folder: Path, tmp_path: Path):
    config = tmp_path / "tickcast.toml"
    config.write_text(
        '[pipeline]\ncoverage = 0.5\nwarmup_ticks = 7\n[ticks.map]\ninstrument = "s"\n[[session]]\nrule = "never"\n'
    )
    out = tmp_path / "forecasts.jsonl"
    found = scored(folder / "bundle", folder / "ticks.jsonl", "--config", config, "--forecasts", out)
    assert found["coverage"] == 0.5
    assert [each["warm"] for each in lines(out)[:8]].count(True) == 0
    assert {each["session"] for each in lines(out)} == {None}
    assert any(each["step"] == 7 and each["warm"] for each in lines(out))


# --- how it judges ----------------------------------------------------------------------------------------------------


def independent_r2(ticks: Iterable[Mapping[str, Any]], forecasts: Iterable[Mapping[str, Any]], horizon: int) -> float:
    """Compute R2 over all instruments' rows from the mids of the ticks themselves, one by one; quotes only."""
    mids = {(tick["instrument"], tick["ts"]): (tick["bid"] + tick["ask"]) / 2 for tick in ticks}
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for each in forecasts:
        mean = each["mean"][each["horizons"].index(horizon)]
        rows.setdefault((each["instrument"], each["session"]), []).append((mids[each["instrument"], each["ts"]], mean))
    errors = moves = 0.0
    for session in rows.values():
        for (now, mean), (later, _) in zip(session, session[horizon:], strict=False):
            errors += float(np.log(later / mean) ** 2)
            moves += float(np.log(later / now) ** 2)
    return 1 - errors / moves


def test_r2_is_that_of_the_prices_in_the_file(folder: Path, tmp_path: Path):
    """Several sessions, quotes alone, so that a mid is a price; computed without any of the code under test."""
    quotes = [tick for tick in market_ticks(4000, session_seconds=30) if "bid" in tick]
    file, out = write(tmp_path / "quotes.jsonl", quotes), tmp_path / "forecasts.jsonl"
    found = scored(folder / "bundle", file, "--forecasts", out)
    forecasts = lines(out)
    assert len({each["session"] for each in forecasts}) > 3
    for name in {tick["instrument"] for tick in quotes}:
        for horizon in (1, 10):
            own = [each for each in forecasts if each["instrument"] == name]
            score = by_place(found)[name, horizon]
            assert score["r2"] == pytest.approx(independent_r2(quotes, own, horizon), abs=1e-9)
            assert score["r2_low"] < score["r2"] < score["r2_high"]
    pooled = {score["horizon"]: score for score in found["pooled"]}
    assert pooled[10]["r2"] == pytest.approx(independent_r2(quotes, forecasts, 10), abs=1e-9)
    ten = [by_place(found)[name, 10]["r2"] for name in sorted({tick["instrument"] for tick in quotes})]
    assert pooled[10]["mean_r2"] == pytest.approx(np.mean(ten))


def test_ticks_before_the_first_quote_do_not_count(folder: Path, tmp_path: Path):
    trades = [raw(n, price=100.0 + (-1) ** n) for n in range(40)]
    quotes = [raw(40 + n, bid=99.0 + n % 3, ask=101.0 + n % 3) for n in range(60)]
    both = by_place(scored(folder / "bundle", write(tmp_path / "both.jsonl", [*trades, *quotes])))["A", 1]
    assert both["count"] == 59
    alone = scored(folder / "bundle", write(tmp_path / "trades.jsonl", trades))
    assert by_place(alone)["A", 1]["count"] == 39
    assert "bounce between bid and ask" in alone["warnings"][0]


def test_outcomes_in_another_session_do_not_count_and_a_long_horizon_is_no_error(folder: Path, tmp_path: Path):
    quotes = [raw(day * 10_000 + n, bid=99.0 + (n * n) % 3, ask=101.0 + n % 2) for day in range(5) for n in range(8)]
    file = write(tmp_path / "days.jsonl", quotes)
    found = by_place(scored(folder / "bundle", file))
    assert found["A", 1]["count"] == 5 * 7
    assert (found["A", 10]["count"], found["A", 10]["r2"], found["A", 10]["coverage"]) == (0, None, None)
    shown = run(folder / "bundle", file, "--report", tmp_path / "report.html")
    assert shown.exit_code == 0, shown.output
    row = next(line.split() for line in shown.stdout.splitlines() if line.startswith("A") and line.split()[1] == "10")
    assert row[2:5] == ["0", "-", "-"]


def test_intervals_are_counted_as_they_were_published(folder: Path, tmp_path: Path):
    out = tmp_path / "forecasts.jsonl"
    found = scored(folder / "bundle", folder / "ticks.jsonl", "--forecasts", out)
    rows = [each for each in lines(out) if each["instrument"] == "FLOW1"]
    below = above = count = 0
    for now, later in zip(rows, rows[10:], strict=False):
        if now["session"] == later["session"]:
            below += later["price"] < now["lower"][1]
            above += later["price"] > now["upper"][1]
            count += 1
    score = by_place(found)["FLOW1", 10]
    unquoted = count - score["count"]
    assert 0 <= unquoted < 10
    assert score["misses_below"] * score["count"] == pytest.approx(below, abs=unquoted)
    assert score["misses_above"] * score["count"] == pytest.approx(above, abs=unquoted)
    assert score["coverage"] == pytest.approx(1 - score["misses_below"] - score["misses_above"])
    assert 0 < below + above < count


def test_a_split_judges_the_later_part_alone_with_states_warmed_by_the_earlier(folder: Path):
    ts = sorted(tick["ts"] for tick in lines(folder / "ticks.jsonl"))
    later = scored(folder / "bundle", folder / "ticks.jsonl", "--split", "0.7")
    assert later["judged_from_ts"] == ts[int(COUNT * 0.7)]
    assert later["forecasts"] == COUNT
    same = scored(folder / "bundle", folder / "ticks.jsonl", "--from-ts", ts[int(COUNT * 0.7)])
    assert same["scores"] == later["scores"]
    everything = scored(folder / "bundle", folder / "ticks.jsonl")
    assert by_place(later)["FLOW1", 1]["count"] < by_place(everything)["FLOW1", 1]["count"] / 2


def test_ticks_the_model_was_trained_on_are_warned_of(folder: Path, tmp_path: Path):
    trained = {"from": "2024-01-01T00:00:00+00:00", "to": "2024-01-01T00:01:00+00:00"}
    bundle = tiny_bundle(tmp_path)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    (bundle.path / "manifest.json").write_text(json.dumps(manifest | {"trained_on": trained}))

    def warned(*arguments: object) -> bool:
        return any("overlap those the model was trained on" in text for text in scored(*arguments)["warnings"])

    assert warned(bundle.path, folder / "ticks.jsonl")
    assert not warned(bundle.path, folder / "ticks.jsonl", "--from-ts", "2024-01-01T00:01:01Z")
    assert not warned(folder / "bundle", folder / "ticks.jsonl")


def test_forecasts_that_do_harm_beyond_chance_are_named(folder: Path, tmp_path: Path):
    """A made bundle knows nothing, and says it at length."""
    found = scored(folder / "bundle", folder / "ticks.jsonl")
    harmful = {place for place, score in by_place(found).items() if score["r2_high"] < 0}
    assert harmful
    (text,) = found["warnings"]
    assert text.startswith("worse than no change")
    assert all(name in text for name, _ in harmful)
    shown = run(folder / "bundle", folder / "ticks.jsonl")
    assert f"warning: {text}" in shown.stderr


def test_prices_at_rest_and_single_ticks_have_no_score(folder: Path, tmp_path: Path):
    rest = [raw(n, bid=99.0, ask=101.0) for n in range(100)] + [raw(n, "B", bid=9.0, ask=10.0) for n in range(1)]
    found = by_place(scored(folder / "bundle", write(tmp_path / "rest.jsonl", rest)))
    assert (found["A", 1]["r2"], found["A", 1]["zero_move_share"], found["A", 1]["count"]) == (None, 1.0, 99)
    assert (found["B", 1]["count"], found["B", 1]["median_seconds"]) == (0, None)
    assert run(folder / "bundle", tmp_path / "rest.jsonl", "--report", tmp_path / "r.html").exit_code == 0


def test_dead_letters_are_counted_and_said(folder: Path, tmp_path: Path):
    ticks = [*lines(folder / "ticks.jsonl")[:200], raw(0, "FLOW1", bid=3.0, ask=2.0), raw(-(10**7), "FLOW1", price=5.0)]
    file = write(tmp_path / "ticks.jsonl", ticks)
    found = scored(folder / "bundle", file)
    assert (found["ticks"], found["forecasts"]) == (202, 200)
    assert found["dead_letters"] == {"crossed_quote": 1, "late": 1}
    assert "dead letters: 1 crossed_quote, 1 late" in run(folder / "bundle", file).stdout


def test_a_model_of_differences_is_judged_in_prices_that_may_be_negative(tmp_path: Path):
    outputs = [Output(1, "difference", residual_variance=1.0, residual_quantiles=((0.05, -1.5), (0.95, 1.5)))]
    columns = [column for column in COLUMNS if column.feature == "imbalance"]
    bundle = tiny_bundle(tmp_path, columns=columns, outputs=outputs)
    ticks = [raw(n, bid=-1.0 + n % 3, ask=n % 3, bid_size=1 + n % 5, ask_size=2) for n in range(90)]
    out = tmp_path / "forecasts.jsonl"
    found = scored(bundle.path, write(tmp_path / "ticks.jsonl", ticks), "--forecasts", out)
    (score,) = found["scores"]
    judged = lines(out)[:-1]  # what came after the last tick is not known
    widths = [forecast["upper"][0] - forecast["lower"][0] for forecast in judged]
    assert score["width"] == pytest.approx(np.mean(widths), rel=1e-9)
    assert score["r2"] is not None


def test_real_ticks_are_judged_as_their_quotes_say(folder: Path, tmp_path: Path, real_ticks: Path):
    """Prices, first quotes and horizons worked out from the file's own columns, with nothing of the daemon's."""
    out = tmp_path / "forecasts.jsonl"
    some = tmp_path / "some.csv"
    with gzip.open(real_ticks, "rt") as whole:
        some.write_text("".join(line for _, line in zip(range(12_000), whole, strict=False)))
    found = by_place(scored(folder / "bundle", some, "--forecasts", out, "--split", "0.5"))
    with some.open() as file:
        ticks = list(csv.DictReader(file))
    cut = sorted(int(tick["ts_ns"]) for tick in ticks)[len(ticks) // 2]
    forecasts: dict[str, list[dict[str, Any]]] = {}
    for each in lines(out):
        forecasts.setdefault(each["instrument"], []).append(each)
    assert len(forecasts) == 6
    for name, own in forecasts.items():
        mids, mid = [], np.nan
        for tick in ticks:
            if tick["instrument"] == name:
                mid = (float(tick["bid"]) + float(tick["ask"])) / 2 if tick["bid"] else mid
                mids.append(mid)
        price, mean = np.array(mids), np.array([each["mean"][1] for each in own])
        late = np.array([each["ts"] for each in own]) >= cut
        known = np.isfinite(price[:-10]) & late[:-10]
        move, expected = np.log(price[10:] / price[:-10])[known], np.log(mean[:-10] / price[:-10])[known]
        assert found[name, 10]["count"] == len(move)
        r2 = 1 - ((move - expected) ** 2).sum() / (move**2).sum()
        assert found[name, 10]["r2"] == pytest.approx(r2, rel=1e-6)


# --- what it says -----------------------------------------------------------------------------------------------------


def test_scores_as_json_hold_what_programs_read(folder: Path):
    found = scored(folder / "bundle", folder / "ticks.jsonl")
    assert {(score["instrument"], score["horizon"]) for score in found["scores"]} == {
        (name, horizon) for name in ("FLOW1", "FLOW2", "WALK") for horizon in (1, 10)
    }
    wanted = {"r2", "r2_low", "r2_high", "mae_skill", "misses_below", "misses_above", "coverage", "width"}
    wanted |= {"pinball_lower", "pinball_median", "pinball_upper", "zero_move_share", "median_seconds"}
    wanted |= {"diebold_mariano", "diebold_mariano_p", "count"}
    assert all(wanted <= score.keys() for score in found["scores"])
    assert {"bundle", "ticks", "forecasts", "dead_letters", "seconds", "warnings", "pooled"} <= found.keys()


def test_the_table_names_every_instrument_and_horizon_and_the_speed(folder: Path):
    shown = run(folder / "bundle", folder / "ticks.jsonl").stdout
    for name in ("FLOW1", "FLOW2", "WALK", "all rows"):
        assert sum(line.startswith(name) for line in shown.splitlines()) == 2 * len(OUTPUTS)
    assert "a second); judged 2024-01-01T00:00:00Z" in shown


def test_the_report_shows_every_instrument_and_stands_alone(folder: Path, tmp_path: Path):
    file = tmp_path / "report.html"
    shown = run(folder / "bundle", folder / "ticks.jsonl", "--report", file)
    assert f"report: {file}" in shown.stdout
    html = file.read_text()
    assert html.count("<svg") == 6
    assert "<script" not in html
    assert all(name in html for name in ("FLOW1", "FLOW2", "WALK", "all rows"))
    again = tmp_path / "again.html"
    run(folder / "bundle", folder / "ticks.jsonl", "--report", again)
    assert again.read_bytes() == file.read_bytes()


# --- what it refuses --------------------------------------------------------------------------------------------------


def refused(*arguments: object) -> Exception:
    result = run(*arguments)
    assert result.exception is not None, result.output
    assert "\n" not in str(result.exception)
    return result.exception


def test_wrong_use_is_refused_with_a_remedy(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundle, ticks = folder / "bundle", folder / "ticks.jsonl"
    cases: list[tuple[list[object], type[Exception], str]] = [
        ([bundle, tmp_path / "none.csv"], TickFileError, "no such file"),
        ([tmp_path, ticks], BundleError, "holds no bundle"),
        ([bundle, ticks, "--split", "0.7", "--from-ts", "2024-01-01T00:00:00Z"], SettingsError, "not both"),
        ([bundle, ticks, "--split", "1"], SettingsError, "give a share"),
        ([bundle, ticks, "--from-ts", "yesterday"], SettingsError, "ISO 8601"),
        ([bundle, ticks, "--from-ts", "2030-01-01T00:00:00Z"], SettingsError, "after the last tick"),
        ([bundle, ticks, "--partitions", "0"], SettingsError, "whole number from 1"),
        ([bundle, ticks, "--forecasts", tmp_path / "no" / "x.jsonl"], SettingsError, "give another --forecasts"),
        ([bundle, ticks, "--report", tmp_path / "no" / "x.html"], SettingsError, "cannot write the report"),
    ]
    for arguments, kind, text in cases:
        error = refused(*arguments)
        assert isinstance(error, kind), (arguments, error)
        assert text in str(error)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "tickcast[report]" in str(refused(bundle, ticks, "--report", tmp_path / "x.html"))


def test_a_file_without_a_usable_tick_is_an_error_that_says_why(folder: Path, tmp_path: Path):
    bad = write(tmp_path / "bad.jsonl", [raw(n, price=-1.0) for n in range(3)])
    out = tmp_path / "forecasts.jsonl"
    assert "none of 3 ticks can be used (3 price_not_positive)" in str(
        refused(folder / "bundle", bad, "--forecasts", out)
    )
    assert not out.exists()
    assert "hold no tick" in str(refused(folder / "bundle", write(tmp_path / "empty.jsonl", [])))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl", "empty.jsonl"]
