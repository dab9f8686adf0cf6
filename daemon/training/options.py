"""What a training run is asked to do, and what it says about itself."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from daemon.config import SessionSettings
from daemon.core.spec import OutputOf
from daemon.errors import SettingsError
from daemon.model.facts import Mode
from daemon.model.manifest import STEPS_MAX, WINDOW_NUMBERS_MAX

#: The order book's pressure, the flow of trades, the latest returns over several spans, and how fast ticks come.
DEFAULT_COLUMNS = (
    "return",
    "spread",
    "imbalance",
    "micro",
    "signed_size",
    "sweep",
    "trade",
    "wait",
    "ema:5:return",
    "ema:20:return",
    "ema:10:signed_size",
    "ema:5:imbalance",
    "ema:20:imbalance",
    "ema:5:sweep",
)

Cell = Literal["lstm", "gru"]
Loss = Literal["huber", "gaussian", "quantiles"]
EndedBy = Literal["epochs", "early stopping", "time", "interrupt"]
#: Ticks of a window where nobody says.
STEPS = 20
#: What a loss has the model say about each horizon beside its mean. The levels are those of the usual 90 % interval.
MORE: Mapping[str, tuple[OutputOf, ...]] = {"huber": (), "gaussian": ("log_variance",), "quantiles": (0.05, 0.95)}


@dataclass(frozen=True)
class Shape:
    """Size and kind of the recurrent layers."""

    cell: Cell
    layers: int
    units: int
    #: Share of a layer's outputs that the next one does not see while fitting.
    dropout: float


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a training run; the defaults suit a few hundred thousand ticks."""

    #: How far ahead, in ticks of the instrument; strictly increasing.
    horizons: tuple[int, ...] = (1, 5, 10, 50)
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    cell: Cell = "lstm"
    units: int = 64
    layers: int = 2
    dropout: float = 0.0
    #: "carried": one state through a session. "window": each forecast from its last `steps` ticks alone, which costs
    #: about `steps` times as much.
    mode: Mode = "carried"
    #: Ticks of the window, in window mode only; None for STEPS.
    steps: int | None = None
    #: "huber" gives a mean per horizon, "gaussian" also a log variance, "quantiles" also a lower and an upper quantile.
    loss: Loss = "huber"
    #: Runs through the training part, at most; early stopping and `minutes` may end it before.
    epochs: int = 12
    #: Epochs without a better validation skill before fitting ends.
    patience: int = 4
    #: Time for fitting, None for no limit. With a limit the result depends on the machine's speed.
    minutes: float | None = None
    seed: int = 0
    #: Share of the ticks, in time, for training and validation; the rest is the test part.
    split: float = 0.7
    #: Walk-forward folds; the last one's model is kept. See `daemon.training.folds`.
    folds: int = 1
    #: Session rules as in the settings; what the daemon will use should stand here.
    sessions: tuple[SessionSettings, ...] = ()
    #: Take the place of a bundle that stands at `out`.
    force: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be trained.

        Raises
        ------
        SettingsError : names the option, the value found and the value allowed
        """
        horizons = self.horizons
        if not horizons or any(h < 1 for h in horizons) or sorted(set(horizons)) != list(horizons):
            raise SettingsError(f"horizons = {horizons}: give increasing whole numbers from 1, e.g. 1,5,10,50")
        if not self.columns:
            raise SettingsError("columns = (): give at least one; `tickcast features` lists them")
        if not 0.2 <= self.split <= 0.95:
            raise SettingsError(f"split = {self.split}: give a share from 0.2 to 0.95, e.g. 0.7")
        if not 0 <= self.dropout <= 0.9:
            raise SettingsError(f"dropout = {self.dropout}: give a share from 0 to 0.9")
        for name, known in (("cell", Cell), ("mode", Mode), ("loss", Loss)):
            if getattr(self, name) not in get_args(known):
                raise SettingsError(f"{name} = {getattr(self, name)}: give one of {', '.join(get_args(known))}")
        for name, highest in (("units", 1024), ("layers", 8), ("epochs", 10_000), ("patience", 10_000), ("folds", 20)):
            if not 1 <= getattr(self, name) <= highest:
                raise SettingsError(f"{name} = {getattr(self, name)}: give a whole number from 1 to {highest}")
        if self.minutes is not None and self.minutes <= 0:
            raise SettingsError(f"minutes = {self.minutes}: give a number above 0")
        self._check_window()

    def _check_window(self) -> None:
        if self.mode == "carried" and self.steps is not None:
            raise SettingsError(f"steps = {self.steps} needs mode = window; a carried state has no window")
        highest = min(STEPS_MAX, WINDOW_NUMBERS_MAX // len(self.columns))
        if self.window is not None and not 2 <= self.window <= highest:
            raise SettingsError(f"steps = {self.window}: give a whole number from 2 to {highest}")

    @property
    def window(self) -> int | None:
        """Ticks of the window; None where the state is carried."""
        return None if self.mode == "carried" else STEPS if self.steps is None else self.steps

    @property
    def shape(self) -> Shape:
        """The recurrent layers."""
        return Shape(self.cell, self.layers, self.units, self.dropout)

    @property
    def more(self) -> tuple[OutputOf, ...]:
        """What the model says about each horizon beside its mean."""
        return MORE[self.loss]


#: What a value looks like where the default is None.
EXAMPLES = {"minutes": 3.0, "steps": STEPS}
#: What a file of options may hold: all but what belongs to a run or to the settings.
FILE_KEYS = tuple(each.name for each in fields(TrainingOptions) if each.name not in ("sessions", "force"))


def read_options(file: Path) -> dict[str, Any]:
    """Read options from a TOML file.

    Raises
    ------
    SettingsError : it cannot be read, or a key or the kind of a value is wrong
    """
    try:
        found = tomllib.loads(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read ({error}); give a TOML file") from error
    defaults = TrainingOptions()
    for key, value in found.items():
        if key not in FILE_KEYS:
            raise SettingsError(f"{file}: unknown key {key}; known are {', '.join(FILE_KEYS)}")
        default = EXAMPLES.get(key, getattr(defaults, key))
        example = list(default) if isinstance(default, tuple) else default
        if not _alike(value, example):
            raise SettingsError(f"{file}: {key} = {value!r}: give something like {example!r}")
    return {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}


def _alike(value: object, example: object) -> bool:
    """Tell whether a value is of the example's kind; a whole number does for any number."""
    if isinstance(value, list) and isinstance(example, list):
        return all(type(each) is type(example[0]) for each in value)
    return type(value) is type(example) or (type(value) is int and isinstance(example, float))


