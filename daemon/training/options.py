"""What a training run is asked to do, and what it says about itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from daemon.config import SessionSettings
from daemon.errors import SettingsError

#: The order book's pressure, the flow of trades, the latest returns over several spans, and how fast ticks come.
DEFAULT_COLUMNS = (
    "return",
    "spread",
    "imbalance",
    "micro",
    "signed_size",
    "trade",
    "wait",
    "ema:5:return",
    "ema:20:return",
    "ema:100:return",
    "ema:10:signed_size",
    "ema:50:signed_size",
    "ema:5:imbalance",
    "ema:20:imbalance",
)


@dataclass(frozen=True)
class TrainingOptions:
    """Settings of a training run; the defaults suit a few hundred thousand ticks."""

    #: How far ahead, in ticks of the instrument; strictly increasing.
    horizons: tuple[int, ...] = (1, 5, 10, 50)
    columns: tuple[str, ...] = DEFAULT_COLUMNS
    units: int = 64
    layers: int = 2
    #: Runs through the training part, at most; early stopping and `minutes` may end it before.
    epochs: int = 12
    #: Time for fitting, None for no limit. With a limit the result depends on the machine's speed.
    minutes: float | None = None
    seed: int = 0
    #: Share of the ticks, in time, for training and validation; the rest is the test part.
    split: float = 0.7
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
        if not 0.2 <= self.split <= 0.95:
            raise SettingsError(f"split = {self.split}: give a share from 0.2 to 0.95, e.g. 0.7")
        for name, highest in (("units", 1024), ("layers", 8), ("epochs", 10_000)):
            if not 1 <= getattr(self, name) <= highest:
                raise SettingsError(f"{name} = {getattr(self, name)}: give a whole number from 1 to {highest}")
        if self.minutes is not None and self.minutes <= 0:
            raise SettingsError(f"minutes = {self.minutes}: give a number above 0")


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


Listener = Callable[[Progress], None]


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
    ended_by: Literal["epochs", "early stopping", "time", "interrupt"]
    seconds: float
    horizons: tuple[int, ...]
    #: Mean over the instruments, one for each horizon.
    skill: tuple[float | None, ...]
    skill_by_instrument: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
