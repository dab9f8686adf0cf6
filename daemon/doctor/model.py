"""Examines a Keras model on the arrays it is trained on, or on windows cut out of ticks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from daemon.core.sessions import Rules
from daemon.doctor import answers as about_answers
from daemon.doctor import scales, shapes
from daemon.doctor.finding import Finding, Outcome, Report, registered, skip_all
from daemon.doctor.learning import CHECKS as LEARNING
from daemon.doctor.learning import Lesson, examine_learning
from daemon.doctor.material import Listener, gather
from daemon.doctor.samples import Samples, cut_windows, read_arrays
from daemon.doctor.ticks import OF_ROWS, examine_refused, examine_rows
from daemon.errors import BundleError, SettingsError, TickFileError
from daemon.model.spec_file import read_spec

#: Steps of a window where neither the model nor the user says.
STEPS = 32
#: Samples whose gradients are taken, and whose answers are judged.
GRADIENT_SAMPLES = 64
ANSWERED = 5000
#: Rows for statistics of scales.
SCALED = 5000


@dataclass(frozen=True)
class Question:
    """What the model is asked, as far as its file does not say."""

    features: tuple[str, ...] | None = None
    spec: Path | None = None
    steps: int | None = None
    #: In ticks, one for each output; of arrays, the largest counts.
    horizons: tuple[int, ...] = (1,)
    learning_rate: float = 1e-3


def examine_model(
    file: Path,
    data: Sequence[Path],
    question: Question,
    rules: Rules,
    *,
    budget_seconds: float = 60.0,
    listen: Listener = lambda stage, done: None,
) -> Report:
    """Examine a model.

    Parameters
    ----------
    data : one .npz file, or tick files
    budget_seconds : for fitting small models; 0 fits none

    Raises
    ------
    BundleError : no model, or TensorFlow is missing
    TickFileError, SettingsError : the data cannot be read, or do not say what the model's columns are
    """
    listen("loading", None)
    arrays = [path for path in data if path.suffix == ".npz"]
    if arrays and len(data) > 1:
        raise SettingsError("--data: give one .npz file, or tick files")
    networks = _networks()
    model = networks.load(file)
    shape = tuple(model.inputs[0].shape)
    outcomes: list[Outcome] = []
    if arrays:
        samples, own_scales = read_arrays(arrays[0], max(question.horizons)), True
    else:
        samples, own_scales, found = _cut(data, question, model, rules, listen)
        outcomes += found
    examined = _Examined(model, samples, networks, question, bool(arrays), own_scales, budget_seconds, listen)
    outcomes += examined.outcomes()
    outcomes += _not_made(outcomes, own_arrays=bool(arrays))
    facts = {"model input": shapes.shape_text(shape), "X": samples.shape, "y": samples.y.shape}
    return Report("model", str(file), facts, tuple(outcomes))


class _Examined:
    """One model and its samples."""

    def __init__(
        self,
        model: Any,
        samples: Samples,
        networks: Any,
        question: Question,
        own_arrays: bool,
        own_scales: bool,
        budget_seconds: float,
        listen: Listener,
    ) -> None:
        self._model, self._samples, self._networks = model, samples, networks
        self._question, self._own_arrays, self._own_scales = question, own_arrays, own_scales
        self._budget_seconds, self._listen = budget_seconds, listen

    def outcomes(self) -> Iterator[Outcome]:
        """Judge shapes, then scales, answers, gradients, and learning; what does not fit ends it."""
        samples = self._samples
        shape = list(shapes.examine_input(samples, tuple(self._model.inputs[0].shape)))
        finite = scales.finite(samples)
        yield from (*shape, finite)
        if not (shapes.passes(shape[0]) and shapes.passes(finite)):
            return
        copy = self._networks.copy_of(self._model)
        first = samples.spread(shapes.SAMPLES)[: shapes.SAMPLES]
        x = samples.inputs(first)
        raw = self._networks.raw_answers(copy, x)
        y = samples.y[first].astype(np.float64)
        by_keras = self._networks.keras_loss(y if y.ndim > 1 else y[:, None], raw)
        if self._own_arrays:
            target = list(shapes.examine_target(y, raw, by_keras))
            yield from target
            if not shapes.passes(target[0]):
                return
        yield from self._of_values(copy, raw.shape)

    def _of_values(self, copy: Any, answer_shape: tuple[int, ...]) -> Iterator[Outcome]:
        samples, networks = self._samples, self._networks
        y = _last_targets(samples.y, answer_shape)
        scaling = list(self._scales(copy, y))
        yield from scaling
        if self._own_arrays:
            yield about_answers.shuffled_windows(samples.x)
            yield scales.scaler_of_arrays(samples)
        self._listen("asking the model", None)
        begin, names = samples.cut, samples.names
        picked = samples.spread(ANSWERED * 4)
        held = int(np.searchsorted(picked, begin))
        x = samples.inputs(picked)
        last, context = _columns(x)
        answer = networks.answers(copy, x[held:]) if self._own_arrays else None
        horizon = max(round(samples.horizon * len(picked) / len(samples)), 1)
        yield from about_answers.examine_answers(last, context, y[picked], answer, held, horizon, names)
        if len(samples.shape) == 3:
            some = samples.inputs(samples.spread(GRADIENT_SAMPLES, begin))
            yield from about_answers.gradients(networks.gradient_norms(copy, some).astype(np.float64))
        wrong = [outcome.check.code for outcome in scaling if isinstance(outcome, Finding)]
        yield from self._learning(y, wrong)

    def _scales(self, copy: Any, y: np.ndarray) -> Iterator[Outcome]:
        if self._own_scales:
            seen = self._networks.as_seen(copy, self._samples.inputs(self._samples.spread(SCALED)))
            yield from scales.inputs(seen, self._samples.names)
        if self._own_arrays:
            yield from scales.targets(y, self._networks.head_activation(copy))

    def _learning(self, y: np.ndarray, wrong: Sequence[str]) -> Iterator[Outcome]:
        if self._budget_seconds <= 0:
            yield from skip_all(LEARNING, "--budget 0 fits nothing")
            return
        if wrong:
            yield from skip_all(LEARNING, f"{', '.join(wrong)} comes first")
            return
        networks, model = self._networks, self._model
        yield from examine_learning(
            Lesson(self._samples, y),
            lambda: networks.Learner(networks.stateless(model)),
            lambda: networks.Learner(networks.stateless(model, factor=2)),
            self._question.learning_rate,
            self._budget_seconds,
            lambda done: self._listen("fitting", done),
        )


def _networks() -> Any:
    try:
        from daemon.doctor import networks
    except ImportError as error:
        raise BundleError(
            "examining a model needs TensorFlow; install it with `pip install 'tickcast[tensorflow]'`"
        ) from error
    return networks


def _last_targets(y: np.ndarray, answer_shape: tuple[int, ...]) -> np.ndarray:
    """Return targets of shape (samples, outputs), those of the last step where every step has one."""
    y = y.astype(np.float64)
    if y.ndim == 3 or (y.ndim == 2 and len(answer_shape) == 3 and y.shape[1] == answer_shape[1] != answer_shape[2]):
        y = y[:, -1]
    return y.reshape(len(y), -1)


def _columns(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the columns at the last step, and these with their means over the window and its newest quarter."""
    x = x.astype(np.float64)
    if x.ndim == 2:
        return x, x
    last = x[:, -1]
    quarter = max(x.shape[1] // 4, 1)
    return last, np.hstack([last, x.mean(axis=1), x[:, -quarter:].mean(axis=1)])


def _cut(
    data: Sequence[Path], question: Question, model: Any, rules: Rules, listen: Listener
) -> tuple[Samples, bool, list[Outcome]]:
    """Cut windows out of ticks as the model reads them; say whether their scales are the user's own."""
    features, given, horizons = _asked(question)
    shape, outputs = tuple(model.inputs[0].shape), int(model.outputs[0].shape[-1])
    if outputs != len(horizons):
        given_horizons = ",".join(map(str, horizons))
        raise SettingsError(f"--horizons {given_horizons}: the model has {outputs} outputs; give one horizon for each")
    material = gather(data, rules, features, listen)
    found = [*examine_rows(material.sheets)]
    if material.error:
        raise TickFileError(f"{', '.join(map(str, data))}: {material.error}")
    found.append(examine_refused(material.refused, material.accepted_count))
    steps = question.steps or (shape[1] if len(shape) == 3 else 1) or STEPS
    samples = cut_windows(material.tracks, features, steps, horizons, given)
    return samples, given is not None, found


def _asked(question: Question) -> tuple[tuple[str, ...], tuple[np.ndarray, np.ndarray] | None, tuple[int, ...]]:
    """Return the columns, their scales where a spec gives them, and the horizon of each output."""
    if question.features:
        return question.features, None, question.horizons
    if question.spec is None:
        raise SettingsError("tick files need the model's columns: give --features return,imbalance,... or --spec FILE")
    spec = read_spec(question.spec)
    horizons = tuple(output.horizon or 1 for output in spec.output)
    if spec.scaler is None:
        return spec.features, None, horizons
    try:
        scales_of = np.array(spec.scaler.columns(spec.features), np.float64)
    except ValueError as error:
        raise SettingsError(f"--spec {question.spec}: {error}") from error
    return spec.features, (scales_of[:, 0], scales_of[:, 1]), horizons


def _not_made(outcomes: Sequence[Outcome], *, own_arrays: bool) -> list[Outcome]:
    """Return the checks that were not made, and why."""
    made = {outcome.check.code for outcome in outcomes}
    rest = [check for check in registered() if "model" in check.of and check.code not in made]
    of_ticks = [check for check in rest if check in OF_ROWS]
    others = [check for check in rest if check not in OF_ROWS]
    blocking = ", ".join(
        outcome.check.code
        for outcome in outcomes
        if isinstance(outcome, Finding)
        and outcome.check in (shapes.INPUT_SHAPE, shapes.TARGET_SHAPE, scales.NOT_FINITE)
    )
    reason = f"{blocking} comes first" if blocking else "the windows and scales were made here, from ticks"
    return [*skip_all(of_ticks, "this needs tick files"), *skip_all(others, reason)]