@dataclass(frozen=True)
class Progress:
    """Where a run stands; handed to the caller's `progress` now and then."""

    stage: Literal["reading", "training", "judging"]
    #: Ticks read so far.
    tick_count: int
    #: Share of the fitting that is done, 0 to 1.
    done: float = 0.0
    epoch: int = 0
    loss: float | None = None
    #: Skill on the validation part after the last epoch, mean over instruments and horizons.
    skill: float | None = None
    seconds_left: float | None = None
    #: Which fold of how many.
    fold: tuple[int, int] = (1, 1)


Listener = Callable[[Progress], None]
Skills = tuple[float | None, ...]


@dataclass(frozen=True)
class FoldReport:
    """One fold: where its test part lies, and the mean skill there."""

    #: None where no tick of the test part is usable.
    begin: str | None
    end: str | None
    ticks: int
    skill: Skills


@dataclass(frozen=True)
class TrainingReport:
    """What came of a run. Skill is 1 - MSE / MSE of "no change" on the test part; None where prices stood still."""

    bundle: Path
    bundle_id: str
    tick_count: int
    #: Ticks left out, by reason.
    refused: Mapping[str, int]
    #: Ticks of each part.
    parts: Mapping[str, int]
    epochs: int
    best_epoch: int
    ended_by: EndedBy
    seconds: float
    horizons: tuple[int, ...]
    #: Mean over the instruments, one for each horizon.
    skill: Skills
    #: The same for the same model with its state reset at every tick.
    skill_reset_every_tick: Skills
    #: The same for ridge regressions, one per instrument, on the same inputs.
    skill_ridge: Skills
    skill_by_instrument: Mapping[str, Skills] = field(default_factory=dict)
    folds: tuple[FoldReport, ...] = ()
    #: The page beside the bundle; None where the extra `report` is missing.
    page: Path | None = None
