"""The figures of reports, each a function from arrays to inline SVG for light and dark pages (`svg` says how)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from daemon.judging.svg import HALF, INK, MUTED, SERIES, WIDE, axes_for

if TYPE_CHECKING:
    from matplotlib.axes import Axes

F64 = NDArray[np.float64]

#: Points of a line at most: more cannot be seen, and a page has to load.
POINTS_MAX = 900


@dataclass(frozen=True)
class Line:
    """One line, optionally with a band around it; arrays of one length."""

    label: str
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    dashed: bool = False
    #: Steps hold a value until the next one, as prices do.
    steps: bool = False


@dataclass(frozen=True)
class Bars:
    """One bar per name; NaN leaves a place empty. `low` and `high` are the ends of the whiskers."""

    label: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True)
class Fan:
    """A forecast seen from one tick: where it starts, and the mean and interval at each horizon."""

    x: float
    price: float
    ahead_x: Sequence[float]
    mean: Sequence[float]
    lower: Sequence[float] = field(default=())
    upper: Sequence[float] = field(default=())


def lines(
    series: Sequence[Line],
    *,
    x: str,
    y: str,
    level: float | None = None,
    level_label: str = "",
    percent: bool = False,
    log_x: bool = False,
    ticks_x: Sequence[float] | None = None,
    half: bool = False,
) -> str:
    """Draw lines with bands; `level` is a level to compare with, e.g. 0 or the coverage promised."""
    with axes_for(x, y, HALF if half else WIDE) as (axes, drawn):
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=level_label or None)
        for colour, line in zip(_cycle(), series):  # noqa: B905 - the colours never end
            _draw_line(axes, line, colour)
        if log_x:
            axes.set_xscale("log")
        if ticks_x is not None:
            axes.set_xticks(list(ticks_x), [f"{tick:g}" for tick in ticks_x])
            axes.minorticks_off()
        _finish(axes, percent_y=percent, entries=len(series) + bool(level_label), half=half)
    return drawn()


def bars(
    names: Sequence[str],
    groups: Sequence[Bars],
    *,
    y: str,
    x: str = "",
    percent: bool = True,
    level: float | None = None,
    level_label: str = "",
    half: bool = False,
) -> str:
    """Draw groups of bars side by side under each name, with whiskers; `level` is one to compare with."""
    with axes_for(x, y, HALF if half else WIDE) as (axes, drawn):
        width = 0.8 / max(len(groups), 1)
        places = np.arange(len(names))
        axes.axhline(0, color=MUTED, linewidth=1)
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label=level_label or None)
        for at, (colour, group) in enumerate(zip(_cycle(), groups)):  # noqa: B905 - the colours never end
            centre = places + (at - (len(groups) - 1) / 2) * width
            values = np.asarray(group.values, np.float64)
            axes.bar(centre, np.nan_to_num(values), width * 0.86, color=colour, label=group.label)
            if group.low is not None and group.high is not None:
                spread = np.array([values - np.asarray(group.low), np.asarray(group.high) - values])
                axes.errorbar(
                    centre, values, np.abs(spread), fmt="none", color=INK, elinewidth=1, capsize=min(3, 12 * width)
                )
        crowded = sum(len(name) for name in names) > 70
        axes.set_xticks(places, names, rotation=25 if crowded else 0, ha="right" if crowded else "center")
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        _finish(axes, percent_y=percent, entries=len(groups) + bool(level_label), half=half)
    return drawn()


def scatter(forecast: ArrayLike, outcome: ArrayLike, *, x: str, y: str, bins: int = 10, seed: int = 0) -> str:
    """Draw outcomes against forecasts: some points, the mean outcome of each tenth of the forecasts, the diagonal."""
    forecast, outcome = (np.asarray(values, np.float64) for values in (forecast, outcome))
    with axes_for(x, y, size=HALF) as (axes, drawn):
        shown = np.random.default_rng(seed).permutation(len(forecast))[:POINTS_MAX]
        axes.scatter(forecast[shown], outcome[shown], s=5, color=SERIES[0], alpha=0.3, linewidths=0, label="some ticks")
        if len(forecast):
            groups = np.array_split(np.argsort(forecast, kind="stable"), min(bins, len(forecast)))
            means = np.array([(forecast[group].mean(), outcome[group].mean()) for group in groups])
            axes.plot(*means.T, color=SERIES[1], linewidth=1.6, marker="o", markersize=5, label="mean of each tenth")
            edge = np.array([forecast.min(), forecast.max()])
            axes.plot(edge, edge, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as forecast")
            reach = np.quantile(np.abs(outcome), 0.98) or 1.0
            axes.set_ylim(-reach, reach)
        _finish(axes, entries=3)
    return drawn()


def price_fans(price: Line, fans: Sequence[Fan], *, x: str, y: str) -> str:
    """Draw a stretch of the price and what was forecast at some of its ticks."""
    with axes_for(x, y, size=(8.4, 3.8)) as (axes, drawn):
        for at, fan in enumerate(fans):
            ahead = [fan.x, *fan.ahead_x]
            if fan.lower and fan.upper:
                low, high = [fan.price, *fan.lower], [fan.price, *fan.upper]
                label = "interval" if at == 0 else None
                axes.fill_between(ahead, low, high, color=SERIES[1], alpha=0.16, linewidth=0, label=label)
            label = "forecast" if at == 0 else None
            axes.plot(ahead, [fan.price, *fan.mean], color=SERIES[1], linewidth=1.4, label=label)
            axes.plot([fan.x], [fan.price], color=SERIES[1], marker="o", markersize=3.5, linewidth=0)
        _draw_line(axes, price, SERIES[0])
        axes.ticklabel_format(axis="y", useOffset=False)
        _finish(axes, entries=3)
    return drawn()


def thinned(count: int) -> NDArray[np.intp]:
    """Return evenly spaced indexes of so many points, `POINTS_MAX` at most, the first and the last among them."""
    return np.unique(np.linspace(0, max(count - 1, 0), min(count, POINTS_MAX)).astype(np.intp))


# --- drawing ----------------------------------------------------------------------------------------------------------


def _cycle() -> Iterator[str]:
    while True:
        yield from SERIES


def _draw_line(axes: Axes, line: Line, colour: str) -> None:
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    shown = thinned(len(x))
    if line.low is not None and line.high is not None:
        low, high = np.asarray(line.low, np.float64), np.asarray(line.high, np.float64)
        axes.fill_between(x[shown], low[shown], high[shown], color=colour, alpha=0.16, linewidth=0)
    axes.plot(
        x[shown],
        y[shown],
        color=colour,
        linewidth=1.5,
        linestyle="--" if line.dashed else "-",
        drawstyle="steps-post" if line.steps else "default",
        marker="o" if len(shown) <= 12 else None,
        markersize=3.5,
        label=line.label,
    )


def _finish(axes: Axes, *, entries: int, percent_y: bool = False, half: bool = False) -> None:
    from matplotlib.ticker import FuncFormatter

    if percent_y:
        axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    if entries > 1:
        columns = 2 if half and entries > 2 else min(entries, 6)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2, scatterpoints=3)


def _percent(value: float, place: int | None = None) -> str:
    return f"{100 * value:.4g} %"
