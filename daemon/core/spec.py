"""What the core has to know about a model: its input columns, its outputs, its horizons.

Plain values, filled from a bundle's manifest; the core never sees a bundle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: How an output column reads, before it is added to the reference price.
OutputKind = Literal["log_return", "difference", "price"]
#: What an output column says of its horizon: the mean, the natural logarithm of the variance (of the error of ``y``, in
#: units of ``y`` squared), or the quantile at a level between 0 and 1.
OutputOf = Literal["mean", "log_variance"] | float
#: What becomes of a tick without a field that the model reads: a dead letter, the field's last value, or this number.
Missing = Literal["dead_letter", "last"] | float


@dataclass(frozen=True, slots=True)
class Column:
    """One input column of the model: a feature and its scale.

    `scale` "frozen" subtracts `mean` and divides by `std`, both from training. "running" does the same with the
    instrument's own causal estimates, for which `mean` and `std` are only the prior, so an instrument never seen in
    training works.
    """

    feature: str
    scale: Literal["frozen", "running"] = "frozen"
    mean: float = 0.0
    std: float = 1.0


@dataclass(frozen=True, slots=True)
class Output:
    """One output column of the model: ``value = mean + scale * y``, in the unit that `kind` names.

    With `volatile` true the value is also multiplied by the instrument's running volatility of one-tick log
    returns (see `ModelSpec.volatility_prior`), so that one model serves instruments of any volatility.

    The residual figures describe ``truth - y`` on the validation part, in units of y; without them variance and
    interval of the forecast are unknown (null).
    """

    horizon: int
    kind: OutputKind = "log_return"
    mean: float = 0.0
    scale: float = 1.0
    volatile: bool = False
    residual_variance: float | None = None
    #: (level, quantile) pairs, both strictly increasing in level, e.g. ((0.05, -1.6), (0.95, 1.7)).
    residual_quantiles: tuple[tuple[float, float], ...] = ()
    of: OutputOf = "mean"


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Everything of a bundle that reaches a payload, apart from the weights."""

    #: The bundle's id; `model` in every forecast.
    model_id: str
    columns: tuple[Column, ...]
    outputs: tuple[Output, ...]
    #: "carried": one step per tick from the carried state. "window": the last `steps` ticks from the initial state.
    mode: Literal["carried", "window"] = "carried"
    #: Ticks of the window; 1 where the state is carried.
    steps: int = 1
    missing: Missing = "dead_letter"
    #: Standard deviation of one-tick log returns that a new instrument starts from.
    volatility_prior: float = 1e-4

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons in ticks, as the outputs that say a mean stand."""
        return tuple(output.horizon for output in self.outputs if output.of == "mean")

    @property
    def prices_may_be_negative(self) -> bool:
        """True where the model works on absolute differences only, as for spreads and power prices."""
        return all(output.kind == "difference" for output in self.outputs if output.of == "mean")
