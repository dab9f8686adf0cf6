"""The work and the arithmetic of the benchmark beside peers."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from bench.peers import plots, report
from bench.peers.agreement import compare, expected_payloads
from bench.peers.contestants import CONTESTANTS, EXACTLY
from bench.peers.kafka_streams.export import export
from bench.peers.one_tick import OneTick, pack, unpack
from bench.peers.outcomes import Count, Outcome, count, outcome, percentiles, rate
from bench.peers.run_settings import VARIABLE, RunSettings, read_settings
from bench.rig import bench_bundle, made_ticks
from daemon.core.records import InputRecord

TOPIC = "ticks-of-a-run"


def records(count: int, instruments: int) -> list[InputRecord]:
    now = int(time.time() * 1000)
    ticks = made_ticks(count, instruments)
    return [
        InputRecord(TOPIC, 0, n, now, tick["instrument"].encode(), orjson.dumps(tick)) for n, tick in enumerate(ticks)
    ]


def payloads(work: OneTick, ticks: Sequence[InputRecord], *, packed: bool) -> list[bytes]:
    """Run ticks one by one; what is kept between them as objects, or as bytes."""
    kept: dict[str, Any] = {}
    found = []
    for tick in ticks:
        assert tick.key is not None
        assert tick.value is not None
        name = tick.key.decode()
        held = kept.get(name)
        held = work.new(name) if held is None else unpack(name, held) if packed else held
        payload, held = work.forecast(
            tick.value, held, topic=tick.topic, partition=0, offset=tick.offset, timestamp=tick.timestamp
        )
        kept[name] = pack(held) if packed else held
        found.append(payload)
    return found


@pytest.mark.parametrize("packed", [False, True], ids=["objects", "bytes"])
def test_one_tick_at_a_time_says_what_the_pipeline_says(tmp_path: Path, packed: bool) -> None:
    bundle = bench_bundle(tmp_path).path
    ticks = records(4000, 20)
    found = compare(
        list(zip(payloads(OneTick(bundle), ticks, packed=packed), expected_payloads(bundle, ticks), strict=True))
    )
    assert found.compared == len(ticks)
    assert found.different == 0
    # Sums of float32 in another order: ten digits of a price hold all but the last.
    assert found.price_difference < 1e-9
    assert found.variance_difference < 1e-3
    assert abs(found.size - 1) < 0.001
    assert orjson.loads(expected_payloads(bundle, ticks)[-1])["lower"] is not None


def test_compare_tells_a_wrong_payload_from_another_rounding() -> None:
    said = {"id": "t-0-0", "step": 3, "mean": [100.0], "lower": [99.0], "upper": [101.0], "variance": [1e-8]}
    one, rounded = json.dumps(said).encode(), json.dumps({**said, "mean": [100.0000001]}).encode()
    wrong = json.dumps({**said, "step": 4}).encode()
    found = compare([(one, one), (rounded, one), (wrong, one)])
    assert (found.compared, found.identical, found.different) == (3, 1, 1)
    assert found.price_difference == pytest.approx(1e-9)


def made(partition: int, offset: int, step: int, instrument: str = "A") -> Outcome:
    return Outcome(0.0, 0.0, instrument, partition, offset, 0.0, step)


def test_count_sees_missing_repeated_and_wrong_states() -> None:
    whole = [made(0, 0, 0), made(0, 1, 1), made(0, 2, 2), made(0, 3, 0, "B")]
    assert count(4, whole) == Count(4, 4, 0, 0, 0)
    assert count(5, whole).missing == 1
    again = [*whole, made(0, 2, 2)]
    assert count(4, again) == Count(4, 5, 0, 1, 0)
    # A restart without states numbers its ticks from 0 again.
    assert count(4, [*whole, made(0, 2, 0)]) == Count(4, 5, 0, 1, 1)
    assert count(4, [whole[0], made(0, 1, 0), made(0, 2, 1), whole[3]]).wrong_state == 2


def test_outcome_reads_the_place_of_the_tick_from_a_topic_with_dashes() -> None:
    payload = b'{"id":"run-1-ticks-3-77","instrument":"A","ts":1500000000,"step":4}'
    assert outcome(payload, 2.0, 1.9) == Outcome(2.0, 1.9, "A", 3, 77, 1.5, 4)


def test_percentiles_are_milliseconds() -> None:
    assert percentiles(n / 1000 for n in range(1000)) == {"p50": 500.0, "p99": 990.0, "p99.9": 999.0}


def test_rate_leaves_the_start_out() -> None:
    slow, quick = [Outcome(0, n, "A", 0, n, 0, n) for n in range(20)], range(1, 81)
    steady = [Outcome(0, 19 + n / 10, "A", 0, 19 + n, 0, 19 + n) for n in quick]
    assert rate([*slow, *steady], 0.2) == pytest.approx(10.0)


def test_settings_of_a_run_reach_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = RunSettings("localhost:1", "in", "out", "group", "bundle", "here", {"commit_interval": 0.1})
    for name, value in told.write(tmp_path / "run.json").items():
        assert name == VARIABLE
        monkeypatch.setenv(name, value)
    assert read_settings() == told


def test_export_holds_every_weight_once(tmp_path: Path) -> None:
    bundle = bench_bundle(tmp_path)
    export(bundle, tmp_path / "model.bin")
    arrays = [value for node in bundle.program.nodes for value in vars(node.op).values()]
    weights = sum(value.size for value in arrays if isinstance(value, np.ndarray))
    head, columns, outputs = 2 + len(bundle.id) + 3 * 4 + 8, 14, 4
    numbers = 16 * columns + (21 + 56) * outputs + 4 * 2 + 4 * weights
    assert (tmp_path / "model.bin").stat().st_size == head + numbers


def test_keys_name_topics_and_are_unique() -> None:
    keys = [each.key for each in CONTESTANTS]
    assert len(set(keys)) == len(keys)
    assert all(key.replace("-", "").isalnum() for key in keys)


LINE = {
    "key": "tickcast-python",
    "name": "tickcast",
    "guarantee": EXACTLY,
    "setting": "kafka-python (default)",
    "ticks_per_second": 30_000.0,
    "cpu_seconds_per_million_ticks": 30.0,
    "peak_megabytes": 120.0,
    "latency": {"1000": {"p50": 9.0, "p99": 20.0, "p99.9": 31.0}, "10000": {"p50": 2000.0, "p99": 1.0, "p99.9": 1.0}},
    "recovery": {"ticks_per_second": 1000, "first_seconds": 0.9, "every_partition_seconds": 1.2},
    "in_all": {"ticks": 10, "forecasts": 10, "missing": 0, "repeated": 0, "wrong_state": 0},
}
OTHER = {
    **LINE,
    "key": "other",
    "name": "Other 1.0",
    "setting": "slow",
    "ticks_per_second": 10_000.0,
    "cpu_seconds_per_million_ticks": 60.0,
    "latency": {"1000": {"p50": 90.0, "p99": 200.0, "p99.9": 310.0}, "10000": None},
}


def test_report_compares_with_the_best_setting_of_each() -> None:
    slower = {**OTHER, "setting": "slower", "ticks_per_second": 5_000.0}
    (said,) = report.comparisons([LINE, slower, OTHER])
    assert "3.0 times the ticks/s of Other 1.0 at its best (slow)" in said
    assert "2.0 times the ticks a CPU second" in said


def test_page_says_who_cannot_and_who_falls_behind() -> None:
    ours, theirs = report.page("today, here", [LINE, OTHER]).splitlines()[-5:-3]
    assert "| 9.0, 20.0, 31.0 ms | falls behind |" in ours
    assert "| 90.0, 200, 310 ms | cannot |" in theirs


def test_report_writes_page_plots_and_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page, readme, results = tmp_path / "peers.md", tmp_path / "README.md", tmp_path / "result.json"
    for name, path in (("PAGE", page), ("README", readme), ("IMAGES", tmp_path)):
        monkeypatch.setattr(report, name, path)
    page.write_text("# Page\n<!-- peers -->\nold\n<!-- /peers -->\nend\n")
    readme.write_text("no section\n")
    found = {"machine": "today, here", "quick": True, "lines": [LINE, OTHER]}
    results.write_text(json.dumps(found))
    with pytest.raises(SystemExit, match="quick"):
        report.report(results)
    results.write_text(json.dumps({**found, "quick": False}))
    report.report(results)
    assert "Measured today, here." in page.read_text()
    assert "old" not in page.read_text()
    assert page.read_text().endswith("<!-- /peers -->\nend\n")
    assert readme.read_text() == "no section\n"
    readme.write_text("<!-- peers -->\n<!-- /peers -->\n")
    report.report(results)
    assert "| Other 1.0, slow | exactly once | 10,000 | 90.0, 200, 310 ms | 0.9 s, 1.2 s |" in readme.read_text()
    assert sorted(path.name for path in tmp_path.glob("*.svg")) == ["peers-latency.svg", "peers-throughput.svg"]


def test_plots_show_every_contestant_once() -> None:
    for text in (plots.throughput([LINE, OTHER]), plots.latency([LINE, OTHER], "1000")):
        assert text.count("tickcast, kafka-python<") == text.count("Other 1.0, slow<") == 1
    assert "Other" not in plots.latency([LINE, {**OTHER, "latency": {"1000": None}}], "1000")
