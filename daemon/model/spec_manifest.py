"""From a spec to the manifest of its model: counts, scales, states and futures that fit, or a refusal by name."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from daemon.core.features import BASES, parse_feature
from daemon.core.spec import Column, Output, OutputOf
from daemon.errors import SettingsError
from daemon.model.facts import Facts, Mode
from daemon.model.manifest import Manifest
from daemon.model.scalers import Scaler
from daemon.model.spec_file import OutputSpec, Spec, near, one_line

#: The golden sequence is the longest window and as many ticks behind it as of a short one.
GOLDEN_STEPS = 128


def manifest_of(spec: Spec, facts: Facts, mode: Mode, where: str = "the spec") -> Manifest:
    """Return the manifest of a model that is run as the spec says.

    Parameters
    ----------
    facts : shapes and names of the model
    mode : decided; the spec's own says nothing any more
    where : how the user calls the spec

    Raises
    ------
    SettingsError : names the key, column or count that does not fit the model
    """
    try:
        return _manifest(spec, facts, mode)
    except ValidationError as error:
        raise SettingsError(f"{where}: {one_line(error)}") from error
    except ValueError as error:
        raise SettingsError(f"{where}: {error}") from error


def _manifest(spec: Spec, facts: Facts, mode: Mode) -> Manifest:
    steps = _steps(spec, facts, mode)
    _check_counts(spec, facts)
    columns = _columns(spec)
    outputs = tuple(_output(index, each, spec, columns) for index, each in enumerate(spec.output))
    _check_horizons(outputs, spec)
    return Manifest(
        mode=mode,
        steps=steps,
        columns=columns,
        outputs=outputs,
        unpublished=tuple(index for index, each in enumerate(spec.output) if not each.publish),
        missing=spec.missing,
        initial_state=_initial_state(spec, facts),
        future=_future(spec),
        horizons=spec.horizons,
        golden_steps=max(GOLDEN_STEPS, steps + GOLDEN_STEPS // 2),
    )


def _steps(spec: Spec, facts: Facts, mode: Mode) -> int:
    if mode == "carried":
        return 1
    steps = spec.steps or facts.steps
    if steps is None:
        raise ValueError("mode window needs steps; the model reads windows of any length")
    if facts.steps is not None and steps != facts.steps:
        raise ValueError(f"steps = {steps}, but the model {facts.name} reads windows of {facts.steps} ticks")
    return steps


def _check_counts(spec: Spec, facts: Facts) -> None:
    if len(spec.features) != facts.n_features:
        raise ValueError(
            f"features names {len(spec.features)} columns, the model {facts.name} reads {facts.n_features}"
        )
    if len(spec.output) != facts.n_outputs:
        raise ValueError(
            f"there are {len(spec.output)} [[output]] tables, the model {facts.name} has {facts.n_outputs} outputs"
        )


def _columns(spec: Spec) -> tuple[Column, ...]:
    for index, name in enumerate(spec.features):
        if not name:
            raise ValueError(f"features: column {index} has no name yet; `tickcast features` lists what it can be")
        _check_feature(name)
    scaler = spec.scaler or Scaler()
    for name in scaler.running:
        if name not in spec.features:
            raise ValueError(f"scaler.running: {name!r} is none of the features{near(name, spec.features)}")
    return tuple(
        Column(name, "running" if name in scaler.running else "frozen", mean, std)
        for name, (mean, std) in zip(spec.features, scaler.columns(spec.features), strict=True)
    )


def _check_feature(name: str) -> None:
    try:
        parse_feature(name)
    except ValueError as error:
        found = difflib.get_close_matches(name.rpartition(":")[2], BASES, n=1)
        raise ValueError(f"features: {error}" + (f"; did you mean {found[0]}?" if found else "")) from None


def _output(index: int, output: OutputSpec, spec: Spec, columns: Sequence[Column]) -> Output:
    mean, scale = output.mean or 0.0, 1.0 if output.scale is None else output.scale
    if output.scaler is not None:
        mean, scale = _reused_scale(index, output.scaler, columns)
    if output.horizon is None and not spec.future:
        raise ValueError(f"output {index}: horizon is missing; say how many ticks ahead it forecasts")
    return Output(output.horizon or 1, output.kind, mean, scale, of=output.of)


def _reused_scale(index: int, name: str, columns: Sequence[Column]) -> tuple[float, float]:
    found = {(column.mean, column.std) for column in columns if column.feature == name and column.scale == "frozen"}
    if len(found) == 1:
        return found.pop()
    names = [column.feature for column in columns]
    if name not in names:
        raise ValueError(f"output {index}: scaler names {name!r}, none of the features{near(name, names)}")
    raise ValueError(f"output {index}: scaler {name} has no single frozen scale; give mean and scale")


def _check_horizons(outputs: Sequence[Output], spec: Spec) -> None:
    seen: set[tuple[int, OutputOf]] = set()
    for index, (output, given) in enumerate(zip(outputs, spec.output, strict=True)):
        key = (output.horizon, output.of)
        if given.publish and key in seen:
            raise ValueError(
                f"output {index}: another output says the {output.of} at horizon {output.horizon} already; "
                "give one of them publish = false"
            )
        if given.publish:
            seen.add(key)


def _future(spec: Spec) -> tuple[str | float, ...]:
    if not spec.future:
        return ()
    for name in spec.future:
        if name not in spec.features:
            raise ValueError(f"future: {name!r} is none of the features{near(name, spec.features)}")
    for name in spec.features:
        if name not in spec.future:
            raise ValueError(f'future: input {name} is missing; give it "output:K", "hold" or a number')
    return tuple(spec.future[name] for name in spec.features)


def _initial_state(spec: Spec, facts: Facts) -> tuple[float, ...]:
    """Return the vectors of the spec in the order of the model's state tensors; tensors it leaves out are zeros."""
    if spec.initial_state == "zeros":
        return ()
    given = dict(_flat(spec.initial_state))
    known = [tensor.name for tensor in facts.state]
    for name, vector in given.items():
        if name not in known:
            raise ValueError(f"initial_state: the model has no state {name}{near(name, known)}")
        if not isinstance(vector, list) or not all(type(value) in (int, float) for value in vector):
            raise ValueError(f"initial_state.{name} is no list of numbers")
    state: list[float] = []
    for tensor in facts.state:
        vector = np.array(given.get(tensor.name, np.zeros(tensor.width)), np.float32)
        if len(vector) != tensor.width:
            raise ValueError(f"initial_state.{tensor.name} has {len(vector)} numbers, the model's has {tensor.width}")
        state += vector.tolist()
    return tuple(state)


def _flat(table: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, Any]]:
    """Yield vectors by dotted name: TOML reads an unquoted dot as a table inside a table."""
    for name, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            yield f"{head}{name}", value
