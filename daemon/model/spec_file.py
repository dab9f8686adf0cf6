"""The spec: what a user says of a model that we did not train, and the manifest that follows from it.

A TOML file, or the same as a dict::

    mode = "window"                                   # or "carried"; left out, the model's shape decides
    steps = 10
    features = ["field:open", "field:high", "field:low", "price", "field:volume"]
    missing = "last"                                  # or "dead_letter", or a number
    initial_state = "zeros"                           # or a table of vectors by state tensor
    horizons = [1, 5, 10]                             # of a roll-out, with [future]

    [scaler]
    mean = [...]
    scale = [...]

    [[output]]
    horizon = 1
    kind = "price"
    scaler = "price"

    [future]
    price = "output:0"
    "field:volume" = "hold"

Every refusal is one line that names the key, what was found and what is allowed.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from daemon.core.features import BASES, parse_feature
from daemon.core.spec import Column, Missing, Output, OutputKind, OutputOf
from daemon.errors import BundleError, SettingsError
from daemon.model import folder
from daemon.model.facts import Facts, Mode
from daemon.model.manifest import STEPS_MAX, Manifest
from daemon.model.scalers import Scaler, read_scaler

#: The golden sequence is the longest window and as many ticks behind it as of a short one.
GOLDEN_STEPS = 128


def _as_table(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


class OutputSpec(BaseModel):
    """What one output column of the model says: ``value = mean + scale * y`` in the unit that `kind` names."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    #: How far ahead, in ticks; 1 in a roll-out.
    horizon: int | None = Field(None, ge=1)
    #: "price", "difference" to the reference price, or "log_return" from it.
    kind: OutputKind
    mean: float | None = None
    scale: float | None = None
    #: An input column whose scale turns the output back, in place of mean and scale.
    scaler: str | None = None
    of: OutputOf = "mean"
    #: False for a column that only feeds the roll-out.
    publish: bool = True

    @model_validator(mode="after")
    def _has_one_scale(self) -> Self:
        if self.scaler is not None and (self.mean is not None or self.scale is not None):
            raise ValueError("both scaler and mean or scale are given; keep one")
        return self


class Spec(BaseModel):
    """A spec; `read_spec` reads one from a file."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mode: Mode | None = None
    steps: int | None = Field(None, ge=1, le=STEPS_MAX)
    #: In the order of the model's input columns; of several inputs, one after the other.
    features: tuple[str, ...] = Field(min_length=1, max_length=256)
    missing: Missing = "dead_letter"
    scaler: Annotated[Scaler | None, BeforeValidator(_as_table)] = None
    initial_state: Literal["zeros"] | dict[str, Any] = "zeros"
    #: In the order of the model's output columns.
    output: tuple[OutputSpec, ...] = Field(min_length=1, max_length=64)
    #: Feature -> "output:K", "hold" or a constant in the feature's own unit.
    future: dict[str, str | float] = Field(default_factory=dict)
    #: Ticks ahead that a roll-out publishes.
    horizons: tuple[int, ...] = ()


# --- reading ----------------------------------------------------------------------------------------------------------


def read_spec(source: Path | str | Mapping[str, Any] | Spec) -> Spec:
    """Read a spec; the path of a scaler's file is relative to the spec's own folder.

    Raises
    ------
    SettingsError : names the key, and the near one where it is unknown
    """
    if isinstance(source, Spec):
        return source
    if isinstance(source, Mapping):
        return _parse(source, Path(), "the spec")
    return _parse(_read_toml(Path(source)), Path(source).parent, str(source))


def _read_toml(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise SettingsError(f"no spec at {file}; `tickcast convert MODEL --init --spec {file}` writes one to fill in")
    try:
        return tomllib.loads(folder.read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is no valid TOML: {error}") from error


def _parse(content: Mapping[str, Any], home: Path, what: str) -> Spec:
    try:
        return Spec.model_validate(_with_scaler(dict(content), home))
    except ValidationError as error:
        raise SettingsError(f"{what}: {_one_line(error)}") from error
    except (SettingsError, BundleError) as error:
        raise SettingsError(f"{what}: {error}") from error


def _with_scaler(content: dict[str, Any], home: Path) -> dict[str, Any]:
    """Put the numbers of a scaler's file in its place."""
    scaler = _as_table(content.get("scaler"))
    if isinstance(scaler, dict) and isinstance(scaler.get("file"), str):
        rest = {name: value for name, value in scaler.items() if name != "file"}
        if both := rest.keys() & {"mean", "scale", "min", "max"}:
            raise SettingsError(f"scaler: both file and {sorted(both)[0]} are given; keep one")
        content["scaler"] = read_scaler(home / scaler["file"]) | rest
    return content


def _one_line(error: ValidationError) -> str:
    """Say the first thing wrong; an unknown key before others, for it may be what they miss."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"]) or "spec"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}{_near(str(first['loc'][-1]), _keys_beside(first['loc']))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    return f"{key} = {str(first['input'])[:80]!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys_beside(place: Sequence[int | str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {"output": OutputSpec, "scaler": Scaler}
    section = sections.get(str(place[0]), Spec) if len(place) > 1 else Spec
    return list(section.model_fields)


def _near(name: str, known: Sequence[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else f"; known are {', '.join(known)}"


# --- the manifest -----------------------------------------------------------------------------------------------------


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
        raise SettingsError(f"{where}: {_one_line(error)}") from error
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
            raise ValueError(f"scaler.running: {name!r} is none of the features{_near(name, spec.features)}")
    return tuple(
        Column(name, "running" if name in scaler.running else "frozen", mean, std)
        for name, (mean, std) in zip(spec.features, scaler.columns(spec.features), strict=True)
    )


def _check_feature(name: str) -> None:
    try:
        parse_feature(name)
    except ValueError as error:
        near = difflib.get_close_matches(name.rpartition(":")[2], BASES, n=1)
        raise ValueError(f"features: {error}" + (f"; did you mean {near[0]}?" if near else "")) from None


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
        raise ValueError(f"output {index}: scaler names {name!r}, none of the features{_near(name, names)}")
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
            raise ValueError(f"future: {name!r} is none of the features{_near(name, spec.features)}")
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
            raise ValueError(f"initial_state: the model has no state {name}{_near(name, known)}")
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
