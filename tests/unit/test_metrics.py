"""Metrics: what a batch adds up to, and that they stay bounded."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections import Counter

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from daemon.core.canary import Probe
from daemon.core.pipeline import Batch
from daemon.core.records import Message
from daemon.errors import SettingsError
from daemon.health import Health, HealthServer
from daemon.histogram import BatchHistogram
from daemon.metrics import Metrics
from daemon.spread import FEWEST, WINDOW, PredictionSpread
from daemon.watched import Watch
from schemas import Reason, ResetCause


def batch_of(instruments: list[str], outputs: np.ndarray, **more: object) -> Batch:
    message = Message(0, b"", b"")
    return Batch(
        forecasts=[message] * len(instruments),
        timestamps=[0] * len(instruments),
        instruments=instruments,
        outputs=outputs.astype(np.float32),
        **more,  # type: ignore[arg-type]
    )


def samples(registry: CollectorRegistry) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_a_committed_batch_is_counted_by_outcome_reason_and_cause() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, Watch(PredictionSpread(1, 5)))
    batch = batch_of(["A", "B"], np.zeros((2, 1)), reasons=Counter({Reason.LATE: 3}))
    batch.dead_letters = [Message(0, b"", b"")] * 3
    batch.resets = Counter({ResetCause.FIRST: 2})
    batch.timestamps = [1_000_000, 1_000_500]
    batch.probe = Probe(max_difference=0.5, variance=0.25)
    metrics.committed(batch, now=1000.4)
    found = samples(registry)
    assert found["tickcast_ticks_total", ("forecast",)] == 2
    assert found["tickcast_ticks_total", ("dead_letter",)] == 3
    assert found["tickcast_dead_letters_total", ("late",)] == 3
    assert found["tickcast_session_resets_total", ("first",)] == 2
    assert found["tickcast_probe_variance", ()] == 0.25
    assert found["tickcast_probe_runs_total", ()] == 1
    assert found["tickcast_negative_latency_total", ()] == 1
    assert found["tickcast_end_to_end_latency_seconds_count", ()] == 2
    assert found["tickcast_end_to_end_latency_seconds_sum", ()] == pytest.approx(0.4)


def test_batch_histogram_puts_a_bound_into_its_own_bucket() -> None:
    histogram = BatchHistogram("h_seconds", "help", (1.0, 2.0))
    histogram.observe(np.array([0.5, 1.0, 1.5, 2.0, 9.0]))
    (family,) = histogram.collect()
    assert [(s.labels.get("le"), s.value) for s in family.samples if s.name == "h_seconds_bucket"] == [
        ("1.0", 2),
        ("2.0", 4),
        ("+Inf", 5),
    ]


def test_spread_equals_the_variance_of_the_last_window_however_it_was_cut() -> None:
    rng = np.random.default_rng(0)
    names = [f"I{i}" for i in rng.integers(0, 3, 3 * WINDOW)]
    outputs = rng.standard_normal((len(names), 2)).astype(np.float32)
    whole, cut = PredictionSpread(2, 3), PredictionSpread(2, 3)
    whole.observe(names, outputs)
    for low in range(0, len(names), 7):
        cut.observe(names[low : low + 7], outputs[low : low + 7])
    expected = {
        name: outputs[[n == name for n in names]][-WINDOW:].var(axis=0, dtype=np.float64).mean() for name in set(names)
    }
    assert dict(whole.variances()) == pytest.approx(expected)
    assert dict(cut.variances()) == pytest.approx(expected)


def test_a_constant_forecast_shows_as_collapsed() -> None:
    registry = CollectorRegistry()
    spread = PredictionSpread(1, 5)
    metrics = Metrics(registry, Watch(spread, validation_variance=1.0))
    rng = np.random.default_rng(0)
    metrics.committed(batch_of(["GOOD"] * FEWEST, rng.standard_normal((FEWEST, 1))), now=0)
    metrics.committed(batch_of(["STUCK"] * FEWEST, np.full((FEWEST, 1), 0.3)), now=0)
    found = samples(registry)
    assert found["tickcast_prediction_variance", ("STUCK",)] == 0
    assert found["tickcast_prediction_variance_ratio", ("GOOD",)] > 0.3
    assert found["tickcast_collapsed_instruments", ()] == 1


def test_given_up_partitions_disappear_from_the_lag() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry, Watch(PredictionSpread(1, 1)))
    metrics.lags({0: 5, 1: 6})
    metrics.lags({1: 2})
    assert {key: v for key, v in samples(registry).items() if key[0] == "tickcast_consumer_lag_ticks"} == {
        ("tickcast_consumer_lag_ticks", ("1",)): 2
    }


def test_probes_follow_the_loop_and_its_readiness() -> None:
    now = [0.0]
    health = Health(stuck_seconds=60, clock=lambda: now[0])
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), health)
    try:
        assert get(server.port, "/livez") == (200, "alive\n")
        assert get(server.port, "/readyz") == (503, "starting\n")
        health.waiting_for = None
        assert get(server.port, "/readyz") == (200, "ready\n")
        now[0] = 61.0
        assert get(server.port, "/livez")[0] == 503
        health.turned()
        assert get(server.port, "/livez")[0] == 200
        assert get(server.port, "/nothing")[0] == 404
        with pytest.raises(SettingsError, match=r"metrics\.port"):
            HealthServer("127.0.0.1", server.port, CollectorRegistry(), health)
    finally:
        server.close()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
