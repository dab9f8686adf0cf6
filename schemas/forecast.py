"""The `Forecast` message and its encoder."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

SCHEMA_VERSION = 1

Prices = Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)]


class ResetCause(StrEnum):
    """Why an instrument's recurrent state started anew."""

    FIRST = "first"
    SESSION = "session"
    NON_FINITE = "non_finite"
    COLD = "cold"
    REVISION = "revision"
    OPERATOR = "operator"

    @property
    def meaning(self) -> str:
        """One sentence for tables and schemas."""
        return _MEANINGS[self]


_MEANINGS = {
    ResetCause.FIRST: "No state of this instrument is kept: it is new, or it was evicted.",
    ResetCause.SESSION: "The tick opened a session.",
    ResetCause.NON_FINITE: "The tick before drove the model to NaN or infinity.",
    ResetCause.COLD: "States were lost: no checkpoint, a damaged one, ticks no longer retained, or offsets set back.",
    ResetCause.REVISION: "Another revision took over; `step` counts the ticks that were replayed to warm it up.",
    ResetCause.OPERATOR: "An operator reset the instrument.",
}


class Forecast(BaseModel):
    """The forecast made at one tick, for every horizon. It holds no wall-clock time: same log, same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(
        description='"topic-partition-offset" of the tick; unique, also where a reader sees aborted writes.'
    )
    instrument: str = Field(description="Instrument of the tick.")
    ts: int = Field(description="Event time of the tick, nanoseconds since the epoch.")
    session: str | None = Field(description="Session of the tick; null under the rule `never`.")
    step: Annotated[int, Field(ge=0)] = Field(description="Ticks since the reset; the first is 0.")
    reset: ResetCause | None = Field(description="Why the state started anew, on the first forecast after that.")
    warm: bool = Field(description="True once `warmup_ticks` ticks have been seen since the reset.")
    price: float = Field(
        description="Reference price: mid of the latest quote, or the trade price where there is none."
    )
    horizons: Annotated[tuple[int, ...], Field(min_length=1)] = Field(description="How far ahead, in ticks.")
    mean: Prices = Field(description="Expected reference price at each horizon.")
    lower: Prices | None = Field(description="Lower end of the interval at each horizon; null until known.")
    upper: Prices | None = Field(description="Upper end of the interval at each horizon; null until known.")
    variance: Prices | None = Field(
        description="Variance of the log return to each horizon (of the price difference, for models of differences); "
        "null until known."
    )
    model: str = Field(description="Id of the bundle.")
    schema_version: int = Field(SCHEMA_VERSION, description="Version of this message.")


class ForecastEncoder:
    """Writes the forecasts of one model as compact JSON with the keys of `Forecast`, in its order.

    Nothing is validated here, in the hot path; tests hold the text against `Forecast` and a plain encoder. Numbers come
    as text, from whole arrays at once: an object for each number and a dict for each forecast took twice as long.
    """

    def __init__(self, horizons: Sequence[int], model: str) -> None:
        head = b'{"id":"%b-%d-%d","instrument":%b,"ts":%d,"session":%b,"step":%d,"reset":%b,"warm":%b,"price":%b,'
        middle = b'"horizons":%b,"mean":[%%b],' % orjson.dumps(list(horizons))
        tail = b',"model":%b,"schema_version":%d}' % (orjson.dumps(model).replace(b"%", b"%%"), SCHEMA_VERSION)
        self._known = head + middle + b'"lower":[%b],"upper":[%b],"variance":[%b]' + tail
        self._unknown = head + middle + b'"lower":null,"upper":null,"variance":null' + tail

    def encode(
        self,
        identity: tuple[bytes, int, int],
        instrument: str,
        ts: int,
        session: str | None,
        step: int,
        reset: ResetCause | None,
        warm: bool,
        numbers: tuple[bytes, bytes],
        ends: tuple[bytes, bytes, bytes] | None,
    ) -> bytes:
        """Return one forecast.

        Parameters
        ----------
        identity : topic, partition and offset of the tick
        numbers : price and mean, as `number_texts` and `row_texts` give them
        ends : lower, upper and variance, likewise; None where they are not known
        """
        label = b"null" if session is None else orjson.dumps(session)
        cause = b"null" if reset is None else orjson.dumps(reset)
        values = (*identity, orjson.dumps(instrument), ts, label, step, cause, b"true" if warm else b"false", *numbers)
        return self._unknown % values if ends is None else self._known % (*values, *ends)


def number_texts(numbers: Any) -> list[bytes]:
    """Return the numbers of a float64 array of one dimension, not empty, as JSON."""
    return orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")


def row_texts(rows: Any) -> list[bytes]:
    """Return the rows of a float64 array of two dimensions, not empty, as JSON without the brackets."""
    return orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)[2:-2].split(b"],[")
