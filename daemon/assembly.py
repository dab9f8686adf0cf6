"""Puts the daemon together from its settings: one place where every part meets the others."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Histogram

from daemon import __version__
from daemon.boundaries import resolve_rules
from daemon.checkpoints import Checkpoints
from daemon.config import Settings
from daemon.core.forecast import Forecaster
from daemon.core.intake import OrderLimits
from daemon.core.pipeline import Pipeline, PipelineOptions
from daemon.core.step import F32, Step, Waves
from daemon.health import Health
from daemon.metrics import Metrics
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test
from daemon.recovery import Recovery
from daemon.resume import Terms
from daemon.revision import revision
from daemon.service import LoopOptions, Service
from daemon.skill import LiveScores
from daemon.spread import PredictionSpread
from daemon.transport.port import Reader, Sink, Source
from schemas import TickDecoder


@dataclass(frozen=True)
class Engine:
    """A model ready to run: what does not depend on any transport."""

    bundle: Bundle
    pipeline: Pipeline
    metrics: Metrics
    registry: CollectorRegistry
    health: Health
    revision: str


def build_engine(settings: Settings) -> Engine:
    """Load the bundle, prove it, and build the pipeline around it.

    Raises
    ------
    BundleError : missing, tampered with, or not the same on this machine
    SettingsError : a session rule names what does not exist
    """
    bundle = Bundle.load(Path(settings.model.bundle))
    step = self_test(bundle, settings.model.engine)
    rules = resolve_rules(settings.session)
    registry = CollectorRegistry()
    spread = PredictionSpread(len(bundle.spec.horizons), settings.metrics.instruments_max)
    forecaster = Forecaster(bundle.spec, settings.pipeline.coverage)
    scores = LiveScores(forecaster, absolute=bundle.spec.prices_may_be_negative)
    metrics = Metrics(registry, spread, bundle.manifest.validation_variance, scores)
    found = revision(bundle.id, settings, rules, step)
    metrics.build(__version__, bundle.id, found)
    pipeline = Pipeline(
        bundle.spec,
        TimedStep(step, metrics.inference_seconds),
        rules,
        pipeline_options(settings),
        decoder=tick_decoder(settings),
        canary_ticks=bundle.canary_ticks,
        scores=bool(settings.topics.scores),
    )
    return Engine(bundle, pipeline, metrics, registry, Health(settings.pipeline.stuck_seconds), found)


def build_service(settings: Settings, engine: Engine, source: Source, sink: Sink, reader: Reader) -> Service:
    """Build the loop over a transport."""
    pipeline, kafka, limits = engine.pipeline, settings.kafka, settings.pipeline
    terms = Terms(
        kafka.group_id,
        source.topic_id(),
        engine.revision,
        limits.on_lost_ticks,
        limits.warmup_replay_ticks_max,
    )
    recovery = Recovery(source, reader, pipeline, terms, patience_seconds=kafka.broker_timeout_seconds)
    checkpoints = Checkpoints(pipeline, limits.checkpoint_seconds, limits.checkpoint_ticks, time.monotonic)
    options = LoopOptions(
        max_batch_ticks=limits.max_batch_ticks,
        min_batch_ms=limits.min_batch_ms,
        dead_letter_ratio_max=limits.dead_letter_ratio_max,
        broker_timeout_seconds=kafka.broker_timeout_seconds,
    )
    return Service(source, sink, pipeline, recovery, checkpoints, engine.metrics, engine.health, options)


def pipeline_options(settings: Settings) -> PipelineOptions:
    """Translate the settings that shape payloads."""
    pipeline = settings.pipeline
    limits = OrderLimits(
        future_skew_ns=round(pipeline.future_skew_seconds * 1e9),
        max_lateness_ns=round(pipeline.max_lateness_seconds * 1e9),
        seq_restart_ns=round(pipeline.seq_restart_seconds * 1e9),
    )
    return PipelineOptions(
        limits,
        warmup_ticks=pipeline.warmup_ticks,
        coverage=pipeline.coverage,
        instruments_per_partition_max=pipeline.instruments_per_partition_max,
    )


def tick_decoder(settings: Settings) -> TickDecoder:
    """Make the decoder for the topic's JSON, ours or mapped."""
    tick_map = settings.ticks.map
    if tick_map is None:
        return TickDecoder()
    names = tick_map.model_dump(exclude={"fields", "time_unit"}, exclude_none=True)
    return TickDecoder(names, tick_map.fields, tick_map.time_unit)


class TimedStep:
    """A step that reports how long each batch took in it."""

    def __init__(self, step: Step, seconds: Histogram) -> None:
        self._step = step
        self._seconds = seconds
        self.n_features = step.n_features
        self.n_outputs = step.n_outputs
        self.state_size = step.state_size
        self.tile_rows = step.tile_rows
        self.initial_state = step.initial_state

    def step(self, x: F32, state: F32) -> tuple[F32, F32]:
        """Pass on; single steps are not batches."""
        return self._step.step(x, state)

    def scan(self, x: F32, start: F32, waves: Waves) -> tuple[F32, F32, NDArray[np.bool_]]:
        """Pass on, and observe the time."""
        started = time.perf_counter()
        result = self._step.scan(x, start, waves)
        self._seconds.observe(time.perf_counter() - started)
        return result
