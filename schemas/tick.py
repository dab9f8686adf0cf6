"""The `Tick` message and its decoder: bytes to a validated tick, or a `Rejected` with its reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError, from_json

from schemas.dead_letter import Reason

#: An integer `ts` below this is no count of nanoseconds since 1973: milliseconds or microseconds were sent.
TS_NS_MIN = 10**17
#: Largest signed 64-bit integer: the year 2262.
TS_NS_MAX = 2**63 - 1
#: Magic byte and schema id that Confluent's serializers put before the JSON.
CONFLUENT_FRAME_BYTES = 5

_ISO_TIME = re.compile(r"^(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9})\d*)?\s?(Z|z|[+-]\d\d(?::?\d\d)?)?$")
_NS_PER_UNIT = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}


class Rejected(Exception):
    """The record cannot be used: it becomes a dead letter, and no state has changed."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def _custom(reason: Reason, detail: str) -> PydanticCustomError:
    return PydanticCustomError(reason.value, "{detail}", {"detail": detail})


def event_time_ns(value: object) -> int:
    """Read an event time: integer nanoseconds, or ISO 8601 with an offset, exact to the nanosecond."""
    if type(value) is int:
        if TS_NS_MIN <= value <= TS_NS_MAX:
            return value
        raise _custom(Reason.TIME_UNIT, f"ts {str(value)[:24]} is no time in nanoseconds since the epoch")
    if not isinstance(value, str):
        raise _custom(Reason.WRONG_TYPE, "ts must be integer nanoseconds or ISO 8601 text with an offset")
    match = _ISO_TIME.match(value)
    if match is None:
        raise _custom(Reason.INVALID_VALUE, "ts is no ISO 8601 time")
    seconds, fraction, offset = match.groups()
    if offset is None:
        raise _custom(Reason.NAIVE_TIME, "ts has no offset from UTC")
    try:
        when = datetime.fromisoformat(seconds + ("+00:00" if offset in "Zz" else offset))
    except ValueError as error:
        raise _custom(Reason.INVALID_VALUE, f"ts is no time: {error}") from error
    since_epoch = when - datetime(1970, 1, 1, tzinfo=UTC)
    return event_time_ns(
        (since_epoch.days * 86_400 + since_epoch.seconds) * 10**9 + int((fraction or "").ljust(9, "0"))
    )


def _printable(value: str) -> str:
    if not value.isprintable():
        raise _custom(Reason.INVALID_VALUE, "instrument holds characters that cannot be printed")
    return value


Price = Annotated[float, Field(allow_inf_nan=False)]
Size = Annotated[float, Field(ge=0, allow_inf_nan=False)]
FieldName = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]


