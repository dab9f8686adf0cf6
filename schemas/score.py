"""The `Score` message, one forecast against what happened, and its encoder."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

SCORE_VERSION = 1


class Score(BaseModel):
    """A forecast of one horizon and its outcome. A bounded sample of all forecasts is scored, the same on every run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(description="Id of the forecast: that of the tick it was made at.")
    outcome_id: str = Field(
        description="Id of the tick that is the outcome, `horizon` ticks later in the same session."
    )
    instrument: str = Field(description="Instrument of both ticks.")
    ts: int = Field(description="Event time of the forecast's tick, nanoseconds since the epoch.")
    outcome_ts: int = Field(description="Event time of the outcome's tick, nanoseconds since the epoch.")
    horizon: Annotated[int, Field(ge=1)] = Field(description="How far ahead the forecast looked, in ticks.")
    price: float = Field(description="Reference price when it was made; the forecast of persistence.")
    mean: float = Field(description="As published.")
    lower: float | None = Field(description="As published; null where the interval was not known.")
    upper: float | None = Field(description="As published; null where the interval was not known.")
    outcome: float = Field(description="Reference price at the outcome.")
    below: bool | None = Field(description="The outcome lay below the interval; null where it was not known.")
    above: bool | None = Field(description="The outcome lay above the interval; null where it was not known.")
    model: str = Field(description="Id of the bundle.")
    schema_version: int = Field(SCORE_VERSION, description="Version of this message.")


def encode_score(payload: dict[str, Any]) -> bytes:
    """Encode a payload with the keys of `Score`, in its order, as compact JSON; a test holds them against the model."""
    return orjson.dumps(payload)
