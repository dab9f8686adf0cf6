"""The spec: what a user says of a model that we did not train; `spec_manifest` makes the manifest of it.

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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from daemon.core.spec import Missing, OutputKind, OutputOf
from daemon.errors import BundleError, SettingsError
from daemon.model import folder
from daemon.model.facts import Mode
from daemon.model.manifest import STEPS_MAX
from daemon.model.scalers import Scaler, read_scaler


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
        raise SettingsError(f"{what}: {one_line(error)}") from error
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


def one_line(error: ValidationError) -> str:
    """Say the first thing wrong; an unknown key before others, for it may be what they miss."""
    errors = error.errors(include_url=False)
    first = next((each for each in errors if each["type"] == "extra_forbidden"), errors[0])
    key = ".".join(str(part) for part in first["loc"]) or "spec"
    if first["type"] == "extra_forbidden":
        return f"unknown key {key}{near(str(first['loc'][-1]), _keys_beside(first['loc']))}"
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "value_error":
        return f"{key}: {first['ctx']['error']}"
    return f"{key} = {str(first['input'])[:80]!r}: {first['msg'][0].lower()}{first['msg'][1:]}"


def _keys_beside(place: Sequence[int | str]) -> list[str]:
    sections: dict[str, type[BaseModel]] = {"output": OutputSpec, "scaler": Scaler}
    section = sections.get(str(place[0]), Spec) if len(place) > 1 else Spec
    return list(section.model_fields)


def near(name: str, known: Sequence[str]) -> str:
    """Return the end of a refusal: the known name that looks like this one, or all of them."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]}?" if found else f"; known are {', '.join(known)}"
