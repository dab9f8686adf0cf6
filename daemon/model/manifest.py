"""The manifest of a bundle: what the model's columns and outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from daemon.core.spec import Column, ModelSpec, Output

#: Format of the bundles this version writes, and the newest it reads.
FORMAT: Literal[1] = 1


class Manifest(BaseModel):
    """Meaning of a model's inputs and outputs, in the words of `daemon.core.spec`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[1] = FORMAT
    #: One step per tick from the carried state. "window" comes with its own state.
    mode: Literal["carried"] = "carried"
    #: In the order of the model's input columns.
    columns: tuple[Column, ...] = Field(min_length=1, max_length=256)
    #: In the order of the model's output columns.
    outputs: tuple[Output, ...] = Field(min_length=1, max_length=64)
    #: Standard deviation of one-tick log returns that a new instrument starts from.
    volatility_prior: float = Field(1e-4, gt=0)
    #: Ticks of the golden sequence that conversion makes: long enough for a wrong state to show.
    golden_steps: int = Field(128, ge=64, le=4096)
    #: Mean over the outputs of their variance on the validation part, in output units; None where nobody measured it.
    validation_variance: float | None = Field(None, ge=0)
    #: Free notes for people, e.g. the span of the data. Not part of the id.
    trained_on: dict[str, Any] = Field(default_factory=dict)

    @field_validator("columns")
    @classmethod
    def _columns_have_scales(cls, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        for column in columns:
            if not column.feature:
                raise ValueError("a column has no feature name")
            if not column.std > 0:
                raise ValueError(f"column {column.feature}: std must be above 0, found {column.std}")
        return columns

    @field_validator("outputs")
    @classmethod
    def _outputs_are_usable(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        for index, output in enumerate(outputs):
            if output.horizon < 1:
                raise ValueError(f"output {index}: horizon must be at least 1 tick, found {output.horizon}")
            if output.scale == 0:
                raise ValueError(f"output {index}: a scale of 0 makes every forecast the same")
            if output.residual_variance is not None and output.residual_variance < 0:
                raise ValueError(f"output {index}: residual_variance must not be negative")
            _check_quantiles(index, output.residual_quantiles)
        return outputs

    def spec(self, model_id: str) -> ModelSpec:
        """Return what the core has to know of the model."""
        return ModelSpec(model_id, self.columns, self.outputs, mode=self.mode, volatility_prior=self.volatility_prior)

    def identity(self) -> dict[str, Any]:
        """Return the part that reaches the bundle's id, JSON-ready."""
        return self.model_dump(mode="json", exclude={"trained_on"})


def _check_quantiles(index: int, quantiles: Sequence[tuple[float, float]]) -> None:
    if any(not 0 < level < 1 for level, _ in quantiles):
        raise ValueError(f"output {index}: levels of residual_quantiles must lie between 0 and 1")
    if any(low[0] >= high[0] or low[1] > high[1] for low, high in pairwise(quantiles)):
        raise ValueError(f"output {index}: residual_quantiles must increase")
