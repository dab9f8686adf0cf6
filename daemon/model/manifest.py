"""The manifest of a bundle: what the model's columns and outputs mean, and how the model is run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from daemon.core.features import parse_feature
from daemon.core.spec import Column, Missing, ModelSpec, Output
from daemon.model.rollout import Future, Rollout, check_rollout, rolled_outputs

#: Format of the bundles this version writes and reads. 2 brought the mode "window", roll-outs and initial states; no
#: release ever wrote 1.
FORMAT: Literal[2] = 2
#: Longest window, and the most numbers of one instrument's state in window mode: 64 KiB of a snapshot.
STEPS_MAX = 1024
WINDOW_NUMBERS_MAX = 16_384
#: Furthest tick of a roll-out: each costs a run of the model.
AHEAD_MAX = 1000
OUTPUTS_MAX = 64
#: A year of seconds is 31 million ticks; nothing of ticks can be forecast so far ahead.
HORIZON_MAX = 1_000_000
#: What the names of features are made of. The length bounds how deep their transforms lie in each other.
FEATURE = re.compile(r"[a-z0-9_:]{1,200}")
#: Standard deviations whose squares and quotients are numbers; prices lie far within.
STD_MIN, STD_MAX = 1e-30, 1e30
VOLATILITY_MAX = 1e3


class Manifest(BaseModel):
    """Meaning of a model's inputs and outputs, in the words of `daemon.core.spec`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal[2] = FORMAT
    #: "carried": one step per tick from the carried state. "window": the last `steps` ticks from the initial state.
    mode: Literal["carried", "window"] = "carried"
    #: Ticks of the window; 1 where the state is carried.
    steps: int = Field(1, ge=1, le=STEPS_MAX)
    #: In the order of the model's input columns.
    columns: tuple[Column, ...] = Field(min_length=1, max_length=256)
    #: In the order of the model's output columns.
    outputs: tuple[Output, ...] = Field(min_length=1, max_length=OUTPUTS_MAX)
    #: Indices of outputs that only feed the roll-out.
    unpublished: tuple[int, ...] = ()
    #: What becomes of a tick without a field that a column reads.
    missing: Missing = "dead_letter"
    #: What a state starts from after a reset, and every window: all state tensors in a row; empty for zeros.
    initial_state: tuple[float, ...] = Field((), max_length=2**20)
    #: The future of each input column, see `daemon.model.rollout`; empty for a model that is not rolled out.
    future: tuple[Future, ...] = ()
    #: Ticks ahead that the roll-out publishes.
    horizons: tuple[int, ...] = ()
    #: Standard deviation of one-tick log returns that a new instrument starts from.
    volatility_prior: float = Field(1e-4, gt=0, le=VOLATILITY_MAX)
    #: Ticks of the golden sequence that conversion makes: long enough for a wrong state to show.
    golden_steps: int = Field(128, ge=64, le=4096)
    #: Mean over the outputs of their variance on the validation part, in output units; None where nobody measured it.
    validation_variance: float | None = Field(None, ge=0)
    #: Free notes for people, e.g. the span of the data. Not part of the id.
    trained_on: dict[str, Any] = Field(default_factory=dict)

    @field_validator("columns")
    @classmethod
    def _columns_are_usable(cls, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        for index, column in enumerate(columns):
            if not FEATURE.fullmatch(column.feature):
                raise ValueError(f"column {index}: {column.feature[:40]!r} is no name of a feature")
            if not STD_MIN <= column.std <= STD_MAX:
                raise ValueError(f"column {column.feature}: std must be above 0, of a usual size, found {column.std}")
            parse_feature(column.feature)
        return columns

    @field_validator("outputs")
    @classmethod
    def _outputs_are_usable(cls, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        for index, output in enumerate(outputs):
            if not 1 <= output.horizon <= HORIZON_MAX:
                raise ValueError(
                    f"output {index}: horizon must be at least 1 tick and at most {HORIZON_MAX}, found {output.horizon}"
                )
            if output.scale == 0:
                raise ValueError(f"output {index}: a scale of 0 makes every forecast the same")
            if output.residual_variance is not None and output.residual_variance < 0:
                raise ValueError(f"output {index}: residual_variance must not be negative")
            if isinstance(output.of, float) and not 0 < output.of < 1:
                raise ValueError(f"output {index}: the level of a quantile lies between 0 and 1, found {output.of}")
            _check_quantiles(index, output.residual_quantiles)
        return outputs

    @model_validator(mode="after")
    def _window_is_usable(self) -> Self:
        if self.mode == "carried" and self.steps != 1:
            raise ValueError(f"steps = {self.steps} needs mode = 'window'; a carried state has no window")
        numbers = self.steps * len(self.columns)
        if self.mode == "window" and numbers > WINDOW_NUMBERS_MAX:
            raise ValueError(f"a window of {numbers} numbers for each instrument, allowed are {WINDOW_NUMBERS_MAX}")
        return self

    @model_validator(mode="after")
    def _rollout_is_usable(self) -> Self:
        if strange := [index for index in self.unpublished if not 0 <= index < len(self.outputs)]:
            raise ValueError(
                f"unpublished names output {strange[0]}, the model has {len(self.outputs)}, counted from 0"
            )
        if bool(self.future) != bool(self.horizons):
            raise ValueError("a roll-out needs both future and horizons")
        if self.horizons:
            if any(low >= high for low, high in pairwise((0, *self.horizons))) or self.horizons[-1] > AHEAD_MAX:
                raise ValueError(f"horizons of a roll-out grow from 1 to at most {AHEAD_MAX}, found {self.horizons}")
            if len(self.horizons) * len(self.published) > OUTPUTS_MAX:
                raise ValueError(f"a roll-out of more than {OUTPUTS_MAX} outputs and horizons")
        check_rollout(self.columns, self.outputs, self.rollout, self.published)
        if not any(self.outputs[index].of == "mean" for index in self.published):
            raise ValueError('no output says a mean; give one of = "mean"')
        return self

    @property
    def published(self) -> tuple[int, ...]:
        """Indices of the outputs that reach a forecast."""
        return tuple(index for index in range(len(self.outputs)) if index not in self.unpublished)

    @property
    def rollout(self) -> Rollout:
        """How the model looks further ahead; to one tick only, where it is not rolled out."""
        return Rollout(self.future, self.horizons or (1,))

    def spec(self, model_id: str) -> ModelSpec:
        """Return what the core has to know of the model."""
        return ModelSpec(
            model_id,
            self.columns,
            rolled_outputs(self.outputs, self.rollout, self.published),
            mode=self.mode,
            steps=self.steps,
            missing=self.missing,
            volatility_prior=self.volatility_prior,
        )

    def identity(self) -> dict[str, Any]:
        """Return the part that reaches the bundle's id, JSON-ready."""
        return self.model_dump(mode="json", exclude={"trained_on"})


def _check_quantiles(index: int, quantiles: Sequence[tuple[float, float]]) -> None:
    if any(not 0 < level < 1 for level, _ in quantiles):
        raise ValueError(f"output {index}: levels of residual_quantiles must lie between 0 and 1")
    if any(low[0] >= high[0] or low[1] > high[1] for low, high in pairwise(quantiles)):
        raise ValueError(f"output {index}: residual_quantiles must increase")
