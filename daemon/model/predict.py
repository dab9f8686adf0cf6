"""Forecasts of a bundle without Kafka: ticks in, through the daemon's own pipeline, forecasts out.

Every call begins with a reset of every instrument. What comes out is what the daemon would publish for these ticks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np
import orjson

from daemon.core.intake import OrderLimits
from daemon.core.pipeline import Batch, Pipeline, PipelineOptions
from daemon.core.records import InputRecord
from daemon.core.sessions import Gap, Rules
from daemon.core.spec import ModelSpec
from daemon.core.step import Step
from daemon.errors import SettingsError
from schemas import HEADER_PREFIX, Tick

#: Ticks of one batch; no bit depends on it.
BATCH_TICKS = 1000
#: As in the daemon where no session rule is set.
GAP_SECONDS = 3600.0
#: As the daemon's defaults, except that a file has no record timestamps for ticks to be ahead of.
LIMITS = OrderLimits(future_skew_ns=2**62, max_lateness_ns=0, seq_restart_ns=300 * 10**9)
#: The instrument of a frame that names none.
INSTRUMENT = "frame"
TOPIC = "frame"

#: Columns of a frame that are keys of a tick; any other is a field.
_KEYS = frozenset(Tick.model_fields) - {"fields"}
_CLOCKS = ("ts", "ts_ns")
_TEXTS = ("instrument", "aggressor", "session")
_FIELD = "field:"


def predict(
    spec: ModelSpec, step: Step, ticks: Any, *, rules: Rules | None = None, options: PipelineOptions | None = None
) -> Any:
    """Forecast after every tick.

    Parameters
    ----------
    ticks : dicts with the keys of `Tick` (price, or bid and ask; fields ...), or a pandas DataFrame whose columns are
        such keys and, for `fields`, any other name, bare or as ``field:NAME``; missing values are absent. Of a frame,
        `ts` may be its index, and without `instrument` all rows are of one
    rules, options : as the daemon's; its defaults where absent

    Returns
    -------
    for dicts a list with one entry per tick: the forecast as published, or ``{"id", "reason", "detail"}`` of a tick
    that was refused; for a frame such a frame with the same index: price, step, warm, then mean_H, lower_H, upper_H and
    variance_H by horizon, and `refused`

    Raises
    ------
    SettingsError : a frame without times, or with times without a zone
    """
    if not hasattr(ticks, "columns"):
        return list(outcomes(spec, step, ticks, rules=rules, options=options))
    found = outcomes(spec, step, _rows(ticks), rules=rules, options=options)
    return type(ticks)([_flat(each) for each in found], index=ticks.index, columns=_columns(spec))


def outcomes(
    spec: ModelSpec,
    step: Step,
    ticks: Iterable[Mapping[str, Any]],
    *,
    rules: Rules | None = None,
    options: PipelineOptions | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield what became of each tick, in order; see `predict`."""
    pipeline = Pipeline(spec, step, rules or Rules((), Gap(GAP_SECONDS)), options or PipelineOptions(LIMITS))
    pipeline.assign(0)
    records = (InputRecord(TOPIC, 0, at, -1, None, orjson.dumps(dict(tick))) for at, tick in enumerate(ticks))
    while part := list(islice(records, BATCH_TICKS)):
        yield from _in_order(pipeline.advance(part))


def _in_order(batch: Batch) -> list[dict[str, Any]]:
    found = [orjson.loads(message.value or b"") for message in batch.forecasts]
    for letter in batch.dead_letters:
        facts = {name.removeprefix(HEADER_PREFIX): value.decode() for name, value in letter.headers}
        found.append({"id": f"{TOPIC}-0-{facts['offset']}", "reason": facts["reason"], "detail": facts["detail"]})
    return sorted(found, key=lambda each: int(each["id"].rpartition("-")[2]))


# --- frames; pandas is not imported: whoever has a frame has it ------------------------------------------------------


def _rows(frame: Any) -> Iterator[dict[str, Any]]:
    columns = [str(column) for column in frame.columns]
    clock = next((name for name in _CLOCKS if name in columns), None)
    if clock is None and not hasattr(frame.index, "tz"):
        raise SettingsError(
            "the frame has no times; give it a column ts (nanoseconds) or an index of times with a zone"
        )
    times = _times(frame.index if clock is None else frame[clock])
    names = [name for name in columns if name not in _CLOCKS]
    values = [frame[name].tolist() for name in names]
    for index, ts in enumerate(times):
        yield _tick(ts, names, [column[index] for column in values])


def _tick(ts: object, names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    tick: dict[str, Any] = {"instrument": INSTRUMENT, "ts": ts}
    fields: dict[str, Any] = {}
    for name, value in zip(names, values, strict=True):
        if value is None or value != value:  # a missing value is not itself
            continue
        if name in _TEXTS:
            tick[name] = str(value)
        elif name in _KEYS:
            tick[name] = value
        else:
            fields[name.removeprefix(_FIELD)] = value
    return {**tick, "fields": fields} if fields else tick


def _times(column: Any) -> list[Any]:
    """Return event times as integer nanoseconds; integers and texts stay what they are.

    Raises
    ------
    SettingsError : times without a zone
    """
    values = np.asarray(column)
    if values.dtype.kind == "M":
        raise SettingsError("the frame's times have no zone; set it first, e.g. with tz_localize('UTC')")
    if values.dtype == object and len(values) and hasattr(values[0], "as_unit"):  # pandas Timestamps with a zone
        return [int(value.as_unit("ns").value) for value in values]
    return list(values.tolist())


def _columns(spec: ModelSpec) -> list[str]:
    known = [f"{name}_{horizon}" for name in ("mean", "lower", "upper", "variance") for horizon in spec.horizons]
    return ["instrument", "price", "step", "warm", *known, "refused"]


def _flat(outcome: Mapping[str, Any]) -> dict[str, Any]:
    if "reason" in outcome:
        return {"refused": f"{outcome['reason']}: {outcome['detail']}"}
    row = {name: outcome[name] for name in ("instrument", "price", "step", "warm")}
    for name in ("mean", "lower", "upper", "variance"):
        for horizon, value in zip(outcome["horizons"], outcome[name] or (), strict=False):
            row[f"{name}_{horizon}"] = value
    return row
