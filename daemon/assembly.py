"""Puts the daemon together from its settings: one place where every part meets the others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, GCCollector, Histogram, PlatformCollector, ProcessCollector

from daemon.boundaries import resolve_rules
from daemon.checkpoints import Checkpoints
from daemon.config import Settings
from daemon.core.forecast import Forecaster
from daemon.core.intake import OrderLimits
from daemon.core.pipeline import DEAD_LETTER_BYTES_MAX, Pipeline, PipelineOptions
from daemon.core.sessions import Rules
from daemon.core.step import F32, Step, Waves
from daemon.drift import InputDrift
from daemon.expected import ExpectedInstruments
from daemon.health import Health
from daemon.metrics import Metrics
from daemon.model.bundle import Bundle
from daemon.model.selftest import self_test
from daemon.model.shelf import Shelf
from daemon.pins import PinFollower
from daemon.recovery import Recovery
from daemon.resume import Terms
from daemon.revision import revision
from daemon.service import LoopOptions, Service
from daemon.skill import LiveScores
from daemon.spread import INSTRUMENTS_MAX, PredictionSpread
from daemon.switching import Model, Switching
from daemon.transport.port import Reader, Sink, Source
from daemon.watched import Watch
from schemas import TickDecoder


@dataclass
class Engine:
    """A model ready to run, and what stays when another takes its place: nothing depends on any transport."""

    model: Model
    metrics: Metrics
    registry: CollectorRegistry
    health: Health
    #: Makes the model of a bundle on this machine.
    load: Callable[[str], Model]
    #: Largest key and value of a dead letter together, once the cluster has said how large.
    dead_letter_bytes_max: int = DEAD_LETTER_BYTES_MAX

    @property
    def pipeline(self) -> Pipeline:
        """That of the model."""
        return self.model.pipeline

    @property
    def revision(self) -> str:
        """That of the model."""
        return self.model.revision

    def take(self, bundle_id: str) -> None:
        """Run another bundle from the start, before anything runs.

        Raises
        ------
        BundleError : it is not here, or not what it was
        """
        self.model = model = self.load(bundle_id)
        self.metrics.follow(model.id, model.revision, model.watch)


def build_engine(settings: Settings) -> Engine:
    """Load the bundle that the settings name, prove it, and build the pipeline around it.

    Raises
    ------
    BundleError : missing, tampered with, or not the same on this machine
    SettingsError : a session rule names what does not exist
    """
    rules, decoder = resolve_rules(settings.session), tick_decoder(settings)
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    metrics = Metrics(registry, Watch(PredictionSpread(1, 0)))
    metrics.coverage_target.set(settings.pipeline.coverage)
    metrics.calendars(rules.tables)
    shelf = Shelf(settings.model.bundle, settings.model.bundles)

    def load(path: Path) -> Model:
        return load_model(path, settings, rules, decoder, metrics)

    model = load(settings.model.bundle)
    metrics.follow(model.id, model.revision, model.watch)
    health = Health(settings.pipeline.stuck_seconds)
    return Engine(model, metrics, registry, health, lambda bundle_id: load(shelf.find(bundle_id)))


def load_model(path: Path, settings: Settings, rules: Rules, decoder: TickDecoder, metrics: Metrics) -> Model:
    """Load a bundle, prove it, and build a pipeline around it; takes long, and may run beside the loop.

    Raises
    ------
    BundleError : missing, tampered with, or not the same on this machine
    """
    bundle = Bundle.load(path)
    step = self_test(bundle, settings.model.engine)
    pipeline = Pipeline(
        bundle.spec,
        TimedStep(step, metrics.inference_seconds),
        rules,
        pipeline_options(settings),
        decoder=decoder,
        canary_ticks=bundle.canary_ticks,
        scores=bool(settings.topics.scores),
    )
    return Model(
        bundle.id,
        revision(bundle.id, settings, rules, step),
        pipeline,
        _watch(bundle, pipeline, settings, rules),
    )


def _watch(bundle: Bundle, pipeline: Pipeline, settings: Settings, rules: Rules) -> Watch:
    spec, instruments_max = bundle.spec, settings.metrics.instruments_max
    return Watch(
        PredictionSpread(len(spec.horizons), max(instruments_max, INSTRUMENTS_MAX)),
        LiveScores(Forecaster(spec, settings.pipeline.coverage), absolute=spec.prices_may_be_negative),
        bundle.manifest.validation_variance,
        drift=InputDrift(spec),
        expected=ExpectedInstruments(rules),
        pipeline=pipeline,
        instruments_max=instruments_max,
    )


def build_service(
    settings: Settings, engine: Engine, source: Source, sink: Sink, reader: Reader, follower: PinFollower | None = None
) -> Service:
    """Build the loop over a transport.

    Parameters
    ----------
    follower : knows the pin in force, if there is one; None where the model never changes
    """
    model, kafka, limits = engine.model, settings.kafka, settings.pipeline
    model.pipeline.dead_letter_bytes_max = engine.dead_letter_bytes_max
    terms = Terms(
        kafka.group_id,
        source.topic_id(),
        model.revision,
        limits.on_lost_ticks,
        limits.warmup_replay_ticks_max,
    )
    recovery = Recovery(source, reader, model.pipeline, terms, patience_seconds=kafka.broker_timeout_seconds)
    checkpoints = Checkpoints(model.pipeline, limits.checkpoint_seconds, limits.checkpoint_ticks, time.monotonic)
    options = LoopOptions(
        max_batch_ticks=limits.max_batch_ticks,
        min_batch_ms=limits.min_batch_ms,
        dead_letter_ratio_max=limits.dead_letter_ratio_max,
        broker_timeout_seconds=kafka.broker_timeout_seconds,
    )
    switching = None
    if follower is not None:
        ratio_max = limits.dead_letter_ratio_max
        switching = Switching(model.id, follower.look, engine.load, pin=follower.pin, dead_letter_ratio_max=ratio_max)
    return Service(
        source,
        sink,
        model.pipeline,
        recovery,
        checkpoints,
        engine.metrics,
        engine.health,
        options,
        switching=switching,
    )


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