class Tick(BaseModel):
    """One trade or quote of one instrument, or both at once. Unknown fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    instrument: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)] = Field(
        description="The thing priced; owner of one recurrent state."
    )
    ts: Annotated[
        int,
        BeforeValidator(event_time_ns, json_schema_input_type=int | str),
        Field(description="Event time: integer nanoseconds since the epoch, or ISO 8601 text with an offset."),
    ]
    price: Price | None = Field(None, description="Price of the trade.")
    size: Size | None = Field(None, description="Size of the trade.")
    aggressor: Literal["buy", "sell"] | None = Field(None, description="Side that took liquidity.")
    bid: Price | None = Field(None, description="Best bid; comes with `ask`.")
    ask: Price | None = Field(None, description="Best ask; comes with `bid`, and is not below it.")
    bid_size: Size | None = Field(None, description="Size at the best bid.")
    ask_size: Size | None = Field(None, description="Size at the best ask.")
    seq: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = Field(
        None, description="Sequence number; grows per instrument."
    )
    session: Annotated[str, Field(max_length=64)] | None = Field(None, description="Explicit session id.")
    fields: Annotated[dict[FieldName, Price], Field(max_length=64)] | None = Field(
        None, description="Inputs of the producer's own, by name."
    )

    @model_validator(mode="after")
    def _trade_or_quote(self) -> Self:
        if self.bid is None or self.ask is None:
            if self.bid is not None or self.ask is not None:
                raise _custom(Reason.MISSING_FIELD, "a quote needs both bid and ask")
            if self.price is None:
                raise _custom(Reason.MISSING_FIELD, "a tick needs a price, or a bid and an ask")
        elif self.ask < self.bid:
            raise _custom(Reason.CROSSED_QUOTE, f"ask {self.ask!r} is below bid {self.bid!r}")
        return self


class TickDecoder:
    """Decodes the values of the ticks topic.

    Parameters
    ----------
    names : our field -> the user's JSON name, where the topic's JSON is not ours; dots reach into objects
    fields : our name in `fields` -> the user's JSON name
    time_unit : unit of a numeric time under such names

    Notes
    -----
    JSON that is ours is read strictly. Mapped JSON is read leniently, since nobody can change it for our sake: numbers
    may be texts ("61837.63") and times may be fractional.
    """

    def __init__(
        self,
        names: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
        time_unit: Literal["ns", "us", "ms", "s"] = "ns",
    ) -> None:
        self._decode: Callable[[bytes], Tick]
        if names is None and not fields:
            self._decode = Tick.__pydantic_validator__.validate_json
        else:
            self._paths = {name: name.split(".") for name in Tick.model_fields if name != "fields"}
            self._paths |= {name: path.split(".") for name, path in (names or {}).items()}
            self._field_paths = {name: path.split(".") for name, path in (fields or {}).items()}
            self._ns_per_unit = _NS_PER_UNIT[time_unit]
            self._decode = self._decode_mapped
        #: How many values came in Confluent's framing.
        self.framed_count = 0

    def decode(self, value: bytes | None) -> Tick:
        """Read one value.

        Raises
        ------
        Rejected : with the reason; any bytes give a tick or this
        """
        if not value:
            raise Rejected(Reason.EMPTY, "the record has no value")
        if value[0] == 0 and len(value) > CONFLUENT_FRAME_BYTES:
            self.framed_count += 1
            value = value[CONFLUENT_FRAME_BYTES:]
        try:
            return self._decode(value)
        except ValidationError as error:
            raise _rejection(error) from None

    def _decode_mapped(self, value: bytes) -> Tick:
        try:
            raw = from_json(value)
        except ValueError as error:
            raise Rejected(Reason.NOT_JSON, str(error)) from None
        if not isinstance(raw, dict):
            raise Rejected(Reason.NOT_JSON, "the value is no JSON object")
        ours = {name: _dig(raw, path) for name, path in self._paths.items()}
        if ours["ts"] is None:
            raise Rejected(Reason.MISSING_FIELD, f"{'.'.join(self._paths['ts'])}: field required")
        ours = {name: found for name, found in ours.items() if found is not None}
        ours["ts"] = self._to_ns(ours["ts"])
        if self._field_paths:
            found = {name: _dig(raw, path) for name, path in self._field_paths.items()}
            ours["fields"] = {name: number for name, number in found.items() if number is not None}
        return Tick.model_validate(ours, strict=False)

    def _to_ns(self, time: object) -> object:
        """Convert a numeric time, also one sent as text, to integer nanoseconds; leave ISO text alone."""
        if isinstance(time, str):
            try:
                time = int(time) if time.lstrip("-").isdecimal() else float(time)
            except ValueError:
                return time
        if isinstance(time, int) and not isinstance(time, bool):
            return time * self._ns_per_unit
        if isinstance(time, float) and abs(time) < TS_NS_MAX:
            return round(time * self._ns_per_unit)
        return time


def _dig(raw: dict[str, Any], path: list[str]) -> object:
    found: object = raw
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


#: pydantic's error types whose reason is not `wrong_type`.
_REASONS = {
    "json_invalid": Reason.NOT_JSON,
    "json_type": Reason.NOT_JSON,
    "model_type": Reason.NOT_JSON,
    "missing": Reason.MISSING_FIELD,
    "finite_number": Reason.NOT_FINITE,
    "greater_than_equal": Reason.INVALID_VALUE,
    "less_than_equal": Reason.INVALID_VALUE,
    "literal_error": Reason.INVALID_VALUE,
    "string_too_short": Reason.INVALID_VALUE,
    "string_too_long": Reason.INVALID_VALUE,
    "string_pattern_mismatch": Reason.INVALID_VALUE,
    "too_long": Reason.INVALID_VALUE,
} | {reason.value: reason for reason in Reason}


def _rejection(error: ValidationError) -> Rejected:
    """Turn pydantic's first complaint into ours; the input itself is kept in the dead letter, not in its headers."""
    first = error.errors(include_url=False, include_input=False)[0]
    reason = _REASONS.get(first["type"], Reason.WRONG_TYPE)
    where = ".".join(str(part) for part in first["loc"])
    return Rejected(reason, f"{where}: {first['msg']}" if where else first["msg"])
