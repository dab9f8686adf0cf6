"""Scalers of other people's models: what a column's mean and standard deviation are, from a spec or a scaler's file.

Either kind is one subtraction and one division, which is what `daemon.core.spec.Column` does:

- *standard*: ``(x - mean) / scale``
- *minmax*: ``low + (x - min) / (max - min) * (high - low)``, the feature range being ``low, high``

A file is JSON or npz with these names, or with scikit-learn's (``mean_``, ``scale_``, ``data_min_``, ``data_max_``).
A pickle is refused: reading one runs whatever code it holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from daemon.errors import SettingsError
from daemon.model import folder

Numbers = Annotated[tuple[float, ...], Field(max_length=256)]
Range = tuple[float, float]

#: What a scikit-learn scaler calls our words.
_SKLEARN = {"mean_": "mean", "scale_": "scale", "data_min_": "min", "data_max_": "max"}
_PICKLES = (".pkl", ".pickle", ".joblib", ".sav", ".p")
#: First bytes of a pickle of protocol 2 and later.
_PICKLE_MAGIC = b"\x80"
_EXPORT = (
    """python -c "import json, {module}; s = {module}.load({source}); json.dump({{n: [float(v) for v in """
    """getattr(s, n)] for n in ('mean_', 'scale_', 'data_min_', 'data_max_', 'feature_range') if getattr(s, n, None) """
    """is not None and not (n == 'mean_' and not s.with_mean)}}, open('{target}', 'w'))\""""
)


class Scaler(BaseModel):
    """How the model's inputs were scaled in training; one number per input column."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["standard", "minmax"] = "standard"
    #: JSON or npz that holds the numbers; `daemon.model.spec_file.read_spec` puts them in its place.
    file: str | None = None
    mean: Numbers | None = None
    scale: Numbers | None = None
    min: Numbers | None = None
    max: Numbers | None = None
    feature_range: Range = (0.0, 1.0)
    #: Features that follow the instrument's own running scale instead, from this mean and scale on.
    running: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _is_one_kind(self) -> Self:
        given = [name for name in ("mean", "scale", "min", "max") if getattr(self, name) is not None]
        wanted = ("min", "max") if self.kind == "minmax" else ("mean", "scale")
        if strange := [name for name in given if name not in wanted]:
            raise ValueError(f"{strange[0]} is no number of a {self.kind} scaler, which has {' and '.join(wanted)}")
        if self.kind == "minmax" and given != ["min", "max"]:
            raise ValueError("a minmax scaler needs min and max")
        if not self.feature_range[0] < self.feature_range[1]:
            raise ValueError(f"feature_range {list(self.feature_range)} must grow")
        return self

    def columns(self, features: Sequence[str]) -> list[tuple[float, float]]:
        """Return mean and standard deviation of each column.

        Raises
        ------
        ValueError : names the column or the counts that do not fit
        """
        count = len(features)
        if self.kind == "standard":
            mean = _numbers("mean", self.mean, 0.0, count)
            scale = _numbers("scale", self.scale, 1.0, count)
            for name, value in zip(features, scale, strict=True):
                if not value > 0:
                    raise ValueError(
                        f"scale of {name} is {value:g}, and must be above 0; a constant column has scale 1"
                    )
            return list(zip(mean, scale, strict=True))
        low, high = self.feature_range
        least, most = _numbers("min", self.min, 0.0, count), _numbers("max", self.max, 1.0, count)
        found = []
        for name, bottom, top in zip(features, least, most, strict=True):
            if not bottom < top:
                raise ValueError(f"max of {name} is {top:g}, and must be above its min {bottom:g}")
            std = (top - bottom) / (high - low)
            found.append((bottom - low * std, std))
        return found


def _numbers(name: str, given: Sequence[float] | None, otherwise: float, count: int) -> list[float]:
    if given is None:
        return [otherwise] * count
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} numbers, features names {count} columns")
    return list(given)


def read_scaler(file: Path) -> dict[str, Any]:
    """Read the numbers of a scaler's file, in the words of `Scaler`.

    Raises
    ------
    SettingsError : it is a pickle, and how to export it; or it is missing, or holds something else
    """
    if not file.is_file():
        raise SettingsError(f"scaler: no file at {file}; its path is relative to the spec's folder")
    if file.suffix in _PICKLES or _begins(file, _PICKLE_MAGIC):
        raise SettingsError(
            f"scaler: {file} is a pickle, and reading one runs code; export it once with {_export(file)}"
        )
    content = folder.read_arrays(file) if file.suffix == ".npz" else folder.read_json(file)
    if not isinstance(content, Mapping) or not content:
        raise SettingsError(f"scaler: {file} is no object of numbers like {{'mean': [...], 'scale': [...]}}")
    found = {_SKLEARN.get(name, name): _plain(value) for name, value in content.items()}
    if "min" in found or "max" in found:
        found.pop("scale", None)  # scikit-learn's MinMaxScaler has a scale_ that follows from the others
        found.setdefault("kind", "minmax")
    return found


def _export(file: Path) -> str:
    module = "joblib" if file.suffix == ".joblib" else "pickle"
    source = f"'{file}'" if module == "joblib" else f"open('{file}', 'rb')"
    return _EXPORT.format(module=module, source=source, target=file.with_suffix(".json"))


def _begins(file: Path, magic: bytes) -> bool:
    with file.open("rb") as content:
        return content.read(len(magic)) == magic


def _plain(value: Any) -> Any:
    """Return an array as a list, and a text in it as a text."""
    if not isinstance(value, np.ndarray):
        return value
    return value.tolist() if value.ndim else value.item()
